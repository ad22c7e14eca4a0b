"""Places of a partition that were found not to be what was read there: whoever puts a position back asks twice."""

from __future__ import annotations

from seawall.kernel.clock import Clock
from seawall.kernel.seam.journal import Position

KEPT_S = 60.0
"""How long a place is kept after it was last asked for: until the store has another one. Not for ever, since one
without a witness can be right again."""

PLACES_MAX = 64


class Refuted:
    """Remembers a few of them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: dict[tuple[int, bytes], float] = {}  # by offset and salt; monotonic

    def add(self, at: Position) -> None:
        """It isn't what was read there."""
        while len(self._until) >= PLACES_MAX:
            self._until.pop(next(iter(self._until)))
        self._until[at.offset_bytes, at.salt] = self._clock.monotonic() + KEPT_S

    def __contains__(self, at: Position) -> bool:
        if not self._until:
            return False
        now, key = self._clock.monotonic(), (at.offset_bytes, at.salt)
        self._until = {each: until for each, until in self._until.items() if until > now}
        if key not in self._until:
            return False
        self._until[key] = now + KEPT_S
        return True

    def clear(self) -> None:
        self._until.clear()
