"""Waits that take their time from one budget keep its promise together, however they are nested."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.guard.budget import Budget
from seawall.testing import ManualClock

SECONDS = st.floats(0, 100, allow_nan=False)
WAITS = st.lists(st.tuples(SECONDS, SECONDS, st.integers(0, 3), st.floats(0, 1)), max_size=20)
"""(at most, kept, levels below, part of the grant that is used) of each wait in turn."""


@given(SECONDS, WAITS)
def test_all_waits_together_never_take_longer_than_the_promise(seconds: float, waits: list[tuple[float, ...]]) -> None:
    clock = ManualClock(monotonic=0.0)
    budget = Budget(seconds, clock)
    for most_s, keep_s, levels, used in waits:
        nested = budget
        for _ in range(int(levels)):
            nested = nested.part(most_s * 2)
        granted = nested.grant_s(most_s, keep_s=keep_s)
        assert granted <= most_s
        assert granted <= budget.left_s
        assert granted == 0.0 or granted + keep_s <= budget.left_s + 1e-9
        clock.advance(granted * used)
        assert clock.monotonic() <= seconds + 1e-9


@given(SECONDS, SECONDS, SECONDS)
def test_a_part_ends_with_its_whole_at_the_latest(seconds: float, most_s: float, passed: float) -> None:
    clock = ManualClock(monotonic=0.0)
    budget = Budget(seconds, clock)
    part = budget.part(most_s)
    clock.advance(passed)
    assert part.left_s <= budget.left_s + 1e-9
    assert not budget.spent or part.left_s < 1e-9


def test_time_that_nobody_waited_is_spent_all_the_same() -> None:
    clock = ManualClock()
    budget = Budget(1.0, clock)
    clock.advance(0.4)
    assert budget.grant_s(5.0) == pytest.approx(0.6)
    assert budget.grant_s(5.0, keep_s=0.5) == pytest.approx(0.1)
    assert budget.grant_s(5.0, keep_s=0.7) == 0.0
    clock.advance(0.7)
    assert budget.spent
    assert budget.part().spent


def test_an_endless_budget_grants_what_is_asked_for() -> None:
    budget = Budget(math.inf, ManualClock())
    assert budget.grant_s(3.0) == 3.0
    assert not budget.spent
