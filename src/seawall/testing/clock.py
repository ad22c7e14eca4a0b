"""A clock that moves only when a test says so."""

from __future__ import annotations


class ManualClock:
    """Both kinds of time, moved together by ``advance``; ``wall_us`` may also be set alone, as a real one jumps."""

    def __init__(self, *, monotonic: float = 1000.0, wall_us: int = 1_790_000_000_000_000) -> None:
        self._monotonic = monotonic
        self.now_us = wall_us

    def monotonic(self) -> float:
        return self._monotonic

    def wall_us(self) -> int:
        return self.now_us

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` (not negative) pass."""
        assert seconds >= 0
        self._monotonic += seconds
        self.now_us += round(seconds * 1_000_000)
