"""Numbers of what was measured: pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from seawall.lab.record import SAMPLE_S, Fault, Sample

Point = tuple[float, float]
"""(seconds since the first fault, value)"""

GAP_S = 5 * SAMPLE_S
"""Samples further apart are not joined: nobody looked, or nobody answered."""
BUCKETS = 220
"""Columns of a plot in which there are two points at most of each line; more are not seen."""
COUNTER = "_total"


@dataclass(frozen=True, slots=True)
class Spread:
    """The least, the mean and the most of some values."""

    least: float
    mean: float
    most: float


@dataclass(frozen=True, slots=True)
class Phases:
    """One line's values before, while and after something was broken; None: there were none."""

    before: Spread | None
    during: Spread | None
    after: Spread | None


def upper_bound(lost: int, n: int) -> float | None:
    """With 95 % confidence no larger a share is lost, when none of ``n`` was: 3/n.

    None: it can't be said so: something was lost, or nothing was looked at. As if each event were lost or not by
    itself; those of one outage share its fate, so it is no promise about outages of another kind.
    Source: Hanley and Lippman-Hand, "If nothing goes wrong, is everything all right?", JAMA 1983; -ln(0.05) is 2.996.
    """
    return min(1.0, 3 / n) if lost == 0 and n > 0 else None


def line(samples: Iterable[Sample], name: str, zero_s: float) -> list[Point]:
    """One name's values. Of one that only grows: its growth a second."""
    points = [(each.at_s - zero_s, each.values[name]) for each in samples if name in each.values]
    return _growth(points) if name.endswith(COUNTER) else points


def _growth(points: Sequence[Point]) -> list[Point]:
    """A second; nothing is said of a step over which it fell (its process began anew), or that was too long."""
    return [
        (at, (value - value_before) / (at - before))
        for (before, value_before), (at, value) in pairwise(points)
        if 0 < at - before <= GAP_S and value >= value_before
    ]


def pieces(points: Sequence[Point]) -> list[list[Point]]:
    """Without bridges over gaps."""
    found: list[list[Point]] = []
    for point in points:
        if found and point[0] - found[-1][-1][0] <= GAP_S:
            found[-1].append(point)
        else:
            found.append([point])
    return found


def thin(points: Sequence[Point], buckets: int = BUCKETS) -> list[Point]:
    """No more than are seen: of each column the least and the most, in their order. Peaks stay."""
    if len(points) <= 2 * buckets:
        return list(points)
    start, width = points[0][0], (points[-1][0] - points[0][0]) / buckets
    columns: dict[int, list[Point]] = {}
    for point in points:
        columns.setdefault(int((point[0] - start) / width) if width > 0 else 0, []).append(point)
    kept = [{min(column, key=_value), max(column, key=_value)} for column in columns.values()]
    return sorted(point for pair in kept for point in pair)


def _value(point: Point) -> float:
    return point[1]


def phases(points: Sequence[Point], faults: Sequence[Fault], zero_s: float) -> Phases:
    """Of one line; what came before the first fault, until the last one's end, and after. Without a fault all of it is
    before."""
    if not faults:
        return Phases(_spread(points), None, None)
    ends = [fault.ended_s for fault in faults]
    last = math.inf if None in ends else max(end for end in ends if end is not None) - zero_s
    return Phases(
        _spread([p for p in points if p[0] < 0]),
        _spread([p for p in points if 0 <= p[0] <= last]),
        _spread([p for p in points if p[0] > last]),
    )


def _spread(points: Sequence[Point]) -> Spread | None:
    values = [value for _, value in points]
    return Spread(min(values), math.fsum(values) / len(values), max(values)) if values else None


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from ``low`` to ``high``, about so many."""
    if not high > low:
        return [low]
    raw = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next((m for m in (1, 2, 5) if m * power >= raw * 0.999), 10)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def round_up(value: float) -> float:
    """The next number of one round digit, or one and a half."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return float(next((m for m in (1, 1.5, 2, 3, 4, 5, 6, 8) if m * power >= value * 0.999), 10) * power)


def decades(low: float, high: float) -> list[float]:
    """Powers of ten from below ``low`` to above ``high``."""
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    return [10.0**n for n in range(first, max(last, first + 1) + 1)]
