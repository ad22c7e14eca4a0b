"""How counters that hosts begin anew at each start have grown, and what one is of another over some seconds."""

from __future__ import annotations

from collections import deque

LATELY_S = 5.0


def grown(before: float | None, now: float | None) -> float:
    """By how much a counter has grown; one that is smaller has begun anew. None: it couldn't be read, and nothing is
    said of it."""
    if before is None or now is None:
        return 0.0
    return now - before if now >= before else now


class Share:
    """What a part is of a whole, over the last seconds."""

    def __init__(self, seconds: float = LATELY_S) -> None:
        self._seconds = seconds
        self._kept: deque[tuple[float, float, float]] = deque()

    def add(self, at_s: float, part: float, whole: float) -> None:
        """Both have grown by so much."""
        self._kept.append((at_s, part, whole))
        while self._kept[0][0] < at_s - self._seconds:
            self._kept.popleft()

    @property
    def ratio(self) -> float | None:
        """None: there was no whole."""
        whole = sum(each for _, _, each in self._kept)
        return sum(each for _, each, _ in self._kept) / whole if whole > 0 else None
