"""Whether somebody looked all the time while something was broken: pure, from what a run has seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import inf

from seawall.lab.expect import LATE
from seawall.lab.record import Fault, Sample
from seawall.lab.run.sampler import BLIND

STALL_S = 5.0
"""Looks are due twice a second. After so long without one nobody can say that no abort condition was met, and what
senders felt meanwhile isn't in the figures. Busy machines show up to two."""


CLAIM = f"nobody looked away for more than {STALL_S:g} s while something was broken"


def look(
    samples: Sequence[Sample], looks: Sequence[float], faults: Sequence[Fault], *, now_s: float
) -> tuple[bool, str]:
    """(whether somebody looked all the time, for how long nobody did).

    Args:
        looks: When conditions that abort a run were looked at.
    """
    found = {
        "without a measurement": unseen_s(measured(samples), faults, now_s),
        "without a look at what aborts it": unseen_s(looks, faults, now_s),
        "of a load generator that stood still": stood_still_s(samples, faults),
    }
    return max(found.values()) <= STALL_S, ", ".join(f"{value:.1f} s {what}" for what, value in found.items())


def measured(samples: Iterable[Sample]) -> list[float]:
    """When something was measured: a sample for which the rig couldn't be asked is no look."""
    return [each.at_s for each in samples if BLIND not in each.values]


def unseen_s(looks: Sequence[float], faults: Iterable[Fault], now_s: float) -> float:
    """The longest time without a look of which a part was while something was broken."""
    spans = [(each.began_s, now_s if each.ended_s is None else each.ended_s) for each in faults]
    last = max((ended for _, ended in spans), default=0.0)
    ends = [0.0, *looks, max([last, *looks])]
    gaps = [(before, after) for before, after in pairwise(ends) if _within(before, after, spans)]
    return max((after - before for before, after in gaps), default=0.0)


def stood_still_s(samples: Iterable[Sample], faults: Iterable[Fault]) -> float:
    """The longest time in which the load generator itself did nothing, of which a part was while something was
    broken."""
    spans = [(each.began_s, inf if each.ended_s is None else each.ended_s) for each in faults]
    found = [(each.at_s, each.values[LATE]) for each in samples if LATE in each.values]
    return max((late_s for at_s, late_s in found if _within(at_s - late_s, at_s, spans)), default=0.0)


def _within(began: float, ended: float, spans: Iterable[tuple[float, float]]) -> bool:
    return any(began <= last and ended >= first for first, last in spans)
