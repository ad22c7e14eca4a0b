"""What a run should show, as pure functions over what it left: an experiment names them in ``expect`` and ``effects``.

Each takes `Seen` first, and returns a `Finding`. ``during`` says when: ``before`` the first fault, while there is a
``fault``, ``after`` the last one, ``all`` the time, or ``fault:TEXT``: while one is there whose name or target has TEXT
in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isnan
from typing import Any

from seawall.lab.record import Moment, Record, Sample

SAMPLES_MIN = 3
"""Of fewer nothing is concluded."""

MISSING_MAX = 0.1
"""So large a part of the samples may lack what is asked for: a look came too late now and then. More of them count as
out of bounds: where nobody is answered, nobody is answered in time."""

STEADY = "lab.steady"
"""The sample that is 1 while the steady state holds, else 0."""
UNREAD = "alerts.unread_count"
"""The sample that is 1 when nobody could say which alerts are open, else 0."""
UNREAD_MAX = 0.5
LATE = "traffic.late_s"
"""The sample that says how long the load generator itself stood still lately."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Whether a claim held, and what was measured."""

    held: bool
    said: str


@dataclass(frozen=True, slots=True)
class Window:
    """Some seconds of the run."""

    began_s: float
    ended_s: float

    def has(self, at_s: float) -> bool:
        return self.began_s <= at_s < self.ended_s


@dataclass(frozen=True, slots=True)
class Seen:
    """One run, as its folder tells it."""

    record: Record
    samples: Sequence[Sample]

    def windows(self, during: str) -> list[Window]:
        """When that was; none when it never was.

        Raises:
            ValueError: Nobody knows what is meant.
        """
        word, _, text = during.partition(":")
        faults = [each for each in self.record.faults if text in each.name or text in each.target]
        spans = [Window(each.began_s, inf if each.ended_s is None else each.ended_s) for each in faults]
        first = min((span.began_s for span in spans), default=inf)
        last = max((span.ended_s for span in spans), default=inf)
        found = {
            "all": [Window(0.0, inf)], "before": [Window(0.0, first)], "fault": spans,
            "after": [Window(last, inf)] if spans else [],
        }  # fmt: skip
        if word not in found or (text and word != "fault"):
            raise ValueError(f"during is {during!r}; all, before, fault, after or fault:TEXT")
        return found[word]

    def values(self, name: str, during: str, skip_s: float = 0.0) -> list[float]:
        """Of one sample's name; ``skip_s`` after a window begins they don't count."""
        windows = [Window(each.began_s + skip_s, each.ended_s) for each in self.windows(during)]
        return [
            sample.values[name]
            for sample in self.samples
            if name in sample.values and any(window.has(sample.at_s) for window in windows)
        ]

    def missing(self, name: str, during: str, skip_s: float = 0.0) -> int:
        """How many samples of that time lack it, though it had been measured before."""
        windows = [Window(each.began_s + skip_s, each.ended_s) for each in self.windows(during)]
        first_s = next((sample.at_s for sample in self.samples if name in sample.values), inf)
        return sum(
            name not in sample.values and sample.at_s > first_s and any(window.has(sample.at_s) for window in windows)
            for sample in self.samples
        )

    def moments(self, kind: str, text: str, during: str = "all") -> list[Moment]:
        """Those of one kind with a text in them."""
        windows = self.windows(during)
        return [
            each
            for each in self.record.moments
            if each.kind == kind and text in each.text and any(window.has(each.at_s) for window in windows)
        ]


def verdict(seen: Seen, **words: float | list[float]) -> Finding:
    """The ledger's counts: a number each, or ``[least, most]``: ``lost: 0``, ``accepted: [100, 1000000]``."""
    found = seen.record.verdict
    if not found:
        return Finding(False, "nobody looked: there is no verdict")
    wrong = []
    for word, bound in words.items():
        least, most = bound if isinstance(bound, list) else (bound, bound)
        if word not in found or not least <= found[word] <= most:
            wrong.append(word)
    said = ", ".join(f"{word} {found.get(word, 'unheard of')}" for word in words)
    return Finding(not wrong, said)


def stays(
    seen: Seen,
    name: str,
    at_least: float = -inf,
    at_most: float = inf,
    during: str = "fault",
    share: float = 1.0,
    skip_s: float = 0.0,
) -> Finding:
    """A sample is within bounds for (at least a share of) the time. What is missing is out of bounds, but for a few."""
    values, missing = seen.values(name, during, skip_s), seen.missing(name, during, skip_s)
    if len(values) < SAMPLES_MIN:
        return Finding(False, f"{name} was measured {len(values)} times")
    looks = len(values) + max(0.0, missing - MISSING_MAX * (len(values) + missing))
    inside = sum(at_least <= value <= at_most for value in values) / looks
    said = f"{name} from {min(values):g} to {max(values):g}, {inside:.0%} of {len(values)} samples within bounds"
    return Finding(inside >= share, said + (f"; {missing} more have none" if missing else ""))


def reaches(
    seen: Seen,
    name: str,
    at_least: float = -inf,
    at_most: float = inf,
    during: str = "fault",
    samples: int = SAMPLES_MIN,
) -> Finding:
    """A sample is within bounds at least so many times."""
    values = seen.values(name, during)
    inside = sum(at_least <= value <= at_most for value in values)
    if not values:
        return Finding(False, f"{name} was never measured")
    said = f"{name} from {min(values):g} to {max(values):g}, {inside} of {len(values)} samples within bounds"
    return Finding(inside >= samples, said)


def becomes(
    seen: Seen, name: str, least: float = 0.0, most: float = inf, during: str = "fault", skip_s: float = 0.0
) -> Finding:
    """A sample's mean, as a part of what it was before: ``most: 0.6`` when it falls by at least 40 %."""
    before, now = seen.values(name, "before"), seen.values(name, during, skip_s)
    if len(before) < SAMPLES_MIN or len(now) < SAMPLES_MIN:
        return Finding(False, f"{name} was measured {len(before)} times before, {len(now)} times then")
    was, becomes = sum(before) / len(before), sum(now) / len(now)
    if was == 0:
        return Finding(False, f"{name} was 0 before")
    return Finding(least <= becomes / was <= most, f"{name} from {was:.3g} to {becomes:.3g}: {becomes / was:.0%} of it")


def told(
    seen: Seen, text: str, kind: str = "alert", during: str = "all", within_s: float = inf, times: int = 1
) -> Finding:
    """Something happened: an alert with a text in it, at most ``within_s`` after the first fault."""
    first = min((each.began_s for each in seen.record.faults), default=0.0)
    found = [each for each in seen.moments(kind, text, during) if during != "all" or each.at_s >= first]
    if len(found) < times:
        return Finding(False, f"{len(found)} times {kind} {text!r}")
    after_s = found[times - 1].at_s - first
    return Finding(after_s <= within_s, f"{kind} {found[times - 1].text!r} after {after_s:.1f} s")


def untold(seen: Seen, text: str = "", kind: str = "alert", during: str = "all") -> Finding:
    """Nothing of that happened, in a time that there was, and in which somebody looked."""
    if not seen.windows(during):
        return Finding(False, f"there was no {during!r}")
    unread = seen.values(UNREAD, during) if kind == "alert" else []
    if unread and sum(unread) > UNREAD_MAX * len(unread):
        return Finding(False, f"in {sum(unread):.0f} of {len(unread)} looks nobody could say which alerts are open")
    found = seen.moments(kind, text, during)
    return Finding(not found, f"{kind} {found[0].text!r} at {found[0].at_s:.1f} s" if found else f"no {kind} {text!r}")


def took(seen: Seen, what: str, at_most: float) -> Finding:
    """Seconds to ``detect``, ``mitigate`` or ``recover``."""
    times = {"detect": seen.record.detect_s, "mitigate": seen.record.mitigate_s, "recover": seen.record.recover_s}
    if what not in times:
        return Finding(False, f"{what!r}: nobody knows; detect, mitigate or recover")
    found = times[what]
    return Finding(found is not None and found <= at_most, f"{found:.1f} s" if found is not None else "never")


def steady(seen: Seen, during: str = "fault", at_least: float = 1.0, at_most: float = 1.0) -> Finding:
    """The steady state holds for that part of the time."""
    values = seen.values(STEADY, during)
    if len(values) < SAMPLES_MIN:
        return Finding(False, f"looked at {len(values)} times")
    share = sum(values) / len(values)
    return Finding(at_least <= share <= at_most, f"it held {share:.0%} of {len(values)} times")


# ── Claims that say nothing ────────────────────────────────────────────────────────────────────────────────────────
def vain(func: str, arguments: Mapping[str, Any]) -> str:
    """Why a claim by a function of this module is the same whatever a run has shown; "" when it isn't."""
    if nans := sorted(name for name, value in arguments.items() if _nan(value)):
        return f"{', '.join(nans)}: not a number"
    check = _VAIN.get(func)
    return check(arguments) if check is not None else ""


def _nan(value: object) -> bool:
    return any(isinstance(each, float) and isnan(each) for each in (value if isinstance(value, list) else [value]))


def _within(*names: str) -> Callable[[Mapping[str, Any]], str]:
    """One of these bounds at least; and of what is counted, some."""

    def check(arguments: Mapping[str, Any]) -> str:
        if not any(name in arguments for name in names):
            return f"it holds always: {' or '.join(names)} is needed"
        return _some(arguments)

    return check


def _some(arguments: Mapping[str, Any]) -> str:
    """``share``, ``samples``, ``times`` above 0."""
    none = [name for name in ("share", "samples", "times") if name in arguments and not arguments[name] > 0]
    return f"it holds always: {none[0]} must be above 0" if none else ""


def _steady(arguments: Mapping[str, Any]) -> str:
    always = arguments.get("at_least", 1.0) <= 0 and arguments.get("at_most", 1.0) >= 1
    return "it holds always: at_least above 0 or at_most below 1 is needed" if always else ""


_VAIN: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "verdict": lambda arguments: "" if arguments else "it holds always: a word of the ledger is needed",
    "stays": _within("at_least", "at_most"), "reaches": _within("at_least", "at_most"),
    "becomes": _within("least", "most"), "told": _some, "steady": _steady,
}  # fmt: skip
