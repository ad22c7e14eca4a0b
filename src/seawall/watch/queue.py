"""What is wrong with a queue: it starts late, it grows, its runs take longer than they did. Without I/O or a clock.

A fixed depth says nothing: it is noise under load and silence at night (incident I2). So what counts is how long runs
wait, and whether a queue grows steadily: its depth of the last minute is above all that it was five minutes ago. A
burst that drains is no alert, whatever its size.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import median

from seawall.watch.verdict import Finding, Verdict

EASED = 0.8
"""Of a limit: below it a value is fine again."""

P99_LEAST = 50
"""So many runs must have been drawn for their worst hundredth to say something; the middle of few says it before."""

DEPTH_LEAST = 100
NOW_S, THEN_S = 60.0, 300.0
"""The last minute is compared with the one that ended five minutes ago."""

SLOWER = 3.0
SLOWER_LEAST_S = 2.0
ENDS_LEAST = 20
MINUTE_S = 60.0
BASE_LEAST, BASE_MOST, RECENT = 10, 60, 5
"""Minutes that a comparison needs, those that are kept, and the newest that aren't part of what is compared with."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How a time is spread over the runs that were drawn lately."""

    count: int
    p50_s: float
    p99_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLook:
    """One queue, as the store knows it now."""

    name: str
    paused: bool
    target_s: float  # from created to started; 0: none
    waiting: int  # ready runs that nobody has in hand
    capped: bool  # there are more: counting ended there
    oldest_s: float | None  # how long the next runs to begin wait already; None: there is none
    starts: Spread | None  # from created to started
    ends: Spread | None  # from created to the end


def late(look: QueueLook) -> Finding:
    """Runs wait longer than the queue's target: those that began, or those that should begin."""
    if look.paused or not look.target_s:
        return Finding(verdict=Verdict.FINE)
    worst_s = look.oldest_s or 0.0
    if look.starts is not None:
        worst_s = max(worst_s, look.starts.p50_s, look.starts.p99_s if look.starts.count >= P99_LEAST else 0.0)
    # Of runs that were woken nobody knows since when they are ready: then it is enough that nothing moves.
    stands = look.waiting > 0 and look.oldest_s is None and look.starts is None and look.ends is None
    if worst_s <= look.target_s and not stands:
        return Finding(verdict=Verdict.FINE if worst_s <= EASED * look.target_s else Verdict.BETWEEN)
    began = (
        f"of those that began lately p50 {look.starts.p50_s:.1f} s, p99 {look.starts.p99_s:.1f} s"
        if look.starts is not None
        else "none began lately"
    )
    count = f"{look.waiting}{' or more' if look.capped else ''}" if look.waiting else "none"
    next_one = f", the next one for {look.oldest_s:.1f} s" if look.oldest_s is not None else ""
    return Finding(
        verdict=Verdict.BAD,
        summary=f"runs of queue {look.name} start late: {began}; {count} waiting now{next_one}; "
        f"target {look.target_s:g} s",
        unaffected="events are accepted and kept; other queues",
        cure="seawall queues top; seawall queues list; give it slots, or find what holds them",
    )


@dataclass(slots=True)
class QueueMemory:
    """What one queue was like before."""

    depths: deque[tuple[float, int, bool]] = field(default_factory=deque)  # when, waiting, capped
    base: deque[float] = field(default_factory=lambda: deque(maxlen=BASE_MOST + RECENT))  # p50 of each minute, seconds
    _minute_at: float = float("-inf")

    def growing(self, look: QueueLook, now: float) -> Finding:
        """It grows steadily."""
        self.depths.append((now, look.waiting, look.capped))
        while self.depths[0][0] < now - THEN_S - NOW_S:
            self.depths.popleft()
        if look.paused or look.waiting <= EASED * DEPTH_LEAST:
            return Finding(verdict=Verdict.FINE)
        if look.capped:  # too deep to see whether it grows: then what was raised stays
            return Finding(verdict=Verdict.BETWEEN)
        recent = [(at, waiting) for at, waiting, _ in self.depths if at >= now - THEN_S]
        then = [waiting for at, waiting, _ in self.depths if at <= now - THEN_S]
        last = [waiting for at, waiting in recent if at >= now - NOW_S]
        rate = slope(recent)
        if rate <= 0:
            return Finding(verdict=Verdict.FINE)
        falls = slope([(at, waiting) for at, waiting in recent if at >= now - NOW_S]) <= 0  # a burst that drains
        if not then or falls or look.waiting <= DEPTH_LEAST or min(last) <= max(then):
            return Finding(verdict=Verdict.BETWEEN)
        return Finding(
            verdict=Verdict.BAD,
            summary=f"queue {look.name} grows steadily: {look.waiting} runs wait, {rate * 60:.0f} more each minute",
            unaffected="events are accepted and kept; other queues",
            cure="seawall queues top; more comes in than its workers get done",
        )

    def slower(self, look: QueueLook, now: float, *, raised: bool) -> Finding:
        """Its runs take much longer from created to their end than in the hour before.

        Args:
            raised: Whether that is known already: what is slow now is no measure then.
        """
        ends = look.ends
        if ends is None or ends.count < ENDS_LEAST:
            return Finding(verdict=Verdict.UNKNOWN)
        if now - self._minute_at >= MINUTE_S and not raised:
            self._minute_at = now
            self.base.append(ends.p50_s)
        older = list(self.base)[:-RECENT]
        if len(older) < BASE_LEAST:
            return Finding(verdict=Verdict.FINE)
        base_s = median(older)
        limit_s = max(SLOWER * base_s, base_s + SLOWER_LEAST_S)
        if ends.p50_s <= limit_s:
            return Finding(verdict=Verdict.FINE if ends.p50_s <= EASED * limit_s else Verdict.BETWEEN)
        return Finding(
            verdict=Verdict.BAD,
            summary=f"runs of queue {look.name} take longer: p50 {ends.p50_s:.1f} s from created to the end, "
            f"{base_s:.1f} s in the hour before",
            unaffected="events are accepted and kept; other queues",
            cure="seawall queues top --by workflow; look for what their steps call",
        )


def slope(points: Sequence[tuple[float, int]]) -> float:
    """Theil-Sen: the median of all slopes between two points, so that single leaps don't count. 0.0 without two."""
    slopes = [(b - a) / (t - s) for (s, a), (t, b) in combinations(points, 2) if t > s]
    return median(slopes) if slopes else 0.0
