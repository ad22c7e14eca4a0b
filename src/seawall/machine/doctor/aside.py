"""Where the doctor does what may hang on a disk: the loop of `up`, in which it works too, must not wait for one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import TypeVar

from seawall.kernel.error import Unavailable

T = TypeVar("T")


class Aside:
    """One thread of its own, which a disk that hangs keeps for as long as it does. No process waits for it at its end,
    as it would for a pool's.

    Args:
        seconds: For all that is done here together.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = self._left_s = seconds
        self._works: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def __enter__(self) -> Aside:
        threading.Thread(target=self._run, name="doctor", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._works.put(None)

    async def do(self, work: Callable[[], T]) -> T:
        """What ``work`` returns. It may block.

        Raises:
            Unavailable: Not in time; it may still go on.
            Whatever ``work`` does.

        Cancelled: it may still go on.
        """
        asked: Future[T] = Future()
        self._works.put(partial(_carry_out, asked, work))
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self._left_s):
                return await asyncio.wrap_future(asked)
        except TimeoutError as error:
            raise Unavailable("the disk", f"it said nothing for {self._seconds:g} s") from error
        finally:
            self._left_s = max(0.0, self._left_s - (loop.time() - began))

    def _run(self) -> None:
        while (work := self._works.get()) is not None:
            work()


def _carry_out(asked: Future[T], work: Callable[[], T]) -> None:
    if not asked.set_running_or_notify_cancel():
        return  # given up while another work hung
    try:
        asked.set_result(work())
    except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
        asked.set_exception(error)
