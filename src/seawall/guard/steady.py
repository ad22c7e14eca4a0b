"""The wall clock, for whoever deletes by age. A clock that leaps ahead and is set right again brings nothing back that
was deleted meanwhile.

From inside nobody can tell a leap from a clock that was wrong before. So what the wall clock gains on time itself is
believed when it has stood for a while: that only keeps things longer. Nothing of it is stored, so whoever starts
believes what there is; ``store/calendar.py`` does more, for what is kept for days.
"""

from __future__ import annotations

from typing import Final

from seawall.kernel.clock import Clock

GAIN_US: Final = 60_000_000
"""What it may gain between two looks, and is only set right."""

STANDS_S: Final = 3600.0
"""How long a leap must stand. So long also after a machine that slept, whose monotonic clock stood still."""


class Steady:
    """Asked again and again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._at, self._wall_us = clock.monotonic(), clock.wall_us()  # when it was last believed, and what it said
        self._leapt_at: float | None = None

    def now_us(self) -> int:
        """Microseconds since 1970; never later than the wall clock says."""
        now, wall_us = self._clock.monotonic(), self._clock.wall_us()
        expected_us = self._wall_us + int((now - self._at) * 1_000_000)
        if wall_us - expected_us > GAIN_US:
            if self._leapt_at is None:
                self._leapt_at = now
            if now - self._leapt_at < STANDS_S:
                return expected_us
        self._leapt_at = None
        self._at, self._wall_us = now, wall_us
        return wall_us
