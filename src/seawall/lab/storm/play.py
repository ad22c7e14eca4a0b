"""A storm's actions, for Chaos Toolkit: each waits for its time, then does what an experiment's would do.

The storm's own clock starts with its first step, and stands still while a step takes longer than was planned (a broker
that starts takes seconds): what comes after is postponed, so that no fault is shorter than was drawn, and no more of
them overlap.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from seawall.kernel.error import Unavailable
from seawall.lab import act
from seawall.lab.rig import Rig, current
from seawall.lab.storm.row import NAMED

SETTLE_S = 60.0
REPLACE_S = 60.0
"""So long a role's next process may take: longer than in an experiment, since much else is broken meanwhile."""
MAX_S = 180.0
"""So long a fault of a storm stays at most, should nobody mend it: what was planned, and what may postpone it."""


class _Clock:
    """Of the storm in one rig."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self._zero = time.monotonic()

    def wait(self, at_s: float) -> None:
        """Until then; or, when it is past, make it that time."""
        left_s = self._zero + at_s - time.monotonic()
        if left_s > 0:
            time.sleep(left_s)
        else:
            self._zero -= left_s


_clock: _Clock | None = None


def _wait(at_s: float) -> Rig:
    global _clock
    rig = current()
    if _clock is None or _clock.rig is not rig:
        _clock = _Clock(rig)
    _clock.wait(at_s)
    return rig


def strike(at_s: float, fault: str) -> str:
    """Do what a row says."""
    rig = _wait(at_s)
    row = NAMED[fault]
    if row.action == "end":
        # It may just be starting again by itself: one that ends in the middle of another outage is no surprise here.
        _until(lambda: rig.tree.pid(row.target) is not None, f"there is a {row.target}")
        return act.end(row.target, **row.arguments, wait_s=REPLACE_S)
    said: str = getattr(act, row.action)(row.target, max_s=MAX_S, **row.arguments)
    return said


def heal(at_s: float, fault: str) -> str:
    """Undo it; and where nodes were hit, wait until they are as healthy as they can be: what comes next may need it."""
    rig = _wait(at_s)
    row = NAMED[fault]
    said = act.back(row.part)
    if row.node:
        rig.parts[row.part].settle(SETTLE_S)
    return said


def _until(true: Callable[[], bool], what: str) -> None:
    latest = time.monotonic() + REPLACE_S
    while not true():
        if time.monotonic() > latest:
            raise Unavailable("the storm", f"not within {REPLACE_S:g} s: {what}")
        time.sleep(0.1)


def calm(at_s: float) -> str:
    """Until the end, nothing."""
    _wait(at_s)
    return "the storm is over"
