"""Rate limits that one process keeps by itself (kernel/seam/limiter.py): a bounded table of numbers."""

from __future__ import annotations

from seawall.guard.throttle import Throttle, decide
from seawall.kernel.clock import Clock
from seawall.kernel.seam.limiter import SECOND_US, Allowance, Rate

KEYS_MAX = 100_000


class LocalLimiter:
    """Counts in memory; two processes that each have one let through twice as much."""

    def __init__(self, clock: Clock, *, keys_max: int = KEYS_MAX) -> None:
        self._clock = clock
        self._throttle = Throttle(keys_max)

    def look(self, key: bytes, rate: Rate) -> Allowance:
        return decide(self._throttle.tat_us(key), self._now_us(), rate)

    def decide(self, key: bytes, rate: Rate) -> Allowance:
        return self._throttle.take(key, self._now_us(), rate)

    def _now_us(self) -> int:
        return int(self._clock.monotonic() * SECOND_US)
