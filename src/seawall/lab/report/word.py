"""Figures in words, as the page, the table and the terminal say them alike."""

from __future__ import annotations

import math

from seawall.lab.record import Record, Status
from seawall.lab.report.figure import upper_bound

SAYS = {
    Status.AS_EXPECTED: "as expected",
    Status.NOT_AS_EXPECTED: "not as expected",
    Status.INVALID: "invalid: nothing was shown",
    Status.ABORTED: "aborted",
    Status.RUNNING: "not ended: it runs, or its runner was killed",
}
MEANS = {
    "sent": "events that were sent",
    "accepted": "answered 2xx at least once",
    "finished": "accepted, there, unchanged, and at their end",
    "recovered": "not answered, or unsurely, and there all the same",
    "held": "requests that waited for their workflow's answer",
    "own": "answered with what is theirs",
    "late": "answered with a ticket, under which theirs came later",
    "ticket": "answered with a ticket under which nothing came",
    "silent": "without any answer, or with an error",
    "wrong": "answered with somebody else's",
    "synthetic": "accepted events of the lab's own, sent to what was out of rotation",
    "synthetic_runs": "runs of workflows that those have had",
    "effects": "of steps, outside of the platform",
    "repeated": "effects done again under the same idempotency key: allowed",
    "duplicated": "more than one event for one id, or more than one run of a workflow for one event",
    "unknown": "not at their end when the time was over: nobody looked is not nothing was lost",
    "corrupted": "there, with other bytes than were sent",
    "invented": "there, and never sent, or refused",
    "lost": "accepted, and not there, or a run missing or dead",
}
"""The words of a verdict (lab/checker/verdict.py), in the order in which they are read."""
WRONG = ("lost", "invented", "corrupted", "duplicated", "unknown", "wrong")
"""Words of a verdict of which one is too many."""


def came_out(record: Record) -> str:
    """Shortly. A run without the protections is as expected when the incident happens; said, since a tick looks like no
    harm."""
    if record.protections == "off" and record.as_expected:
        return "it happens"
    return SAYS[record.status].partition(":")[0]


def number(value: float) -> str:
    """As short as people read it."""
    if not math.isfinite(value):
        return "-"
    for bound, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= bound:
            return f"{_three(value / {'G': 1e9, 'M': 1e6, 'k': 1e3}[letter])}{letter}"
    return _three(value)


def _three(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) < 0.001:
        return f"{value:.0e}".replace("e-0", "e-")
    return f"{value:.3g}"


def count(value: int) -> str:
    """With spaces between thousands, which no language reads as a decimal point."""
    return f"{value:,}".replace(",", "\u202f")


def seconds(value: float) -> str:
    """One decimal below a minute; minutes and seconds above."""
    if abs(value) < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(abs(value)), 60)
    return f"{'-' if value < 0 else ''}{minutes} min {rest} s"


def detect(record: Record) -> str:
    """Said also where there is no figure: that nobody noticed is the finding."""
    return _time(record, record.detect_s, "no alert")


def mitigate(record: Record) -> str:
    """Against the fault that is still there."""
    return "held throughout" if record.mitigate_s == 0 else _time(record, record.mitigate_s, "not while it lasted")


def recover(record: Record) -> str:
    """From the last fault's end."""
    return _time(record, record.recover_s, "not seen")


def _time(record: Record, value: float | None, never: str) -> str:
    if value is not None:
        return seconds(value)
    # Of a run that was cut off nobody knows what would have come.
    return never if record.faults and record.status not in (Status.RUNNING, Status.ABORTED) else "-"


def accepted(record: Record) -> int:
    return record.verdict.get("accepted", 0)


def lost(record: Record) -> str:
    """ "lost 0" only when everything was looked at."""
    if not record.verdict:
        return "-"
    found, n = record.verdict.get("lost", 0), accepted(record)
    if found:
        return f"{count(found)} ({share(found / n)})" if n else count(found)
    return "0" if not record.verdict.get("unknown", 0) else "none seen"


def bound(record: Record) -> float | None:
    """The 95 % upper bound of the share that is lost, where the run may speak for it."""
    if record.status not in (Status.AS_EXPECTED, Status.NOT_AS_EXPECTED) or record.verdict.get("unknown", 0):
        return None
    return upper_bound(record.verdict.get("lost", 0), accepted(record)) if record.verdict else None


def held(record: Record) -> str:
    """How many of the requests that waited got their answer; those that had to come again with a ticket aren't among
    them, and are said."""
    n, late = record.verdict.get("held", 0), record.verdict.get("late", 0)
    said = f"{count(record.verdict.get('own', 0))} of {count(n)}" + (f", {count(late)} late" if late else "")
    return said if n else "-"


def share(value: float) -> str:
    """In per cent, two digits."""
    return f"{value * 100:.2g} %"


def bound_said(value: float | None) -> str:
    return "-" if value is None else f"≤ {share(value)}"


def else_wrong(record: Record) -> str:
    """What of a verdict is wrong beside "lost"."""
    found = [f"{word} {count(record.verdict[word])}" for word in WRONG[1:] if record.verdict.get(word, 0)]
    return ", ".join(found) or ("none" if record.verdict else "-")
