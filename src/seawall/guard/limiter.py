"""Rate limits that one process keeps by itself (kernel/seam/limiter.py): a bounded table of numbers."""

from __future__ import annotations

from collections.abc import Sequence

from seawall.guard.throttle import Throttle, decide
from seawall.kernel.clock import Clock
from seawall.kernel.seam.limiter import SECOND_US, Allowance, Decided, Rate

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

    def ask(self, limits: Sequence[tuple[bytes, Rate]], decided: Decided) -> None:
        looked = [self.look(key, rate) for key, rate in limits]
        if all(one.allowed for one in looked):
            looked = [self.decide(key, rate) for key, rate in limits]
        decided(looked)

    def ahead_us(self, key: bytes) -> int:
        """How far a key's number lies ahead of now; 0 when it doesn't. Unlike the number it may be told to others,
        whose clocks say something else."""
        return max(0, self._throttle.tat_us(key) - self._now_us())

    def note(self, key: bytes, ahead_us: int, *, age_us: int) -> None:
        """Somebody else has decided: so far it lay ahead, ``age_us`` ago at the most. The later of the two counts."""
        if ahead_us > age_us:
            self._throttle.note(key, self._now_us() + ahead_us - age_us)

    def _now_us(self) -> int:
        return int(self._clock.monotonic() * SECOND_US)
