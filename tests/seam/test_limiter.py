"""What every limiter keeps to, whoever counts: the conformance suite of ``kernel/seam/limiter.py``.

An implementation joins by an entry in ``LIMITERS``; it is given the clock whose time it must go by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.cache.setting import Settings
from seawall.cache.shared import Shared
from seawall.guard.limiter import LocalLimiter
from seawall.guard.panel import Panel
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import Clock
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.limiter import Allowance, Limiter, Rate
from seawall.testing import ManualClock


def shared(clock: Clock) -> Limiter:
    """The one that shares, with nobody to share with: its breaker is open, so that it goes by our clock alone. What it
    does with a server is in tests/cache."""
    metrics, panel = Metrics(), Panel()
    limiter = Shared(
        Settings(url="redis://127.0.0.1:1"), name="c1", clock=clock, metrics=metrics, alerts=Alerts(metrics, clock),
        panel=panel,
    ).limiter  # fmt: skip
    panel.force("redis", "open")
    return limiter


LIMITERS: dict[str, Callable[[Clock], Limiter]] = {"local": lambda clock: LocalLimiter(clock), "shared": shared}
TEN = Rate(10, 2.0)


@pytest.fixture(params=LIMITERS)
def made(request: pytest.FixtureRequest) -> Callable[[Clock], Limiter]:
    return LIMITERS[request.param]


def test_a_new_key_has_its_whole_burst_and_then_nothing(made: Callable[[Clock], Limiter]) -> None:
    limiter = made(ManualClock())
    found = [limiter.decide(b"k", TEN) for _ in range(12)]
    assert [one.allowed for one in found] == [True] * 10 + [False] * 2
    assert [one.remaining for one in found] == [*range(9, -1, -1), 0, 0]
    assert limiter.decide(b"other", TEN).allowed


def test_looking_counts_nothing_and_says_what_deciding_would(made: Callable[[Clock], Limiter]) -> None:
    limiter = made(ManualClock())
    for _ in range(11):
        looked = [limiter.look(b"k", TEN) for _ in range(3)]
        assert looked[0] == looked[1] == looked[2]
        decided = limiter.decide(b"k", TEN)
        assert (looked[0].allowed, looked[0].remaining) == (decided.allowed, decided.remaining)


def test_a_refusal_says_exactly_when_one_more_may_pass(made: Callable[[Clock], Limiter]) -> None:
    clock = ManualClock()
    limiter = made(clock)
    while (refused := limiter.decide(b"k", TEN)).allowed:
        pass
    clock.advance(refused.retry_after_us / 1e6 - 0.001)
    assert not limiter.decide(b"k", TEN).allowed
    clock.advance(0.002)
    assert limiter.decide(b"k", TEN).allowed
    assert not limiter.decide(b"k", TEN).allowed


def test_after_its_window_all_is_as_new(made: Callable[[Clock], Limiter]) -> None:
    clock = ManualClock()
    limiter = made(clock)
    while limiter.decide(b"k", TEN).allowed:
        pass
    clock.advance(2.0)
    assert limiter.look(b"k", TEN).remaining == 9


def test_another_rate_holds_from_the_next_question_on(made: Callable[[Clock], Limiter]) -> None:
    clock = ManualClock()
    limiter = made(clock)
    while limiter.decide(b"k", TEN).allowed:
        pass
    clock.advance(0.03)
    assert not limiter.look(b"k", TEN).allowed
    assert limiter.decide(b"k", Rate(100, 2.0)).allowed


def asked(limiter: Limiter, *limits: tuple[bytes, Rate]) -> Sequence[Allowance]:
    """The answer of a limiter that needs nobody now: it is there at once, and once."""
    answers: list[Sequence[Allowance]] = []
    limiter.ask(limits, answers.append)
    [answer] = answers
    return answer


def test_a_question_about_several_keys_is_counted_under_all_or_none(made: Callable[[Clock], Limiter]) -> None:
    limiter, one = made(ManualClock()), Rate(1, 2.0)
    assert [a.allowed for a in asked(limiter, (b"tight", one), (b"wide", TEN))] == [True, True]
    for _ in range(20):
        assert [a.allowed for a in asked(limiter, (b"tight", one), (b"wide", TEN))] == [False, True]
    assert limiter.look(b"wide", TEN).remaining == 8
    assert asked(limiter) == []


def test_asking_and_deciding_spend_the_same(made: Callable[[Clock], Limiter]) -> None:
    limiter = made(ManualClock())
    told = [asked(limiter, (b"k", TEN))[0] if n % 2 else limiter.decide(b"k", TEN) for n in range(12)]
    assert [one.remaining for one in told] == [*range(9, -1, -1), 0, 0]


@pytest.mark.parametrize("name", LIMITERS)
@given(
    waits_ms=st.lists(st.integers(0, 900), min_size=1, max_size=120),
    limit=st.integers(1, 20),
    per_s=st.sampled_from([0.05, 0.5, 1.0, 7.0]),
)
def test_no_pattern_of_asking_gets_more_than_the_rate(name: str, waits_ms: list[int], limit: int, per_s: float) -> None:
    clock, rate = ManualClock(), Rate(limit, per_s)
    limiter = LIMITERS[name](clock)
    began, passed = clock.monotonic(), 0
    for wait_ms in waits_ms:
        clock.advance(wait_ms / 1000)
        passed += limiter.decide(b"k", rate).allowed
        elapsed_s = clock.monotonic() - began
        assert passed <= limit + elapsed_s * limit / per_s + 1e-3
