"""Incident I5: a configuration change switched on code whose cache didn't exist yet. The check of flags must see it."""

from __future__ import annotations

import pytest

from seawall import __version__
from seawall.guard import declared
from seawall.guard.flag import Setting
from seawall.guard.switchboard import Known, Switchboard
from seawall.kernel.clock import SystemClock
from seawall.lab import expect
from seawall.lab.expect import Finding
from seawall.lab.weak.flag import UnreadySwitchboard

from .desk import seen

NAME = "flags.unready_on_count"


def switched_on(kind: type[Switchboard], *, ready: bool) -> Finding:
    """Somebody switches countries on; whether flags that are on had all that they require, as the lab finds."""
    clock = SystemClock()
    board = kind(declared.REGISTRY, role="router", release=__version__, clock=clock, loop_ready=lambda name: True)
    board.provide(declared.COUNTRIES, lambda: ready)
    samples = []
    for at in range(8):
        wish = Setting(flag=declared.GEO, value=at >= 4, version=at + 1)
        board.confirmed(Known(settings={declared.GEO: wish}, schema=10**6), asked_at=clock.monotonic())
        assert board.switch(declared.GEO)() == next(one.value for one in board.lines() if one.name == declared.GEO)
        wrong = [one for one in board.lines() if one.unready and one.value != declared.REGISTRY[one.name].safe]
        samples.append((float(at), {NAME: float(len(wrong))}))
    return expect.stays(seen(samples=samples, fault_s=4.0), NAME, at_most=0.0)


def test_a_flag_stays_off_until_what_it_requires_is_there() -> None:
    assert switched_on(Switchboard, ready=False).held


def test_the_canary_switches_on_what_isnt_there() -> None:
    finding = switched_on(UnreadySwitchboard, ready=False)
    assert not finding.held and "from 1 to 1" in finding.said


@pytest.mark.parametrize("kind", [Switchboard, UnreadySwitchboard])
def test_with_all_of_it_there_both_are_the_same(kind: type[Switchboard]) -> None:
    assert switched_on(kind, ready=True).held
