"""``seawall up --watch``: for development, the worker is started anew when the app file was saved."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from seawall.guard import Heart
from seawall.kernel.log import fields, logger
from seawall.machine.process import Child, stamp

log = logger("machine")

CHECK_APP_S = 60.0
WATCH_S = 0.5


class AppWatch:
    """Looks at one file. A version of it that can't be imported replaces nothing."""

    def __init__(self, file: Path, worker: Child, *, beside: Callable[[], Sequence[Child]] = tuple) -> None:
        """Args:
        beside: Other workers of the same file.
        """
        self._file = file
        self._worker = worker
        self._beside = beside

    async def run(self, heart: Heart) -> None:
        """`up --watch`: start the worker anew when the app file changed and can be imported."""
        seen = stamp(self._file)
        while True:
            await heart.beat()
            await asyncio.sleep(WATCH_S)
            now = stamp(self._file)
            if now in (seen, None):
                continue
            seen = now
            problem = await self._problem(heart)
            if problem is None:
                await self._replaced(heart)
            else:
                log.error("the changed app file can't be imported; the old one runs on", extra=fields(problem=problem))

    async def _replaced(self, heart: Heart) -> None:
        children = (self._worker, *self._beside())
        work = asyncio.gather(*(child.replace(why="the app file changed") for child in children))
        while not work.done():
            await heart.beat()
            await asyncio.wait([work], timeout=1.0)
        await work

    async def _problem(self, heart: Heart) -> str | None:
        """Import the app file in a process of its own; what it said when that failed."""
        command = [*self._worker.spec.command, "--check"]
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        work = asyncio.create_task(process.communicate())
        latest = time.monotonic() + CHECK_APP_S
        while not work.done():
            await heart.beat()
            await asyncio.wait([work], timeout=1.0)
            if time.monotonic() > latest:
                process.kill()
        _, said = await work
        return None if process.returncode == 0 else said.decode("utf-8", "replace")[-4000:].strip()
