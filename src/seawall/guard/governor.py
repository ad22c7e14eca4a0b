"""How fast work that was put off may be done, so that doing it isn't the next outage.

One governor for all drains: at the end of each window it looks at a few signals, each as a share of what is allowed (1
is the limit), and the worst of them decides for every drain alike. Beyond the limit all of them are cut to a half,
once, and then have two windows to show what that did. Below `CALM` of the limit they may rise, in steps that get
smaller as the worst signal grows, so that a limit which announces itself isn't crossed. In between, and while any
signal is missing, nothing changes: no news is not good news. What announces nothing (a queue that runs over) is crossed
once: a drain remembers the rate at which all was well before, and stays below it for ten minutes.

Pure: no clock, no I/O. The research behind it: additive increase and multiplicative decrease (Chiu and Jain 1989), with
a memory of the last good rate in the place of the saw-tooth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

CALM = 0.8
"""Share of the limit below which drains may rise."""

CUT = 0.5
PATIENCE = 2
"""Windows after a cut in which there is no other one, and nothing rises."""

GROWTH = 0.2
"""Largest share of its rate by which a drain rises in one window."""

BELOW = 0.9
"""So much of the last rate that went well is taken after a cut."""

MEMORY = 60
"""Windows for which a drain stays below the rate that it was cut at."""

DOUBT = 3
"""Windows after a rise in which what goes wrong is put down to it."""


class Act(Enum):
    """What becomes of all drains at the end of a window."""

    RAISE = "raise"
    HOLD = "hold"
    CUT = "cut"


@dataclass(frozen=True, slots=True)
class Signal:
    """How one thing stood in a window."""

    name: str
    share: float | None  # of what is allowed: 1 is the limit; None: nobody knows
    said: str  # for people: "store: 120 ms of 100 ms"


@dataclass(frozen=True, slots=True)
class Decision:
    act: Act
    room: float = 0.0  # with RAISE: how much of a whole step, from just above 0 to 1
    worst: Signal | None = None  # None: there are no signals at all


class Governor:
    """Decides for each window. Give it a new one when somebody else decided before: it is patient at first."""

    def __init__(self) -> None:
        self._patience = PATIENCE

    def decide(self, signals: Sequence[Signal]) -> Decision:
        """At the end of each window, with its signals."""
        patience, self._patience = self._patience, max(0, self._patience - 1)
        known = [(signal.share, signal) for signal in signals if signal.share is not None]
        missing = next((signal for signal in signals if signal.share is None), None)
        share, worst = max(known, key=lambda pair: pair[0], default=(0.0, missing))
        if share > 1.0:
            if patience:
                return Decision(Act.HOLD, worst=worst)
            self._patience = PATIENCE
            return Decision(Act.CUT, worst=worst)
        if missing is not None or patience or share >= CALM:
            return Decision(Act.HOLD, worst=missing or worst)
        return Decision(Act.RAISE, room=1.0 - share / CALM, worst=worst)


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """One drain's rate, a second, and where it may go."""

    rate: float
    floor: float  # it is never cut below this
    goal: float  # it never rises above this
    slope: float | None = None  # most that it may rise by in a second; None: as the governor allows
    good: float | None = None  # the rate before it last rose, …
    good_left: int = 0  # … as long as it isn't sure that the rise went well: windows
    cap: float | None = None  # it was cut: not above this for now
    cap_left: int = 0  # windows

    @property
    def at_floor(self) -> bool:
        return self.rate <= self.floor

    @property
    def there(self) -> bool:
        return self.rate >= self.goal


def steered(course: Course, decision: Decision, *, window_s: float) -> Course:
    """The course in the window that begins now."""
    course = _aged(course)
    if decision.act is Act.CUT:
        too_much = course.rate if course.good is None else course.good
        return replace(
            course, rate=max(course.floor, min(course.goal, course.rate * CUT)), good=None,
            cap=max(course.floor, BELOW * too_much), cap_left=MEMORY,
        )  # fmt: skip
    if decision.act is Act.HOLD:
        return course
    most = course.goal if course.cap is None else min(course.goal, course.cap)
    step = GROWTH * course.rate * decision.room**2  # latency grows faster than load: so must care
    if course.slope is not None:
        step = min(step, course.slope * window_s)
    rate = min(most, course.rate + step)
    if rate <= course.rate:
        return replace(course, rate=min(course.rate, course.goal))
    good = course.rate if course.good is None else course.good
    return replace(course, rate=rate, good=good, good_left=DOUBT)


def _aged(course: Course) -> Course:
    cap_left, good_left = max(0, course.cap_left - 1), max(0, course.good_left - 1)
    return replace(
        course, cap_left=cap_left, cap=course.cap if cap_left else None,
        good_left=good_left, good=course.good if good_left else None,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reserve:
    """A token bucket that stands for credits which a burst uses up, and which no metric of the server shows.

    Its level falls by what is used and rises by what the part gives all the time (gp2 volumes: I/O; burstable machines:
    CPU). A seam: other sources give the same three numbers.
    """

    level: float
    capacity: float
    base: float  # units a second that come back

    def used(self, units: float, seconds: float) -> Reserve:
        """After some time in which so much was used."""
        level = self.level + self.base * seconds - units
        return replace(self, level=min(self.capacity, max(0.0, level)))


def reserve_share(before: Reserve, now: Reserve, seconds: float, *, least: float, lasts_s: float) -> float:
    """A reserve as a share of what is allowed: ``least`` of it left, and when it falls, enough for ``lasts_s``."""
    if now.capacity <= 0:
        return 0.0
    left = now.level / now.capacity
    share = least / left if left > least / 100 else 100.0
    falls = (before.level - now.level) / seconds if seconds > 0 else 0.0
    if falls > 0:
        usable = max(0.0, now.level - least * now.capacity)
        share = max(share, min(100.0, lasts_s * falls / usable) if usable > 0 else 100.0)
    return share
