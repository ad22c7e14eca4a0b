"""A breaker opens soon, tries one call at a time, closes when it should, and never gets stuck."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from seawall.guard.breaker import Breaker, Limits, Permit, State
from seawall.kernel.error import Misconfigured
from seawall.testing import ManualClock


class Rig:
    def __init__(self, **limits: float) -> None:
        self.clock = ManualClock()
        self.seen: list[State] = []
        self.breaker = Breaker(
            "redis", Limits(**limits), clock=self.clock, rng=random.Random(1),  # type: ignore[arg-type]
            changed=lambda breaker, before, after: self.seen.append(after),
        )  # fmt: skip

    def call(self, *, ok: bool, took_s: float = 0.001) -> bool:
        permit = self.breaker.admit()
        if permit is None:
            return False
        self.clock.advance(took_s)
        (self.breaker.succeeded if ok else self.breaker.failed)(permit)
        return True

    def opened(self) -> None:
        for _ in range(5):
            self.clock.advance(0.2)
            self.call(ok=False)
        assert self.breaker.state is State.OPEN


def test_failures_in_a_row_open_it_before_any_rate_is_known() -> None:
    rig = Rig()
    rig.opened()
    assert not rig.call(ok=True)
    assert rig.breaker.retry_after_s() > 0


def test_many_calls_cut_off_by_one_reset_are_one_failure_in_a_row() -> None:
    rig = Rig(calls_min=1000)
    permits = [rig.breaker.admit() for _ in range(50)]
    for permit in permits:
        assert permit is not None
        rig.breaker.failed(permit)
    assert rig.breaker.state is State.CLOSED


def test_its_owner_may_open_it_when_he_knows_more_and_it_comes_back_by_itself() -> None:
    rig = Rig(trials=1)
    rig.breaker.trip()
    assert not rig.call(ok=True)
    rig.clock.advance(rig.breaker.retry_after_s())
    assert rig.call(ok=True)
    assert rig.seen == [State.OPEN, State.HALF_OPEN, State.CLOSED]
    rig.breaker.force(State.FORCED_CLOSED)
    rig.breaker.trip()
    assert rig.breaker.state is State.FORCED_CLOSED, "a hand is stronger"


def test_half_of_enough_calls_failing_opens_it_and_fewer_do_not() -> None:
    rig = Rig()
    for number in range(60):
        rig.call(ok=number % 3 != 0, took_s=0.01)
    assert rig.breaker.state is State.CLOSED
    rig.clock.advance(11)
    for number in range(60):
        rig.call(ok=number % 2 != 0, took_s=0.01)
    assert rig.breaker.state is State.OPEN


def test_slow_answers_open_it_though_each_succeeded() -> None:
    rig = Rig()
    for _ in range(10):
        rig.call(ok=True, took_s=0.1)
    assert rig.breaker.state is State.OPEN


def test_what_left_the_window_is_forgotten() -> None:
    rig = Rig(in_a_row=1000)
    for _ in range(9):
        rig.call(ok=False)
    rig.clock.advance(11)
    rig.call(ok=False)
    assert rig.breaker.state is State.CLOSED


def test_half_open_lets_one_at_a_time_through_and_three_successes_close_it() -> None:
    rig = Rig()
    rig.opened()
    rig.clock.advance(2)
    for _ in range(3):
        permit = rig.breaker.admit()
        assert permit is not None
        assert rig.breaker.admit() is None
        rig.breaker.succeeded(permit)
    assert rig.seen == [State.OPEN, State.HALF_OPEN, State.CLOSED]


def test_a_failed_trial_opens_it_for_longer_up_to_a_bound() -> None:
    rig = Rig()
    rig.opened()
    waits = []
    for _ in range(8):
        waits.append(rig.breaker.retry_after_s())
        rig.clock.advance(waits[-1])
        assert rig.call(ok=False)
    assert 0.8 <= waits[0] <= 1.2
    assert all(later > earlier for earlier, later in itertools.pairwise(waits[:5]))
    assert max(waits) <= 30 * 1.2


def test_a_trial_whose_caller_vanished_is_given_to_another_and_its_late_word_counts_for_nothing() -> None:
    rig = Rig()
    rig.opened()
    rig.clock.advance(2)
    lost = rig.breaker.admit()
    assert lost is not None and rig.breaker.admit() is None
    rig.clock.advance(0.6)
    fresh = rig.breaker.admit()
    assert fresh is not None
    rig.breaker.failed(lost)
    assert rig.breaker.state is State.HALF_OPEN
    rig.breaker.succeeded(fresh)


def test_a_cancelled_trial_is_given_back_and_counts_for_nothing() -> None:
    rig = Rig()
    rig.opened()
    rig.clock.advance(2)
    permit = rig.breaker.admit()
    assert permit is not None
    rig.breaker.abandoned(permit)
    assert rig.breaker.state is State.HALF_OPEN
    assert rig.breaker.admit() is not None


def test_by_hand_it_stays_as_it_was_put_until_it_is_let_go() -> None:
    rig = Rig()
    rig.breaker.force(State.FORCED_OPEN)
    rig.clock.advance(1000)
    assert not rig.call(ok=True)
    rig.breaker.force(State.FORCED_CLOSED)
    for _ in range(50):
        rig.clock.advance(0.2)
        assert rig.call(ok=False)
    rig.breaker.force(None)
    assert rig.breaker.state is State.CLOSED and rig.call(ok=True)


@pytest.mark.parametrize(
    "limits",
    [{"failure_rate": 0}, {"slow_rate": 2}, {"calls_min": 0}, {"open_min_s": 40}, {"window_s": 0.1}, {"jitter": 1.0}],
)
def test_one_that_could_never_open_or_close_is_refused(limits: dict[str, float]) -> None:
    with pytest.raises(Misconfigured, match="breaker redis"):
        Rig(**limits)


class Machine(RuleBasedStateMachine):
    """Any order of calls, results, losses, hands and waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig()
        self.under_way: list[Permit] = []
        self.healthy = True

    @rule()
    def admit(self) -> None:
        permit = self.rig.breaker.admit()
        if permit is not None:
            assert self.rig.breaker.state in (State.CLOSED, State.HALF_OPEN, State.FORCED_CLOSED)
            self.under_way.append(permit)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), how=st.sampled_from(["succeeded", "failed", "abandoned", "vanish"]))
    def end(self, data: st.DataObject, how: str) -> None:
        permit = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        if how != "vanish":
            getattr(self.rig.breaker, how)(permit)

    @rule(seconds=st.sampled_from([0.01, 0.2, 0.7, 3.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.rig.clock.advance(seconds)

    @rule(state=st.sampled_from([None, State.FORCED_OPEN, State.FORCED_CLOSED]))
    def hand(self, state: State | None) -> None:
        self.rig.breaker.force(state)

    @invariant()
    def only_one_trial_is_live(self) -> None:
        breaker, now = self.rig.breaker, self.rig.clock.monotonic()
        if breaker.state is State.HALF_OPEN:
            live = [p for p in self.under_way if p.trial == breaker._trial and now < p.began + breaker.limits.trial_s]
            assert len(live) <= 1

    def teardown(self) -> None:
        """Whatever happened, a dependency that is well is used again within a bounded time."""
        rig = self.rig
        if rig.breaker.state is State.FORCED_OPEN:
            rig.breaker.force(None)
        for _ in range(20):
            rig.clock.advance(rig.breaker.limits.trial_s + rig.breaker.retry_after_s())
            rig.call(ok=True)
        assert rig.breaker.state in (State.CLOSED, State.FORCED_CLOSED)


Machine.TestCase.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
TestNoOrderOfThingsBreaksIt = Machine.TestCase
