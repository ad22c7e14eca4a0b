"""Burst credits, which no metric of the server behind shows: a token bucket that all connections of a line share."""

from __future__ import annotations

from seawall.lab.part.fault import Fault


class Credit:
    """What is left, as time goes on.

    Args:
        fault: Of the kind ``credit``. The bucket is full at first.
        now: On the clock of `due`.
    """

    def __init__(self, fault: Fault, now: float) -> None:
        self.fault = fault
        self._level = float(fault.bytes)  # below 0: what was promised, and isn't through yet
        self._at = now
        self._free_at = now

    def left(self, now: float) -> float:
        """Bytes, from 0 to the whole bucket."""
        return max(0.0, min(self.fault.bytes, self._level + (now - self._at) * self.fault.bytes_s))

    def due(self, count: int, now: float) -> float:
        """When so many bytes that came now are through: at the burst's rate, or when the bucket has had them back."""
        self._level = min(self.fault.bytes, self._level + (now - self._at) * self.fault.bytes_s) - count
        self._at = now
        self._free_at = max(self._free_at, now) + count / self.fault.burst_s
        # In debt, never above the base: a level that is taken for 0 here would grow again while its bytes still wait.
        return max(self._free_at, now - min(0.0, self._level) / self.fault.bytes_s)
