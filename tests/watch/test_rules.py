"""Each rule fires when it should, clears when that is over, and is silent in a healthy hour."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seawall.guard.supervisor import LoopHealth
from seawall.kernel.alert import Alerts
from seawall.kernel.metric import Metrics
from seawall.testing import ManualClock
from seawall.watch.health import RoleHealth
from seawall.watch.ledger import Account, Count
from seawall.watch.progress import Restarts, silent, stalled
from seawall.watch.queue import QueueLook, QueueMemory, Spread, late, slope
from seawall.watch.verdict import Finding, Patience, Rule, Verdict

STEP_S = 10.0
HOUR = 360
LOOK = QueueLook(
    name="q", paused=False, target_s=5.0, waiting=0, capped=False, oldest_s=None,
    starts=Spread(100, 0.01, 0.1), ends=Spread(100, 1.0, 2.0),
)  # fmt: skip


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.1, 40), st.sampled_from(Verdict)), max_size=60), st.floats(1, 60), st.floats(1, 60)
)
def test_an_alert_is_raised_only_after_lasting_trouble_and_ends_only_after_lasting_rest(
    seen: list[tuple[float, Verdict]], for_s: float, clear_s: float
) -> None:
    state, now, raised = Patience(for_s, clear_s), 0.0, False
    history: list[tuple[float, Verdict]] = []
    for pause_s, verdict in seen:
        now += pause_s
        history.append((now, verdict))
        change = state.step(verdict, now)
        if change is None:
            continue
        assert change is not raised, "raised and cleared take turns"
        raised = change
        wanted, broken = (Verdict.BAD, Verdict.FINE) if change else (Verdict.FINE, Verdict.BAD)
        assert verdict is wanted, "on the strength of a look, not of its absence"
        since = max((at for at, v in history if v is broken), default=0.0)
        assert now - since >= (for_s if change else clear_s)
    assert state.raised is raised


def test_what_is_not_looked_at_any_more_is_over_and_an_unknown_is_neither_good_nor_bad() -> None:
    alerts, rule = Alerts(Metrics(), ManualClock()), Rule("queue-late", 0.0, 0.0, label="queue")
    rule.apply({"a": Finding(verdict=Verdict.BAD, summary="late")}, alerts, 1.0)
    rule.apply({"a": Finding(verdict=Verdict.UNKNOWN)}, alerts, 2.0)
    assert [(a.name, dict(a.labels), a.summary) for a in alerts.active()] == [("queue-late", {"queue": "a"}, "late")]
    rule.apply({}, alerts, 3.0)
    assert not alerts.active()


def firings(
    looks: Iterator[QueueLook], judge: Callable[[QueueLook, float], Finding], rule: Rule
) -> list[tuple[int, bool]]:
    """(step, raised) of each change over a series of looks."""
    changes: list[tuple[int, bool]] = []
    at = [0]
    alerts = Alerts(Metrics(), ManualClock(), heard=lambda alert, raised: changes.append((at[0], raised)))
    for at[0], look in enumerate(looks):
        rule.apply({"q": judge(look, at[0] * STEP_S)}, alerts, at[0] * STEP_S)
    return changes


def depths(series: list[int]) -> Iterator[QueueLook]:
    return (replace(LOOK, waiting=n, capped=n >= 20_000) for n in series)


def grown(series: list[int]) -> list[tuple[int, bool]]:
    memory = QueueMemory()
    return firings(depths(series), memory.growing, Rule("queue-grows", 10.0, 30.0, label="queue"))


@pytest.mark.parametrize("seed", range(5))
def test_a_queue_that_keeps_up_never_fires_however_its_bursts_are(seed: int) -> None:
    chance, depth, series = random.Random(seed), 0.0, []
    for n in range(HOUR):
        arrived = chance.gauss(400, 40) + (8000 if n % 60 == 5 else 0)
        depth = max(0.0, depth + arrived - 600)
        series.append(int(depth))
    assert grown(series) == []


@pytest.mark.parametrize("more", [25, 100, 1000])
def test_a_queue_that_gets_more_than_it_gets_done_fires_within_minutes_and_clears_when_it_drains(more: int) -> None:
    chance = random.Random(more)
    up = [int(more * n + chance.uniform(0, more / 2)) for n in range(72)]
    down = [max(0, up[-1] - 4 * more * n) for n in range(60)]
    changes = grown([0] * 60 + up + down)
    assert [raised for _, raised in changes] == [True, False]
    assert changes[0][0] - 60 <= 36, "six minutes"
    assert changes[1][0] < 60 + 72 + 36


def test_a_queue_too_deep_to_be_counted_stays_raised() -> None:
    assert [raised for _, raised in grown([0] * 40 + [min(20_000, 500 * n) for n in range(200)])] == [True]


def test_a_single_leap_is_no_growth() -> None:
    assert slope([(0, 5), (1, 5), (2, 900), (3, 5), (4, 5)]) == 0.0
    assert slope([(0, 5)]) == 0.0


def latencies(series: list[QueueLook]) -> list[tuple[int, bool]]:
    return firings(iter(series), lambda look, now: late(look), Rule("queue-late", 60.0, 30.0, label="queue"))


def test_runs_that_start_late_or_not_at_all_fire_and_a_pause_or_a_moment_does_not() -> None:
    started = replace(LOOK, starts=Spread(60, 0.1, 9.0))
    nothing = replace(LOOK, starts=None, oldest_s=40.0)
    assert latencies([LOOK] * HOUR) == []
    assert latencies([LOOK] * 5 + [started] * 20 + [LOOK] * 20) == [(11, True), (28, False)]
    assert latencies([LOOK] * 5 + [nothing] * 20 + [LOOK] * 20) == [(11, True), (28, False)]
    assert latencies(([nothing] * 4 + [LOOK]) * 20) == []
    woken = replace(LOOK, starts=None, ends=None, waiting=9)
    assert latencies([woken] * 20 + [replace(woken, ends=LOOK.ends)] * 20) == [(6, True), (23, False)]
    assert latencies([replace(nothing, paused=True)] * 50) == latencies([replace(nothing, target_s=0.0)] * 50) == []
    assert latencies([replace(LOOK, starts=Spread(5, 0.1, 9.0))] * 50) == [], "the worst of five says little"


def test_what_is_said_of_a_late_queue_tells_what_was_from_what_is() -> None:
    over = late(replace(LOOK, starts=Spread(60, 7.0, 9.0)))
    assert "of those that began lately p50 7.0 s, p99 9.0 s; none waiting now; target 5 s" in over.summary
    stuck = late(replace(LOOK, starts=None, waiting=20_000, capped=True, oldest_s=40.0))
    assert "none began lately; 20000 or more waiting now, the next one for 40.0 s; target 5 s" in stuck.summary


def test_runs_that_take_longer_than_in_the_hour_before_fire_and_slow_ones_never_become_the_measure() -> None:
    memory, rule = QueueMemory(), Rule("queue-slower", 60.0, 60.0, label="queue")

    def judge(look: QueueLook, now: float) -> Finding:
        state = rule._things.get("q")
        return memory.slower(look, now, raised=state is not None and state.raised)

    slow = replace(LOOK, ends=Spread(100, 20.0, 60.0))
    chance = random.Random(3)
    healthy = [replace(LOOK, ends=Spread(100, chance.uniform(0.5, 1.5), 9.0)) for _ in range(HOUR)]
    changes = firings(iter([*healthy, *[slow] * HOUR, *healthy[:30]]), judge, rule)
    assert [raised for _, raised in changes] == [True, False]
    assert changes[0][0] - HOUR <= 7 and changes[1][0] - 2 * HOUR <= 7


LOOP = LoopHealth("worker.flush", True, True, "", 0.4, 0)


def health(*loops: LoopHealth) -> RoleHealth:
    return RoleHealth(role="worker", ready=all(one.ready for one in loops), loops=loops)


def test_a_loop_that_stands_is_unready_or_dies_again_and_again_is_found_and_a_sound_one_is_not() -> None:
    restarts = Restarts()
    for n in range(HOUR):
        assert stalled([health(LOOP)], restarts, n * STEP_S)["worker"].verdict is Verdict.FINE
    for bad in (replace(LOOP, last_progress_age_s=11), replace(LOOP, ready=False, reason="the store is away")):
        found = stalled([health(bad)], restarts, HOUR * STEP_S)["worker"]
        assert found.verdict is Verdict.BAD and "worker.flush" in found.summary
    flapping = [replace(LOOP, restarts=n) for n in range(5)]
    judged = [stalled([health(one)], restarts, (HOUR + n) * STEP_S)["worker"].verdict for n, one in enumerate(flapping)]
    assert judged == [Verdict.FINE] * 3 + [Verdict.BAD] * 2
    assert stalled([health(replace(LOOP, restarts=4))], restarts, 2 * HOUR * STEP_S)["worker"].verdict is Verdict.FINE
    assert stalled([health(LOOP)], restarts, 3 * HOUR * STEP_S)["worker"].verdict is Verdict.FINE, "a new process"


def test_a_role_that_does_not_answer_is_found_and_its_loops_are_unknown() -> None:
    gone = RoleHealth(role="router", ready=False, reason="not running")
    found = silent([health(LOOP), gone])
    assert (found["worker"].verdict, found["router"].verdict) == (Verdict.FINE, Verdict.BAD)
    assert stalled([gone], Restarts(), 0.0)["router"].verdict is Verdict.UNKNOWN


def account(counts: list[Count | None]) -> list[Verdict]:
    made = Account()
    return [made.step(count).verdict for count in counts]


def count(durable: float, handled: float, *, lag_s: float = 0.0, reread: float = 0.0) -> Count:
    return Count(durable=durable, handled=handled, reread=reread, lag_s=lag_s)


def test_the_ledger_is_balanced_in_a_busy_hour_and_events_that_nobody_routed_are_found() -> None:
    chance, busy, durable = random.Random(7), [], 0
    for _ in range(HOUR):
        came = chance.choice([0, 3, 20_000])
        durable += came
        busy.append(count(durable, durable - chance.randrange(0, min(came, 400) + 1), lag_s=0.3))
    assert Verdict.BAD not in account(busy)
    quiet = [count(durable + 5, durable)] * 3
    lost = [count(100, 100), count(100, 100), count(200, 190), count(200, 190), count(200, 190)]
    assert account(lost)[-2:] == [Verdict.BAD] * 2
    assert Verdict.BAD not in account(quiet), "what was so from the beginning is before our time"
    behind = [count(100, 100), count(100, 100), count(900, 100, lag_s=60), count(900, 100, lag_s=70)]
    assert account(behind)[-2:] == [Verdict.UNKNOWN] * 2
    anew = [count(100, 100), count(100, 100), count(100, 40), count(100, 90, reread=3), count(5, 90, reread=3)]
    assert account(anew)[2:] == [Verdict.UNKNOWN] * 3
