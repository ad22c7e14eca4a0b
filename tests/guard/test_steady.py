"""A wall clock that leaps ahead is believed when it has stood there for a while, one that goes back at once."""

from __future__ import annotations

from seawall.guard.steady import GAIN_US, STANDS_S, Steady
from seawall.testing import ManualClock

DAY_US = 86_400_000_000


def test_a_clock_that_goes_like_time_itself_is_believed() -> None:
    clock = ManualClock()
    steady = Steady(clock)
    for _ in range(10):
        clock.advance(1000.0)
        clock.now_us += GAIN_US // 2  # it is set right
        assert steady.now_us() == clock.now_us


def test_a_leap_that_is_taken_back_never_was() -> None:
    clock = ManualClock()
    steady = Steady(clock)
    began_us = clock.now_us
    clock.now_us += 2 * DAY_US
    for n in range(1, 11):
        clock.advance(60.0)
        assert steady.now_us() == began_us + n * 60_000_000
    clock.now_us -= 2 * DAY_US
    assert steady.now_us() == clock.now_us
    clock.advance(STANDS_S)
    assert steady.now_us() == clock.now_us


def test_a_leap_that_stands_is_believed() -> None:
    clock = ManualClock()
    steady = Steady(clock)
    clock.now_us += 2 * DAY_US
    assert steady.now_us() < clock.now_us
    clock.advance(STANDS_S - 1.0)
    assert steady.now_us() < clock.now_us
    clock.advance(1.0)
    assert steady.now_us() == clock.now_us
    clock.now_us += DAY_US
    assert steady.now_us() < clock.now_us, "the next one has its own while"


def test_a_clock_that_goes_back_is_believed_at_once() -> None:
    clock = ManualClock()
    steady = Steady(clock)
    clock.now_us -= DAY_US
    assert steady.now_us() == clock.now_us
