"""Which day it is for whoever deletes by age. A clock may be wrong; what it had deleted doesn't come back.

The wall clock alone decides nothing. The store remembers the latest moment that housekeeping has reached (one row,
``retention``), and it follows the wall clock as long as that runs like time itself: by what a monotonic clock says has
passed since the last look, and a day more (a restart, a suspended machine, a corrected clock). When the wall clock is
further ahead than that, it leapt, or everything was off for long; from inside, nobody can tell these apart. So nothing
that is there goes at once:

- As far as nothing is deleted by it for another day, the moment follows at once. That heals a store that was made
  before the network told the machine the time.
- Beyond that it moves at `CATCH_UP` times the pace of real time. While a wrong clock stands, each day costs a day of
  the oldest history, with an alarm from the first minute; after forty days off, what is overdue is gone forty days
  later. The disk gets no fuller by that: what came before a pause goes twice as fast as new things come.

A clock that goes back deletes nothing, and takes nothing back: the moment stays, and whichever is earlier counts.
Not covered: a store whose first clock was far in the future trusts every clock up to there.
"""

from __future__ import annotations

from seawall.kernel.clock import Clock
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.store.pool import Session
from seawall.store.statement import statements

log = logger("store")

CATCH_UP = 2
DAY_US = 86_400_000_000
TRUSTED_US = DAY_US
"""How far the wall clock may be ahead of what has passed, and be believed: so much history may a leap cost at once."""

SAY_EVERY_S = 3600.0
_SQL = statements("partition")


class Calendar:
    """The moment up to which housekeeping may count ages. Used under housekeeping's lock only."""

    def __init__(self, clock: Clock, metrics: Metrics) -> None:
        self._clock = clock
        self._last: tuple[int, float] | None = None  # what we left in the store, and when, monotonic
        self._said_at: float | None = None
        self._gap = metrics.gauge(
            "seawall_housekeeping_clock_gap_seconds",
            "How far the wall clock is ahead of what housekeeping believes; below 0: how far it has gone back.",
        )

    async def now_us(self, session: Session, *, harmless_until_us: int) -> int:
        """The moment to count from: microseconds since 1970, never later than the wall clock says.

        Args:
            harmless_until_us: Up to here the moment may leap: no day that is there is deleted, nor within the next.

        Raises:
            Unavailable, Uncertain: Ask again; nothing is lost.
        """
        wall_us, now = self._clock.wall_us(), self._clock.monotonic()
        reached_us: int = await session.value(_SQL["reached"])
        passed_us = 0
        if self._last is not None and self._last[0] == reached_us:
            # Else another housekeeper has moved it, and counted this time already.
            passed_us = int((now - self._last[1]) * 1_000_000)
        moment_us = _follow(reached_us, wall_us, passed_us, harmless_until_us)
        if moment_us != reached_us:
            await session.execute(_SQL["reach"], moment_us)
        self._last = (moment_us, now)
        self._tell(wall_us - moment_us, now)
        return min(wall_us, moment_us)

    def _tell(self, gap_us: int, now: float) -> None:
        self._gap.value = gap_us / 1e6
        if -TRUSTED_US <= gap_us <= 0:
            if self._said_at is not None:
                log.info("the wall clock and what housekeeping believes agree again")
            self._said_at = None
            return
        if self._said_at is not None and now - self._said_at < SAY_EVERY_S:
            return
        self._said_at = now
        days = fields(days=round(abs(gap_us) / DAY_US, 1))
        if gap_us > 0:
            log.error(
                "the wall clock is far ahead of the last housekeeping: it leapt, or all was off for long. Old events "
                "are let go slowly; if the clock is wrong, set it right",
                extra=days,
            )
        else:
            log.error(
                "the wall clock is behind the last housekeeping: it has gone back, or was ahead before. Ages are "
                "counted from it; if it is wrong, set it right",
                extra=days,
            )


def _follow(reached_us: int, wall_us: int, passed_us: int, harmless_until_us: int) -> int:
    """How far the moment moves; it never goes back."""
    if wall_us <= reached_us + passed_us + TRUSTED_US:
        return max(reached_us, wall_us)
    return min(wall_us, max(reached_us + CATCH_UP * passed_us, harmless_until_us))
