"""When an incident was detected, mitigated and over: pure, from what a run has seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from seawall.lab.record import Fault, Moment

ALERT = "alert"

States = Sequence[tuple[float, bool]]
"""(seconds since the run began, whether the steady state held), in order of time."""


def detect_s(faults: Iterable[Fault], moments: Iterable[Moment]) -> float | None:
    """From the first fault to the first alert that was raised after it; None: none was."""
    first = min((each.began_s for each in faults), default=None)
    if first is None:
        return None
    return next((round(each.at_s - first, 3) for each in moments if each.kind == ALERT and each.at_s >= first), None)


def mitigate_s(faults: Sequence[Fault], states: States) -> float | None:
    """From the first fault to the moment from which the steady state holds though the fault is there: 0 when it held
    all the time, None when it didn't hold before the last fault was over."""
    if not faults:
        return None
    first = min(each.began_s for each in faults)
    last = max((each.ended_s for each in faults if each.ended_s is not None), default=None)
    while_there = [(at_s, held) for at_s, held in states if at_s >= first and (last is None or at_s <= last)]
    if while_there and all(held for _, held in while_there):
        return 0.0
    since = _held_since(while_there)
    return round(since - first, 3) if since is not None else None


def recover_s(faults: Sequence[Fault], states: States) -> float | None:
    """From the last fault's end to the moment from which the steady state held; None: a fault is there, or it
    didn't."""
    ends = [each.ended_s for each in faults]
    if not ends or any(end is None for end in ends):
        return None
    last = max(end for end in ends if end is not None)
    since = _held_since([(at_s, held) for at_s, held in states if at_s >= last])
    return round(since - last, 3) if since is not None else None


def _held_since(states: States) -> float | None:
    """The earliest moment from which it held until the last look."""
    since: float | None = None
    for at_s, held in states:
        if not held:
            since = None
        elif since is None:
            since = at_s
    return since
