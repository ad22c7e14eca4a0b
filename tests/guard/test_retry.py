"""Retries are bounded in number, in time and in share, and only made where that is declared to be of use."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.guard.budget import Budget
from seawall.guard.retry import Backoff, Retries, RetryPlan
from seawall.kernel.clock import SystemClock
from seawall.kernel.error import Misconfigured, Overloaded, SeawallError, Unavailable, Uncertain
from seawall.kernel.metric import Metrics
from seawall.testing import ManualClock

AWAY = Unavailable("PostgreSQL", "it is away")
ERRORS = st.sampled_from([AWAY, Overloaded("full", retry_after_s=2.0), Uncertain("commit")])


def retries(metrics: Metrics | None = None, **plan: object) -> Retries:
    made = RetryPlan(name="store", **{"on": (Unavailable,), **plan})  # type: ignore[arg-type]
    return Retries(made, rng=random.Random(1), metrics=metrics or Metrics())


@given(st.integers(1, 10), st.floats(0, 20), st.lists(st.tuples(ERRORS, st.floats(0, 1)), max_size=30))
def test_no_call_is_tried_more_often_or_longer_than_it_may(
    attempts: int, seconds: float, failures: list[tuple[SeawallError, float]]
) -> None:
    clock = ManualClock(monotonic=0.0)
    turn = retries(attempts=attempts, on=(Unavailable, Overloaded)).turn(Budget(seconds, clock))
    for error, took_s in failures:
        pause_s = turn.after(error)
        if pause_s is None:
            break
        assert not isinstance(error, Uncertain), "it isn't declared"
        assert not isinstance(error, Overloaded) or pause_s >= error.retry_after_s
        clock.advance(pause_s)
        assert clock.monotonic() <= seconds
        assert turn.tries <= attempts
        clock.advance(took_s)


@given(st.floats(0, 1), st.floats(1, 20), st.lists(st.booleans(), max_size=300))
def test_retries_stay_a_share_of_first_tries_however_long_an_outage_lasts(
    ratio: float, burst: float, calls: list[bool]
) -> None:
    metrics = Metrics()
    all_ = retries(metrics, ratio=ratio, burst=burst, attempts=10)
    for fails in calls:
        turn = all_.turn(Budget(math.inf, ManualClock()))
        while fails and turn.after(AWAY) is not None:
            pass
    made = metrics.counter("seawall_retries_total", "", to="store").value
    assert made <= burst + ratio * len(calls) + 1e-6


@given(st.integers(0, 2**32), st.integers(1, 200))
def test_pauses_are_anywhere_below_a_ceiling_that_doubles_to_its_bound(seed: int, count: int) -> None:
    backoff = Backoff(0.1, 5.0, random.Random(seed))
    for number in range(count):
        assert 0 <= backoff.pause_s() <= min(5.0, 0.1 * 2 ** min(number, 20))
    backoff.reset()
    assert backoff.pause_s() <= 0.1


def test_jitter_is_full_so_that_no_two_callers_come_back_together() -> None:
    pauses = sorted(Backoff(1.0, 1.0, random.Random(seed)).pause_s() for seed in range(200))
    assert pauses[10] < 0.15
    assert pauses[-10] > 0.85


async def test_what_fails_once_succeeds_the_second_time_and_is_counted() -> None:
    metrics = Metrics()
    tried: list[float] = []

    async def work(budget: Budget) -> str:
        tried.append(budget.left_s)
        if len(tried) == 1:
            raise AWAY
        return "there"

    assert await retries(metrics, first_s=0.001).call(work, Budget(5.0, SystemClock())) == "there"
    assert len(tried) == 2
    assert tried[1] < tried[0]
    assert metrics.counter("seawall_retries_total", "", to="store").value == 1


async def test_an_error_that_is_not_declared_goes_up_at_once_as_it_is() -> None:
    tried = 0

    async def work(budget: Budget) -> None:
        nonlocal tried
        tried += 1
        raise Uncertain("commit")

    with pytest.raises(Uncertain):
        await retries().call(work, Budget(5.0, SystemClock()))
    assert tried == 1


async def test_a_pause_that_would_outlast_the_budget_is_not_begun() -> None:
    async def work(budget: Budget) -> None:
        raise Overloaded("full", retry_after_s=60.0)

    with pytest.raises(Overloaded):
        await retries(on=(Overloaded,)).call(work, Budget(1.0, SystemClock()))


def test_without_allowance_nothing_is_repeated_and_that_is_counted() -> None:
    metrics = Metrics()
    all_ = retries(metrics, ratio=0.0, burst=1.0)
    assert all_.turn(Budget(9, ManualClock())).after(AWAY) is not None
    assert all_.turn(Budget(9, ManualClock())).after(AWAY) is None
    assert metrics.counter("seawall_retries_spared_total", "", to="store").value == 1


@pytest.mark.parametrize("plan", [{"on": ()}, {"attempts": 0}, {"attempts": 99}, {"first_s": 9.0}, {"ratio": 2.0}])
def test_a_plan_without_bounds_or_errors_is_refused(plan: dict[str, object]) -> None:
    with pytest.raises(Misconfigured, match="retries of store"):
        retries(**plan)
