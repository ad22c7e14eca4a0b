"""Threads for steps that are plain functions. A thread can't be stopped, so what hangs in one keeps its place."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from seawall.kernel.error import said
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.pulse import Pulse


class Threads:
    """A bounded number of them. A step takes a place first, and its time begins only then: hundreds of runs may wait
    for some dozens of threads, and a step that hadn't begun must not be called one that took too long.

    Args:
        most: Places.
        hang: Called with the number of threads when none of them will come back: each is in a step that timed out.
    """

    def __init__(self, most: int, *, metrics: Metrics, hang: Callable[[int], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._most = most
        self._free = most
        self._abandoned = 0
        self._late: set[Future[Any]] = set()  # of those, whose time is over
        self._hang = hang
        self._waiting: deque[asyncio.Future[None]] = deque()  # at most one for each step that runs take at once
        self._pool = ThreadPoolExecutor(most, thread_name_prefix="step")
        metrics.gauge("seawall_threads_abandoned_count", "Threads that still run a step that timed out.").read = (
            lambda: self._abandoned
        )
        metrics.gauge("seawall_threads_awaited_count", "Steps that wait for a thread.").read = lambda: len(
            self._waiting
        )

    async def take(self) -> None:
        """Wait for a place, in order of coming. ``call`` or ``give`` gives it back. Cancelled: it has none."""
        if self._free:
            self._free -= 1
            return
        place = self._loop.create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.cancelled():
                self._waiting.remove(place)
            else:
                self.give()  # it was ours already
            raise

    def give(self) -> None:
        """Give a place back."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._free += 1

    async def call(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], *, timeout_s: float = 0.0,
        pulse: Pulse | None = None,
    ) -> object:  # fmt: skip
        """Call a plain function in a thread, with this task's context, by a place that was taken.

        Args:
            timeout_s: How long it was to take. A thread whose run was cancelled before isn't said to hang until then.
            pulse: Its heartbeats: it ends with the next one, so one that is silent hangs.

        Cancelled: the thread goes on to its end, and has its place until then. When all places are taken that way, no
            plain step could ever run again, so the process ends and its successor begins with fresh threads.
        """
        until = self._loop.time() + timeout_s
        context = contextvars.copy_context()
        future = self._pool.submit(context.run, _quietly, function, args, kwargs)
        try:
            failed, value = await asyncio.wrap_future(future, loop=self._loop)
        except asyncio.CancelledError:
            if future.cancelled() or future.done():
                self.give()
            else:
                self._abandoned += 1
                future.add_done_callback(self._ended)
                left_s = until - self._loop.time() if pulse is None else pulse.left_s
                if left_s > 0:
                    self._loop.call_later(left_s, self._overdue, future)
                else:
                    self._overdue(future)
            raise
        self.give()
        if failed:
            raise value
        # A decorator may hide that a function is async def: then the thread only made the coroutine.
        return await value if inspect.isawaitable(value) else value

    def _overdue(self, future: Future[Any]) -> None:
        if not future.done():
            self._late.add(future)
        if len(self._late) >= self._most:
            self._hang(len(self._late))

    def _ended(self, future: Future[Any]) -> None:
        """In the thread that came back after all."""
        with contextlib.suppress(RuntimeError):  # the loop has ended before
            self._loop.call_soon_threadsafe(self._returned, future)

    def _returned(self, future: Future[Any]) -> None:
        self._late.discard(future)
        self._abandoned -= 1
        self.give()

    def close(self) -> None:
        """Give the threads up; those that hang can't be stopped."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _quietly(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[bool, Any]:
    """In the thread: (raised, value or exception). An exception as a value, since asyncio can't set StopIteration, and
    SystemExit would end the pool's thread."""
    try:
        return False, function(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001
        # Outermost in its thread, and raised again in the step: the user's function may raise anything.
        return True, ordinary(error)


def ordinary(error: BaseException) -> Exception:
    """What a step raised, as something that can travel: SystemExit must not end the event loop."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration | StopAsyncIteration):
        return error
    ours = RuntimeError(said(error))
    ours.__cause__ = error
    return ours
