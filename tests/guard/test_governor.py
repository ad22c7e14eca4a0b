"""The governor against plants that answer as stores do: it rises to what they bear, and oversteps at most once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.guard.governor import Act, Course, Decision, Governor, Reserve, Signal, reserve_share, steered

WINDOW_S = 10.0


def signal(share: float | None) -> Signal:
    return Signal("store", share, "")


def queueing(capacity: float, factor: float) -> Callable[[float], float]:
    """Latency of a server with one queue, as a share of ``factor`` times that of an idle one."""

    def share(rate: float) -> float:
        load = rate / capacity
        return 100.0 if load >= 1 else 1 / (1 - load) / factor

    return share


def cliff(capacity: float) -> Callable[[float], float]:
    """It announces nothing: all is well up to the limit."""
    return lambda rate: 0.1 if rate <= capacity else 100.0


def driven(course: Course, plant: Callable[[int], Callable[[float], float]], windows: int) -> list[tuple[float, float]]:
    """(rate, share of the limit) of each window."""
    governor, seen = Governor(), []
    for n in range(windows):
        share = plant(n)(course.rate)
        seen.append((course.rate, share))
        course = steered(course, governor.decide([signal(share)]), window_s=WINDOW_S)
    return seen


def oversteps(seen: list[tuple[float, float]]) -> int:
    """Times that it went from within the limit to beyond it."""
    beyond = [share > 1 for _, share in seen]
    return sum(now and not before for before, now in zip([False, *beyond], beyond, strict=False))


plants = st.one_of(st.builds(queueing, st.floats(20, 5000), st.floats(2, 30)), st.builds(cliff, st.floats(20, 5000)))


@given(plants, st.floats(1, 20), st.floats(0.01, 5))
def test_a_ramp_into_a_limit_oversteps_it_once_at_most(
    plant: Callable[[float], float], first: float, slope: float
) -> None:
    course = Course(rate=first, floor=1.0, goal=10_000.0, slope=slope)
    seen = driven(course, lambda n: plant, 60)
    assert oversteps(seen) <= 1


@given(st.floats(100, 5000), st.floats(2, 30), st.floats(0.3, 0.9))
def test_a_capacity_that_falls_is_overstepped_by_its_fall_alone(capacity: float, factor: float, left: float) -> None:
    whole, part = queueing(capacity, factor), queueing(capacity * left, factor)
    seen = driven(Course(rate=1.0, floor=1.0, goal=10_000.0), lambda n: whole if n < 80 else part, 140)
    assert oversteps(seen[:80]) <= 1
    assert oversteps(seen[80:]) <= 1
    assert seen[-1][1] <= 1, "it has come to rest within the limit"


@given(st.floats(50, 5000), st.floats(3, 30))
def test_it_uses_most_of_what_there_is(capacity: float, factor: float) -> None:
    seen = driven(Course(rate=1.0, floor=1.0, goal=10_000.0), lambda n: queueing(capacity, factor), 200)
    most = capacity * (1 - 1 / factor)  # where the share is 1
    assert seen[-1][0] >= 0.5 * most


@given(st.lists(st.one_of(st.none(), st.floats(0, 5)), max_size=80), st.floats(1, 100), st.floats(1, 10))
def test_a_rate_stays_within_its_bounds_and_a_cut_is_followed_by_two_windows_of_patience(
    shares: list[float | None], goal: float, floor: float
) -> None:
    governor, course, acts = Governor(), Course(rate=min(floor, goal), floor=min(floor, goal), goal=goal), []
    for share in shares:
        decision = governor.decide([signal(share)])
        acts.append(decision.act)
        before, course = course, steered(course, decision, window_s=WINDOW_S)
        assert course.floor <= course.rate <= course.goal
        assert course.rate - before.rate <= 0.2 * before.rate + 1e-9
        if share is None or (decision.act is not Act.CUT and not share < 0.8):
            assert course.rate == before.rate
    for n, act in enumerate(acts):
        if act is Act.CUT:
            assert acts[n + 1 : n + 3] == [Act.HOLD] * len(acts[n + 1 : n + 3])


def test_the_worst_signal_decides_and_one_that_is_missing_holds() -> None:
    governor = Governor()
    for _ in range(2):
        assert governor.decide([signal(0.1)]).act is Act.HOLD, "a new one is patient"
    low, high, none = Signal("a", 0.2, ""), Signal("b", 0.9, ""), Signal("c", None, "")
    assert governor.decide([low]) == Decision(Act.RAISE, room=0.75, worst=low)
    assert governor.decide([low, high]) == Decision(Act.HOLD, worst=high)
    assert governor.decide([low, none]) == Decision(Act.HOLD, worst=none)
    assert governor.decide([none, Signal("b", 1.1, "")]).act is Act.CUT, "what is known to be bad needs no other news"
    assert Governor().decide([]).act is Act.HOLD


def test_what_is_forgotten_is_tried_again() -> None:
    course = Course(rate=100.0, floor=1.0, goal=1000.0)
    course = steered(course, Decision(Act.CUT), window_s=WINDOW_S)
    assert (course.rate, course.cap) == (50.0, 90.0)
    calm = Decision(Act.RAISE, room=1.0)
    for _ in range(58):
        course = steered(course, calm, window_s=WINDOW_S)
    assert course.rate == 90.0
    for _ in range(3):
        course = steered(course, calm, window_s=WINDOW_S)
    assert course.rate > 100.0


def test_a_ramp_takes_as_long_as_it_was_told_to() -> None:
    course = Course(rate=5.0, floor=1.0, goal=50.0, slope=45.0 / 600)
    windows = 0
    while not course.there:
        course = steered(course, Decision(Act.RAISE, room=1.0), window_s=WINDOW_S)
        windows += 1
    assert windows == 60


@pytest.mark.parametrize(
    ("level", "fell", "share"), [(1000, 0, 0.2), (200, 0, 1.0), (100, 0, 2.0), (0, 0, 100.0), (500, 10, 0.6)]
)
def test_a_reserve_is_judged_by_what_is_left_and_by_how_long_it_lasts(level: float, fell: float, share: float) -> None:
    now = Reserve(level, 1000, 5)
    before = replace(now, level=level + fell)
    # 10 units in 10 s, and 300 above the least: 300 s; 180 s are asked for.
    assert reserve_share(before, now, 10, least=0.2, lasts_s=180) == pytest.approx(share)


def test_a_reserve_falls_by_what_is_used_beyond_what_comes_back() -> None:
    assert Reserve(100, 1000, 5).used(80, 10).level == 70
    assert Reserve(10, 1000, 5).used(800, 10).level == 0
    assert Reserve(990, 1000, 5).used(0, 10).level == 1000
