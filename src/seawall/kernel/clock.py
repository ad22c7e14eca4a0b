"""Time, as an object that is passed in, so that a test can own it and a run can be repeated."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """Two kinds of time that must never be mixed."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment: for ages, deadlines and leases. Never goes back."""

    def wall_us(self) -> int:
        """Microseconds since 1970, UTC: for stamps that people read and for replay windows. May jump."""


class SystemClock:
    """The machine's own clocks."""

    monotonic = staticmethod(time.monotonic)  # asked for with each step: not through a call of our own

    def wall_us(self) -> int:
        return time.time_ns() // 1000


@dataclass(frozen=True, slots=True)
class Deadline:
    """A latest monotonic moment, in seconds, at which the caller still wants the answer."""

    at: float

    @classmethod
    def after(cls, seconds: float, clock: Clock) -> Deadline:
        return cls(clock.monotonic() + seconds)

    def left_s(self, clock: Clock) -> float:
        """Seconds left, 0.0 when it has passed."""
        return max(0.0, self.at - clock.monotonic())
