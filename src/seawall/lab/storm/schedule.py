"""What a seed makes of the fault rows: a pure function. The same arguments give the same storm, on every machine.

Storms of another ``VERSION`` are others: it grows with whatever changes what a seed gives, the rows among it.

A storm has as many lanes as faults may overlap. Each lane, again and again: a pause, a row whose part nobody is
breaking or has just mended, and a length. The lane whose turn is first chooses first.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from seawall.kernel.error import Rejected
from seawall.lab.storm.row import NAMED, ROWS, Row, chosen

VERSION = 1
FIRST_S = (0.5, 4.0)
GAP_S = (1.0, 8.0)
AGAIN_S = 1.0
"""A lane that finds nothing to break looks again after so long."""
SECONDS = (15.0, 3600.0)
OVERLAP = (1, 4)
NAMED_MAX = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Blow:
    """One fault of a storm."""

    at_s: float  # since the storm began
    fault: str  # the row's name
    target: str
    for_s: float  # 0.0: it ends by itself

    @property
    def row(self) -> Row:
        return NAMED[self.fault]

    @property
    def until_s(self) -> float:
        """When it is mended, or counts as mended."""
        return round(self.at_s + (self.for_s or self.row.busy_s), 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Storm:
    """One storm, and all that it is a function of."""

    seed: int
    seconds: float
    overlap: int
    faults: Sequence[str]  # names of rows that may come
    blows: Sequence[Blow]
    version: int = VERSION

    @property
    def variant(self) -> str:
        """All that it is a function of but the seed, for people: ``version 1, 5 min, 2 at once``."""
        return f"version {self.version}, {self.seconds / 60:g} min, {self.overlap} at once{self._only}"

    @property
    def _only(self) -> str:
        """Of which faults it is drawn, where that isn't all: few by name, many by a checksum of their names."""
        names, count = ", ".join(self.faults), len(self.faults)
        if count == len(ROWS):
            return ""
        said = f"{count} faults ({hashlib.sha256(names.encode()).hexdigest()[:6]})"
        return f", of {names if count <= NAMED_MAX else said}"


def schedule(seed: int, seconds: float, *, faults: Sequence[str] = (), overlap: int = 2) -> Storm:
    """Draw a storm.

    Args:
        faults: Names of rows, or of parts; none: all.
        overlap: So many faults at once, at most.

    Returns:
        Its blows in order of time; every one is mended before the end.

    Raises:
        Rejected: A value is out of range, or there is no such fault.
    """
    if not SECONDS[0] <= seconds <= SECONDS[1]:
        raise Rejected(400, "storm", f"it lasts {seconds:g} s; {SECONDS[0]:g} to {SECONDS[1]:g} s are allowed")
    if not OVERLAP[0] <= overlap <= OVERLAP[1]:
        raise Rejected(400, "storm", f"overlap is {overlap}; {OVERLAP[0]} to {OVERLAP[1]} is allowed")
    rows = chosen(faults)
    blows = tuple(_draw(_Dice(seed), seconds, rows, overlap))
    return Storm(
        seed=seed, seconds=seconds, overlap=overlap, faults=tuple(row.name for row in rows), blows=blows
    )  # fmt: skip


class _Dice:
    """Draws made of ``random()`` alone: the only one of its functions of which Python promises that it stays."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"storm {VERSION} {seed}")

    def between(self, bounds: tuple[float, float]) -> float:
        """In tenths of a second."""
        return round(bounds[0] + self._random.random() * (bounds[1] - bounds[0]), 1)

    def pick(self, rows: Sequence[Row]) -> Row:
        return rows[int(self._random.random() * len(rows))]


def _draw(dice: _Dice, seconds: float, rows: Sequence[Row], overlap: int) -> Iterator[Blow]:
    lanes = [(dice.between(FIRST_S), number) for number in range(overlap)]
    heapq.heapify(lanes)
    free = {row.part: 0.0 for row in rows}
    while lanes:
        at_s, lane = heapq.heappop(lanes)
        free_now = [row for row in rows if free[row.part] <= at_s]
        if not free_now:
            later_s = round(at_s + AGAIN_S, 1)
        else:
            # First the part, then what befalls it: else the part with the longest table would have most of the storm.
            parts = list(dict.fromkeys(row.part for row in free_now))
            part = dice.pick([next(row for row in free_now if row.part == part) for part in parts]).part
            row = dice.pick([row for row in free_now if row.part == part])
            for_s = dice.between(row.lasts_s) if row.lasts_s[1] else 0.0
            blow = Blow(at_s=at_s, fault=row.name, target=row.target, for_s=for_s)
            later_s = round(blow.until_s + dice.between(GAP_S), 1)
            if blow.until_s <= seconds:
                free[row.part] = blow.until_s + row.rest_s
                yield blow
        if later_s < seconds:
            heapq.heappush(lanes, (later_s, lane))
