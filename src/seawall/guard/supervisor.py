"""Every loop has an owner that notices its death or its silence, restarts it in the open, and says so in readiness.

This is the answer to the silent listener (incident I1): a loop that died without a log line while "the server is
running but nothing is working". A loop here tells its progress by ``heart.beat()``; it must beat at least every
``stall_s`` seconds, also when it has nothing to do, so each wait inside it is bounded.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import NoReturn

from seawall.guard.stack import stack_of
from seawall.guard.watchdog import Watchdog
from seawall.kernel.clock import Clock, SystemClock
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics

log = logger("guard")

CHECK_S = 0.25
"""How often the owner looks. With a stall limit of at most 3 s, death or silence is seen and mended within 5 s."""

STALL_S = 3.0
CANCEL_S = 1.0
"""How long a cancelled loop may take to end. One that doesn't can't be replaced safely: two would run."""

BACKOFF_MAX_S = 2.0
Pace = Callable[[str], Awaitable[None]]


class Heart:
    """What a supervised loop holds."""

    __slots__ = ("_clock", "_loop", "_pace")

    def __init__(self, loop: Loop, clock: Clock, pace: Pace | None) -> None:
        self._loop = loop
        self._clock = clock
        self._pace = pace

    async def beat(self) -> None:
        """Say that a round was made. The very first beat after a start makes the loop ready."""
        if self._pace is not None:
            await self._pace(self._loop.name)
        self._loop.beat_at = self._clock.monotonic()
        self._loop.ready = True
        self._loop.reason = ""

    def touch(self) -> None:
        """Progress inside a round that takes several steps: the loop is alive, and as ready as it was."""
        self._loop.beat_at = self._clock.monotonic()

    def unready(self, reason: str) -> None:
        """The loop is alive but can't do its work, for instance since its dependency is away."""
        self._loop.beat_at = self._clock.monotonic()
        self._loop.ready = False
        self._loop.reason = reason


@dataclass(slots=True)
class Loop:
    """One supervised loop, as its owner sees it."""

    name: str
    run: Callable[[Heart], Awaitable[None]]
    stall_s: float
    essential: bool  # False: its trouble is shown, but doesn't make the role unready
    beat_at: float = 0.0
    ready: bool = False
    reason: str = "starting"
    restarts: int = 0
    task: asyncio.Task[None] | None = None
    retry_at: float = 0.0
    backoff_s: float = field(default=0.1)


@dataclass(frozen=True, slots=True)
class LoopHealth:
    """A loop's line in /readyz."""

    name: str
    ready: bool
    essential: bool
    reason: str
    last_progress_age_s: float
    restarts: int


def _die(status: int) -> NoReturn:
    import os

    os._exit(status)


class Supervisor:
    """Owns loops. ``async with`` starts them; leaving stops them, newest first.

    Args:
        pace: Awaited at each beat with the loop's name; a test's handle to kill (raise) or hang (never return) a loop.
        die: Ends the process when a loop can't be stopped; only a test passes another.
        watch_blocking: End the process when its event loop is blocked (one per process; off in tests).
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        clock: Clock | None = None,
        pace: Pace | None = None,
        die: Callable[[int], object] = _die,
        watch_blocking: bool = False,
    ) -> None:
        self._metrics = metrics
        self._clock = clock or SystemClock()
        self._pace = pace
        self._die = die
        self._watchdog = Watchdog() if watch_blocking else None
        self._loops: list[Loop] = []
        self._owner: asyncio.Task[None] | None = None

    def add(
        self, name: str, run: Callable[[Heart], Awaitable[None]], *, stall_s: float = STALL_S, essential: bool = True
    ) -> None:
        """Register a loop, before or after the start. ``run`` must not return before it is cancelled.

        Args:
            stall_s: Silence that counts as a hang. None may be given more than ``STALL_S``: it would break the promise
                of 5 s. A loop whose work takes longer says that it lives meanwhile.
            essential: False for a loop whose trouble is shown, and doesn't make the role unready.
        """
        assert stall_s <= STALL_S, f"{name} must beat more often"
        loop = Loop(name, run, stall_s, essential)
        gauge = self._metrics.gauge(
            "seawall_loop_last_progress_seconds", "Age of a supervised loop's last progress.", loop=name
        )
        gauge.read = lambda: self._clock.monotonic() - loop.beat_at
        self._loops.append(loop)
        if self._owner is not None:
            self._start(loop)

    def health(self) -> list[LoopHealth]:
        """Every loop's state, in order of registration."""
        now = self._clock.monotonic()
        return [
            LoopHealth(p.name, p.ready, p.essential, p.reason, round(max(0.0, now - p.beat_at), 3), p.restarts)
            for p in self._loops
        ]

    def ready(self, name: str) -> bool:
        """Whether a loop, by its name, does its work; False for one that there isn't."""
        return any(loop.ready for loop in self._loops if loop.name == name)

    async def __aenter__(self) -> Supervisor:
        # Before any loop: what a loop does first may block the process.
        self._owner = asyncio.create_task(self._own(), name="supervisor")
        self._owner.add_done_callback(self._owner_ended)
        for loop in self._loops:
            self._start(loop)
        return self

    def _owner_ended(self, owner: asyncio.Task[None]) -> None:
        """Nobody owns the owner: a process whose loops are no longer watched must not live on."""
        if not owner.cancelled():
            log.critical("the supervisor died; the process ends", exc_info=owner.exception())
            self._die(70)

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owner is None:
            return
        self._owner.cancel()
        await asyncio.wait([self._owner])
        self._owner = None
        if self._watchdog is not None:
            self._watchdog.stop()
        for loop in reversed(self._loops):
            if loop.task is not None:
                loop.task.cancel()
                await asyncio.wait([loop.task], timeout=CANCEL_S)
                loop.ready, loop.reason = False, "stopped"

    def _start(self, loop: Loop) -> None:
        loop.beat_at = self._clock.monotonic()
        heart = Heart(loop, self._clock, self._pace)
        loop.task = asyncio.create_task(self._call(loop, heart), name=loop.name)

    @staticmethod
    async def _call(loop: Loop, heart: Heart) -> None:
        await loop.run(heart)

    async def _own(self) -> None:
        looked_at = self._clock.monotonic()
        while True:
            if self._watchdog is not None:
                self._watchdog.beat()
            self._forgive(self._clock.monotonic() - looked_at - CHECK_S)
            for loop in self._loops:
                await self._look_after(loop)
            looked_at = self._clock.monotonic()
            await asyncio.sleep(CHECK_S)

    def _forgive(self, late_s: float) -> None:
        """We ourselves come so late. If this process stood still meanwhile (a paused machine, a starved core), nobody
        in it could beat: that time is no loop's silence. Else all that wait for an answer would be called hung
        afterwards, and be cancelled with what they have in hand."""
        if late_s > CHECK_S:
            now = self._clock.monotonic()
            for loop in self._loops:
                loop.beat_at = min(now, loop.beat_at + late_s)

    async def _look_after(self, loop: Loop) -> None:
        now = self._clock.monotonic()
        task = loop.task
        if task is None:
            if now >= loop.retry_at:
                self._start(loop)
        elif task.done():
            self._bury(loop, task)
        elif now - loop.beat_at > loop.stall_s:
            await self._unhang(loop, task, now - loop.beat_at)
        elif loop.ready and now - loop.beat_at < 1.0:
            loop.backoff_s = 0.1

    def _bury(self, loop: Loop, task: asyncio.Task[None]) -> None:
        cause = "it was cancelled" if task.cancelled() else repr(task.exception() or "it returned")
        error = None if task.cancelled() else task.exception()
        log.error("loop died", extra=fields(loop=loop.name, cause=cause), exc_info=error)
        self._restart_later(loop, f"died: {cause}")

    async def _unhang(self, loop: Loop, task: asyncio.Task[None], age_s: float) -> None:
        stack = stack_of(task)
        log.error("loop hangs", extra=fields(loop=loop.name, silent_s=round(age_s, 1), stack=stack))
        loop.ready, loop.reason = False, f"no progress for {age_s:.1f} s"
        task.cancel()
        await asyncio.wait([task], timeout=CANCEL_S)
        if not task.done():
            log.critical("loop can't be stopped; the process ends", extra=fields(loop=loop.name, stack=stack))
            self._die(70)
            return
        self._restart_later(loop, f"hung: no progress for {age_s:.1f} s")

    def _restart_later(self, loop: Loop, reason: str) -> None:
        loop.ready, loop.reason = False, reason
        loop.restarts += 1
        self._metrics.counter(
            "seawall_loop_restarts_total", "Restarts of a supervised loop after death or silence.", loop=loop.name
        ).value += 1
        loop.task = None
        loop.retry_at = self._clock.monotonic() + loop.backoff_s * (0.5 + random.random() / 2)
        loop.backoff_s = min(BACKOFF_MAX_S, loop.backoff_s * 2)
