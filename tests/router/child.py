"""A router as a process of its own, to be killed: ``python -m router.child DSN LOG_FOLDER SOCKET``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path

from seawall.guard import Supervisor
from seawall.journal import LogReader
from seawall.kernel.clock import SystemClock
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.journal import JournalReader
from seawall.router import Router, Settings
from seawall.store import pool
from seawall.store.pool import Store


async def main(dsn: str, folder: str, socket: str) -> None:
    metrics, clock = Metrics(), SystemClock()
    async with (
        LogReader(Path(folder), Path(socket)) as reader,
        Store(pool.Settings(dsn=dsn), role="router") as store,
    ):

        async def find() -> Mapping[str, JournalReader]:
            return {"c1": reader}

        # Small batches and an early split: more instants that differ.
        settings = Settings(batch_records=20, backlog_batch=10, lag_split_s=1.0, backlog_rate=500)
        async with Router(store, find, settings, clock=clock, metrics=metrics) as router:
            supervisor = Supervisor(metrics)
            router.register(supervisor)
            async with supervisor:
                await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
