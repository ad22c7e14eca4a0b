"""No key ever passes more than its rate and burst allow, nor less."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from seawall.guard.throttle import SECOND_US, Rate, Throttle, decide

rates = st.builds(Rate, st.integers(1, 1000), st.sampled_from([0.1, 1.0, 60.0]))
gaps = st.lists(st.integers(0, 3 * SECOND_US), min_size=1, max_size=200)


@given(rates, gaps)
def test_any_window_passes_at_most_the_burst_and_what_the_rate_adds(rate: Rate, gaps: list[int]) -> None:
    tat, now, passed = 0, 1_000_000_000, []
    for gap in gaps:
        now += gap
        found = decide(tat, now, rate)
        if found.allowed:
            tat = found.tat_us
            passed.append(now)
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            allowed = rate.limit + (passed[last] - passed[first]) // rate.interval_us
            assert last - first + 1 <= allowed


@given(rates, gaps)
def test_what_was_refused_passes_after_exactly_the_told_time_and_not_before(rate: Rate, gaps: list[int]) -> None:
    tat, now = 0, 1_000_000_000
    for gap in gaps:
        now += gap
        found = decide(tat, now, rate)
        if found.allowed:
            tat = found.tat_us
            assert found.retry_after_us == 0 or not decide(tat, now + found.retry_after_us - 1, rate).allowed
            assert decide(tat, now + found.retry_after_us, rate).allowed
            assert decide(tat, now + found.reset_us, rate).remaining == rate.limit - 1
        else:
            assert found.tat_us == tat
            assert not decide(tat, now + found.retry_after_us - 1, rate).allowed
            assert decide(tat, now + found.retry_after_us, rate).allowed


def test_remaining_counts_down_and_the_whole_burst_passes_at_once() -> None:
    throttle, rate = Throttle(10), Rate(5)
    assert [throttle.take("k", 10_000_000, rate).remaining for _ in range(5)] == [4, 3, 2, 1, 0]
    refused = throttle.take("k", 10_000_000, rate)
    assert (refused.allowed, refused.remaining, refused.retry_after_us) == (False, 0, 200_000)


def test_a_clock_that_goes_back_locks_nobody_out() -> None:
    rate = Rate(5)
    ahead = decide(0, 3600 * SECOND_US, rate)
    assert decide(ahead.tat_us, SECOND_US, rate).retry_after_us <= rate.window_us


def test_memory_is_bounded_and_forgets_the_longest_unused() -> None:
    throttle, rate = Throttle(3), Rate(1)
    for key in "abac":
        throttle.take(key, 10_000_000, rate)
    throttle.take("d", 10_000_000, rate)
    assert len(throttle) == 3
    assert throttle.tat_us("b") == 0 and throttle.tat_us("d") > 0


def test_another_limiters_later_word_counts() -> None:
    throttle, rate = Throttle(3), Rate(2)
    throttle.note("k", 11_000_000)
    assert not throttle.take("k", 10_000_000, rate).allowed
    throttle.note("k", 5)
    assert throttle.tat_us("k") == 11_000_000
