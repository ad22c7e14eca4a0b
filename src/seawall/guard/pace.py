"""A rate for old work, so that it leaves room for fresh work."""

from __future__ import annotations

from seawall.kernel.clock import Clock


class Pace:
    """Allows ``rate`` records a second, and after a pause at most ``burst`` at once."""

    def __init__(self, rate: float, burst: int, clock: Clock) -> None:
        self._rate = rate
        self.burst = burst
        self._clock = clock
        self._allowed = float(burst)
        self._at = clock.monotonic()

    def steer(self, rate: float, burst: int) -> None:
        """Go on at another rate; what is allowed already stays allowed."""
        self._rate, self.burst = rate, burst

    def allowed(self) -> int:
        """How many records may be taken now."""
        now = self._clock.monotonic()
        self._allowed = min(self.burst, self._allowed + (now - self._at) * self._rate)
        self._at = now
        return int(self._allowed)

    def took(self, count: int) -> None:
        self._allowed -= count

    def wait_s(self) -> float:
        """Seconds until a burst is allowed: few large transactions cost less than many small ones."""
        return max(0.0, (self.burst - self._allowed) / self._rate)
