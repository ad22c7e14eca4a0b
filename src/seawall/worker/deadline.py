"""Deadlines of steps and runs, looked after by one loop: a timer for each step would cost as much as its flush."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from seawall.guard import Heart
from seawall.kernel.clock import Clock

TICK_S = 0.1
"""Deadlines are late by at most this; they are seconds to hours."""

POSTPONE_S = 1.0


class Watch:
    """One deadline on one task. When it passes, the task is cancelled once; whoever set it tells that from others."""

    __slots__ = ("at", "cancelling", "expired", "of_run", "task")

    def __init__(self, task: asyncio.Task[object], at: float, of_run: bool) -> None:
        self.task = task
        self.at = at
        self.of_run = of_run
        self.expired = False
        self.cancelling = task.cancelling()

    def was_it(self) -> bool:
        """In ``except CancelledError``: whether this deadline alone caused it. Takes the cancellation back then."""
        return self.expired and self.task.uncancel() <= self.cancelling


class Deadlines:
    """All deadlines of one process.

    Args:
        store_away: True while outcomes can't be stored: runs then wait, and no run expires for that.
    """

    def __init__(self, clock: Clock, *, store_away: Callable[[], bool]) -> None:
        self._clock = clock
        self._store_away = store_away
        self._watches: set[Watch] = set()
        self.clear: Callable[[Watch], None] = self._watches.discard
        """Forget a deadline; harmless when it has passed."""
        self._next_at = float("inf")

    def set(self, task: asyncio.Task[object], timeout_s: float, *, of_run: bool = False) -> Watch:
        at = self._clock.monotonic() + timeout_s
        watch = Watch(task, at, of_run)
        self._watches.add(watch)
        if at < self._next_at:
            self._next_at = at
        return watch

    @property
    def steps(self) -> int:
        """Step functions that are being called now."""
        return sum(1 for watch in self._watches if not watch.of_run)

    async def run(self, heart: Heart) -> None:
        """The supervised loop."""
        beat_at = 0.0
        while True:
            now = self._clock.monotonic()
            if now >= self._next_at:
                self._expire(now)
            if now >= beat_at:
                await heart.beat()
                beat_at = now + 0.5
            await asyncio.sleep(TICK_S)

    def _expire(self, now: float) -> None:
        away = self._store_away()
        for watch in [w for w in self._watches if w.at <= now]:
            if watch.of_run and away:
                watch.at = now + POSTPONE_S
                continue
            self._watches.discard(watch)
            watch.expired = True
            watch.task.cancel()
        self._next_at = min((w.at for w in self._watches), default=float("inf"))
