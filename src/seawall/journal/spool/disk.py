"""What a loop has a thread do with files, however long the disk takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from seawall.guard.loop import heed
from seawall.guard.supervisor import Heart

T = TypeVar("T")

SILENT_S = 0.5
"""When a disk that doesn't answer is spoken of."""


async def alive(heart: Heart, work: Coroutine[Any, Any, T]) -> T:
    """The work's result; it has a deadline of its own, and the loop lives meanwhile.

    Cancelled: the work is cancelled too.
    """
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait([task], timeout=SILENT_S))[0]:
            heart.touch()
        return task.result()
    finally:
        task.cancel()


class Disk:
    """One thing at a time: files that are read by two threads at once are read by none.

    Args:
        name: What lies there, as people know it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._task: asyncio.Future[Any] | None = None
        self.silent = ""
        """Why the loop waits; "": it doesn't."""

    @property
    def busy(self) -> bool:
        return self._task is not None and not self._task.done()

    async def do(self, heart: Heart, work: Callable[[], T]) -> T:
        """The work's result. The loop lives meanwhile, and says why it does nothing: begun again by whoever watches it,
        it would take another thread from all others each time.

        Cancelled: the thread goes on, and what is asked for next waits for it.
        """
        if self._task is not None and not self._task.done():
            await self._wait(heart, self._task)
        task: asyncio.Task[T] = asyncio.ensure_future(asyncio.to_thread(work))
        self._task = task
        task.add_done_callback(heed)
        await self._wait(heart, task)
        return task.result()

    async def _wait(self, heart: Heart, task: asyncio.Future[Any]) -> None:
        try:
            while not (await asyncio.wait([task], timeout=SILENT_S))[0]:
                self.silent = f"{self._name}: no answer from the disk"
                heart.unready(self.silent)
        finally:
            self.silent = ""
