"""Deadlines of steps and runs, looked after by one loop: a timer for each step would cost as much as its flush."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from seawall.guard import Heart
from seawall.kernel.clock import Clock
from seawall.kernel.seam.pulse import Pulse

if TYPE_CHECKING:
    from seawall.worker.execution import Execution

TICK_S = 0.1
"""Deadlines are late by at most this; they are seconds to hours."""

STALL_S = 0.25
"""A tick that comes so long after the one before says that the loop was blocked, or the process stopped: heartbeats
couldn't come."""

STALLS_MAX = 50
"""Of so many it is known when they were."""

POSTPONE_S = 1.0

CANCELS = 3
"""How often a task is cancelled within its grace: what was swallowed once by a careless ``except`` may work then, and
an orderly ``finally`` has some seconds before it is disturbed."""


class Watch(msgspec.Struct, eq=False):
    """One deadline on one task. When it passes, the task is cancelled, and again for as long as it goes on; whoever set
    it tells that from other cancellations."""

    task: asyncio.Task[object]
    at: float
    run: Execution
    of_run: bool
    cancelling: int  # of the task, when it was set
    cancels: int = 0
    pulse: Pulse | None = None  # of a step that has heartbeats: ``at`` is then the earlier of the next one and ``last``
    last: float = 0.0

    def was_it(self) -> bool:
        """In ``except CancelledError``: whether this deadline alone caused it. Takes its cancellations back then."""
        if not self.cancels:
            return False
        for _ in range(self.cancels):
            self.task.uncancel()
        return self.task.cancelling() <= self.cancelling

    def goes_on(self, now: float, stood_s: Callable[[float], float]) -> bool:
        """Whether a heartbeat came meanwhile that moves the deadline; says on the pulse when it was missed. Time in
        which our loop stood still isn't the step's silence, up to as much again: one that always does must spare nobody
        for ever."""
        pulse = self.pulse
        if pulse is None or self.cancels or now >= self.last:
            return False
        at = pulse.at  # a thread may beat at any moment
        due = at + pulse.every_s
        if now >= due and (stalled_s := stood_s(at)):
            due += min(stalled_s, pulse.every_s) + TICK_S  # a beat may stand behind this look, in the same queue
        pulse.missed = now >= due
        self.at = min(self.last, due)
        return not pulse.missed

    def cancel(self) -> None:
        self.cancels += 1
        # Not the task's own method, which is there to notice other people's cancellations (execution.py).
        asyncio.Task.cancel(self.task)


class Deadlines:
    """All deadlines of one process.

    Args:
        store_away: True while outcomes can't be stored, or the store doesn't answer a run: no run expires for that.
        grace_s: How long a task may go on after it was cancelled. A third of it later it is cancelled again.
        stubborn: Called when it does go on for longer: with its deadline, once.
    """

    def __init__(
        self, clock: Clock, *, store_away: Callable[[], bool], grace_s: float, stubborn: Callable[[Watch], None]
    ) -> None:
        self._now = clock.monotonic
        self._store_away = store_away
        self._grace_s = grace_s
        self._stubborn = stubborn
        self._watches: set[Watch] = set()
        self.clear: Callable[[Watch], None] = self._watches.discard
        """Forget a deadline: whoever had it has ended."""
        self._next_at = float("inf")
        self._stalls: deque[tuple[float, float]] = deque(maxlen=STALLS_MAX)  # when the loop stood still: from, to

    def set(
        self, task: asyncio.Task[object], timeout_s: float, run: Execution, *, of_run: bool = False,
        pulse: Pulse | None = None,
    ) -> Watch:  # fmt: skip
        at = self._now() + timeout_s
        watch = Watch(task, at, run, of_run, task.cancelling())
        if pulse is not None:
            pulse.begin()
            watch.pulse, watch.last = pulse, at
            watch.at = at = min(at, pulse.due)
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
        beat_at, before = 0.0, self._now()
        while True:
            now = self._now()
            if now - before > STALL_S:
                self._stalls.append((before, now))
            if now >= self._next_at:
                self._expire(now)
            before = now
            if now >= beat_at:
                await heart.beat()
                beat_at = now + 0.5
            await asyncio.sleep(TICK_S)

    def _stood_s(self, since: float) -> float:
        """How long the loop has stood still since then."""
        return sum(ended - max(began, since) for began, ended in self._stalls if ended > since)

    def _expire(self, now: float) -> None:
        away = self._store_away()
        for watch in [w for w in self._watches if w.at <= now]:
            if watch.of_run and away:
                watch.at = now + POSTPONE_S
                continue
            if watch.goes_on(now, self._stood_s):
                continue
            watch.at = now + self._grace_s / CANCELS
            watch.cancel()
            if watch.cancels == CANCELS + 1:
                self._stubborn(watch)
        self._next_at = min((w.at for w in self._watches), default=float("inf"))
