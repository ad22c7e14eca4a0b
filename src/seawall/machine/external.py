"""A PostgreSQL that somebody else runs."""

from __future__ import annotations

import asyncio

from seawall.guard import Heart


class External:
    """A PostgreSQL that somebody else runs: there is nothing to start, watch or stop."""

    def __init__(self, dsn: str, worker_dsn: str) -> None:
        self._dsns = (dsn, worker_dsn)

    async def prepare(self) -> tuple[str, str]:
        return self._dsns

    async def run(self, heart: Heart) -> None:
        while True:
            await heart.beat()
            await asyncio.sleep(1.0)

    async def stop(self, *, timeout_s: float) -> None:
        """Nothing to stop."""
