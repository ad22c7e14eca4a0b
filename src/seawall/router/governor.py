"""The loop of the drain governor: measures, decides at the end of each window, and writes each drain's rate.

Each router has one; whoever holds the one lease decides. When nobody does (the store is away), rates stay as they are.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from seawall.guard.governor import Act, Course, Decision, Governor, Reserve, Signal, reserve_share, steered
from seawall.guard.patience import patiently, rest
from seawall.guard.spell import Spells
from seawall.guard.supervisor import Heart
from seawall.kernel.clock import Clock
from seawall.kernel.error import Unavailable, Uncertain
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.router.range import STORE
from seawall.router.settings import Settings
from seawall.store import drain as rows
from seawall.store.drain import BACKLOG, SPOOL, Done, Drain, Facts
from seawall.store.pool import Store

log = logger("router")

EVERY_S = 1.0
LEAD_S = 5.0
LIVE_S = 15.0
TRIED_LEAST = 20
"""Fewer executions in a window than these say nothing of how many fail."""

FLOOR_SHARE = 0.02
"""Backlog and spool are never cut below this share of what settings say."""


@dataclass(slots=True)
class Window:
    """What was measured since a window began."""

    began_at: float  # monotonic
    facts: Facts | None = None  # at its beginning
    reserve: Reserve | None = None
    taken_s: list[float] | None = None  # how long each commit took; None: one failed


class DrainGovernor:
    """One router's part in governing.

    Args:
        settings: As they are in force at each moment.
        spool_rate: As ``Router``; None: there are no spools.
    """

    def __init__(
        self, store: Store, settings: Settings, *, clock: Clock, metrics: Metrics, spells: Spells,
        spool_rate: int | None = None, owner: UUID | None = None,
    ) -> None:  # fmt: skip
        self._store = store
        self.settings = settings
        self._clock = clock
        self._spells = spells
        self._owner = owner or UUID(bytes=os.urandom(16))
        self._spool_rate = spool_rate
        self._governor: Governor | None = None  # None: somebody else leads
        self._courses: dict[str, tuple[int, Course]] = {}  # by drain: its revision, and where it is
        self._window = Window(clock.monotonic(), taken_s=[])
        self._acts = {
            act: metrics.counter(
                "seawall_governor_windows_total", "Windows of the governor, by what it did.", act=act.value
            )
            for act in Act
        }
        self._share = metrics.gauge(
            "seawall_governor_share_ratio", "The governor's worst signal, as a share of what is allowed."
        )

    @property
    def leads(self) -> bool:
        return self._governor is not None

    async def run(self, heart: Heart) -> None:
        """The supervised loop."""
        try:
            while True:
                try:
                    await self._round(heart)
                except (Unavailable, Uncertain) as error:
                    self._window.taken_s = None
                    await rest(heart, EVERY_S, reason=str(error))
                    continue
                await heart.beat()
                await asyncio.sleep(EVERY_S)
        finally:
            self._governor = None

    async def _round(self, heart: Heart) -> None:
        asked_at = self._clock.monotonic()
        leads, level = await patiently(heart, rows.lead(self._store, self._owner, ttl_s=LEAD_S), what=STORE)
        now = self._clock.monotonic()
        if not leads:
            self._governor = None
            return
        if self._governor is None:
            await self._begin(heart, level)
            return
        if self._window.taken_s is not None:
            self._window.taken_s.append(now - asked_at)
        if now - self._window.began_at >= self.settings.governor_window_s:
            await self._decide(heart, now)

    async def _begin(self, heart: Heart, level: float | None) -> None:
        """Lead, from an unknown past on."""
        settings = self.settings
        self._governor = Governor()
        self._courses.clear()
        facts = await patiently(heart, self._facts(settings.governor_window_s), what=STORE)
        reserve = None
        if settings.reserve_bytes:
            left = settings.reserve_bytes if level is None else min(level, settings.reserve_bytes)
            reserve = Reserve(left, settings.reserve_bytes, settings.reserve_base_bytes_s)
        self._window = Window(self._clock.monotonic(), facts, reserve, [])

    async def _decide(self, heart: Heart, now: float) -> None:
        settings, former = self.settings, self._window
        await patiently(heart, self._keep_own(), what=STORE)
        seconds = now - former.began_at
        facts = await patiently(heart, self._facts(seconds), what=STORE)
        signals = [
            _store_signal(former.taken_s, settings), _broken_signal(former.facts, facts),
            _start_signal(facts),
        ]  # fmt: skip
        reserve = None
        if former.facts is not None:
            signals.append(_failed_signal(former.facts.done, facts.done, settings))
            if former.reserve is not None:
                reserve = former.reserve.used(max(0.0, facts.written - former.facts.written), seconds)
                signals.append(_reserve_signal(former.reserve, reserve, seconds, settings))
        assert self._governor is not None
        decision = self._governor.decide(signals)
        self._window = Window(now, facts, reserve, [])
        await self._write(heart, decision, seconds)

    async def _facts(self, window_s: float) -> Facts:
        start_s = self.settings.governor_start_s
        return await rows.facts(self._store, live_s=LIVE_S, window_s=window_s, start_s=start_s)

    async def _keep_own(self) -> None:
        """Have the drains that are there by themselves."""
        for name, goal in ((BACKLOG, self.settings.backlog_rate), (SPOOL, self._spool_rate)):
            if goal is not None:
                await rows.keep(self._store, name, floor=max(1.0, FLOOR_SHARE * goal), goal=float(goal))

    async def _write(self, heart: Heart, decision: Decision, window_s: float) -> None:
        drains = await patiently(heart, rows.drains(self._store), what=STORE)
        courses, rates = {}, []
        for drain in drains:
            if not drain.governed:
                continue
            course = steered(self._course(drain), decision, window_s=window_s)
            courses[drain.name] = (drain.revision, course)
            rates.append((drain, course.rate))
        self._courses = courses
        worst = decision.worst
        share = worst.share if worst is not None else None
        self._acts[decision.act].value += 1
        self._share.value = share or 0.0
        reserve = self._window.reserve
        await patiently(
            heart,
            rows.steer(
                self._store, self._owner, rates, act=decision.act, share=share, said=worst.said if worst else "",
                reserve=reserve.level if reserve else None,
            ),
            what=STORE,
        )  # fmt: skip
        self._say(decision, [drain for drain, _ in rates])

    def _course(self, drain: Drain) -> Course:
        """Where a drain is; what was set by hand since begins anew."""
        known = self._courses.get(drain.name)
        if known is None or known[0] != drain.revision:
            return drain.course()
        course = known[1]
        if (course.floor, course.goal, course.slope) != (drain.floor, drain.goal, drain.slope):
            return drain.course()
        return course

    def _say(self, decision: Decision, drains: Sequence[Drain]) -> None:
        if decision.act is not Act.CUT or not drains or decision.worst is None:
            return
        why = decision.worst.said
        log.warning("drains are cut", extra=fields(why=why, drains=[drain.name for drain in drains]))
        stuck = [drain.name for drain in drains if self._courses[drain.name][1].at_floor]
        if stuck:
            self._spells.saw(
                "drain-at-floor", f"{', '.join(stuck)[:200]}: as slow as allowed, and still {why}",
                unaffected="fresh events", cure="pause what isn't needed now; mend what is slow",
                quiet_s=6 * self.settings.governor_window_s,
            )  # fmt: skip


def _store_signal(taken_s: Sequence[float] | None, settings: Settings) -> Signal:
    """The second slowest commit of the window: one alone may be a checkpoint's."""
    limit_s = settings.governor_store_s
    if taken_s is None:
        return Signal("store", 2.0, "store: a commit failed")
    if not taken_s:
        return Signal("store", None, "store: nothing measured")
    slow_s = sorted(taken_s)[-2:][0]
    return Signal("store", slow_s / limit_s, f"store: a commit takes {slow_s * 1000:.0f} ms of {limit_s * 1000:.0f}")


def _broken_signal(before: Facts | None, now: Facts) -> Signal:
    """A breaker that has just opened is a reason to slow down. One that stays open is none: a single tenant's dead
    service would hold everybody's backlog for days; whatever needs it shows in what fails."""
    new = sorted(set(now.broken) - set(before.broken if before is not None else now.broken))
    if not new:
        return Signal("breakers", 0.0, "breakers: none has opened")
    return Signal("breakers", 1.01, f"breakers have opened: {', '.join(new)[:200]}")


def _start_signal(facts: Facts) -> Signal:
    """How late fresh work starts: what drains takes its slots and its store."""
    if facts.slowest is None:
        return Signal("starts", 0.0, "starts: too few runs to say")
    queue, waited_s, limit_s = facts.slowest
    said = f"starts: a run of queue {queue} waits {waited_s:.2g} s of {limit_s:g}"
    return Signal("starts", waited_s / limit_s, said)


def _failed_signal(before: Mapping[UUID, Done], now: Mapping[UUID, Done], settings: Settings) -> Signal:
    """The share of executions that failed, of workers that are there all the time."""
    pairs = [(before[owner], done) for owner, done in now.items() if owner in before]
    tried = sum(max(0, b.tried - a.tried) for a, b in pairs)
    failed = sum(max(0, b.failed - a.failed) for a, b in pairs)
    if tried < TRIED_LEAST:
        return Signal("failures", 0.0, "failures: too few executions to say")
    share, limit = failed / tried, settings.governor_failed_share
    return Signal("failures", share / limit, f"failures: {share:.1%} of {limit:.1%}")


def _reserve_signal(before: Reserve, now: Reserve, seconds: float, settings: Settings) -> Signal:
    least, lasts_s = settings.reserve_least, settings.reserve_lasts_s
    share = reserve_share(before, now, seconds, least=least, lasts_s=lasts_s)
    return Signal("reserve", share, f"reserve: {now.level / now.capacity:.0%} left")
