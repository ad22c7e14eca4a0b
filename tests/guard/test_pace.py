"""A backlog's rate is kept on average, and a pause doesn't pile up more than one burst."""

from __future__ import annotations

from seawall.guard.pace import Pace
from seawall.testing import ManualClock


def test_the_rate_is_kept_however_often_one_asks() -> None:
    clock = ManualClock()
    pace = Pace(100.0, 10, clock)
    taken = 0
    for _ in range(1000):
        allowed = pace.allowed()
        pace.took(allowed)
        taken += allowed
        clock.advance(0.01)
    assert 1000 <= taken <= 1010


def test_a_pause_allows_one_burst_only() -> None:
    clock = ManualClock()
    pace = Pace(100.0, 10, clock)
    clock.advance(3600.0)
    assert pace.allowed() == 10
    pace.took(10)
    assert pace.allowed() == 0
    assert pace.wait_s() == 0.1
    clock.advance(0.1)
    assert pace.allowed() == 10
