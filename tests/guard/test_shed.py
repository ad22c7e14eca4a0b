"""Optional work goes off in order and comes back in the reverse order, never to and fro, and a hand is above it all."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seawall.guard.shed import CALM_S, PATIENCE_S, RELAPSE_S, STEP_S, ShedList, Shift, Signal, Work
from seawall.kernel.alert import Alerts
from seawall.kernel.error import Misconfigured, Rejected
from seawall.kernel.metric import Metrics
from seawall.testing import ManualClock

EVERY_S = 0.5
NAMES = ("countries", "digests", "look-ups")


class Rig:
    def __init__(self, hands: dict[str, str] | None = None) -> None:
        self.clock = ManualClock(monotonic=0.0)
        self.metrics = Metrics()
        self.alerts = Alerts(self.metrics, self.clock)
        self.shifts: list[tuple[float, Shift]] = []
        self.kept: list[dict[str, str]] = []
        self.load = {"lag": 0.0, "pool": 0.0}
        self.shed = ShedList(
            clock=self.clock, metrics=self.metrics, alerts=self.alerts, hands=hands,
            keep=lambda hands: self.kept.append(dict(hands)),
            audited=lambda shift: self.shifts.append((self.clock.monotonic(), shift)),
        )  # fmt: skip
        for name in self.load:
            self.shed.watch(Signal(name=name, read=lambda name=name: self.load[name], high=1.0, low=0.2))  # type: ignore[misc]
        self.work: dict[str, Work] = {
            name: self.shed.add(name, rank=rank, without=f"no {name}", eases=("lag",))
            for rank, name in reversed(list(enumerate(NAMES)))
        }

    def run(self, seconds: float, **load: float) -> None:
        self.load |= load
        for _ in range(int(seconds / EVERY_S)):
            self.clock.advance(EVERY_S)
            self.shed.look()

    @property
    def off(self) -> set[str]:
        return {name for name, work in self.work.items() if not work.on}


def test_the_least_important_work_goes_first_and_the_last_to_go_comes_back_first() -> None:
    rig = Rig()
    rig.run(PATIENCE_S + EVERY_S, lag=2.0)
    assert rig.off == {"countries"}
    rig.run(2 * STEP_S)
    assert rig.off == set(NAMES)
    rig.run(3 * (CALM_S + STEP_S), lag=0.1)
    assert not rig.off
    names = [shift.name for _, shift in rig.shifts]
    assert names == [*NAMES, *reversed(NAMES)]


def test_a_moment_of_load_switches_nothing_off() -> None:
    rig = Rig()
    for _ in range(20):
        rig.run(PATIENCE_S - EVERY_S, lag=5.0)
        rig.run(EVERY_S, lag=0.5)
    assert not rig.off


def test_between_the_thresholds_nothing_changes() -> None:
    rig = Rig()
    rig.run(PATIENCE_S + EVERY_S, lag=2.0)
    rig.run(1000, lag=0.5)
    assert rig.off == {"countries"}


def test_a_signal_only_switches_off_what_eases_it() -> None:
    rig = Rig()
    rig.run(100, pool=9.0)
    assert not rig.off
    rig.shed.add("statistics", rank=9, without="none", eases=("pool",))
    rig.run(PATIENCE_S + STEP_S)
    assert [line.name for line in rig.shed.lines() if not line.on] == ["statistics"]


def test_work_that_brings_the_load_back_stays_off_ever_longer() -> None:
    rig = Rig()
    offs: list[float] = []
    for _ in range(4):
        rig.run(PATIENCE_S + STEP_S, lag=2.0)
        began = rig.clock.monotonic()
        while rig.off:
            rig.run(EVERY_S, lag=0.0)
        offs.append(rig.clock.monotonic() - began)
    assert offs == sorted(offs)
    assert offs[-1] > 3 * offs[0]
    rig.run(RELAPSE_S + EVERY_S)
    rig.run(PATIENCE_S + EVERY_S, lag=2.0)
    assert rig.shed.calm_s == CALM_S, "a new trouble begins anew"


def test_a_hand_wins_over_every_signal_and_letting_go_gives_it_back() -> None:
    rig = Rig()
    rig.shed.force("countries", "on")
    rig.shed.force("look-ups", "off")
    rig.run(10 * STEP_S, lag=9.0)
    assert rig.off == {"digests", "look-ups"}
    rig.run(10 * CALM_S, lag=0.0)
    assert rig.off == {"look-ups"}
    rig.shed.force("look-ups", "auto")
    assert not rig.off


def test_a_hand_on_what_a_signal_has_switched_off_puts_it_on_at_once() -> None:
    rig = Rig()
    rig.run(PATIENCE_S + EVERY_S, lag=9.0)
    rig.shed.force("countries", "on")
    assert not rig.off
    rig.shed.force("countries", "auto")
    assert rig.off == {"countries"}, "the signal still has it"


def test_each_change_is_told_alerted_and_counted_and_each_use_left_out_too() -> None:
    rig = Rig()
    rig.run(PATIENCE_S + EVERY_S, lag=2.0)
    assert not rig.work["countries"].wanted()
    assert rig.work["digests"].wanted()
    [alert] = rig.alerts.active()
    assert (alert.name, alert.labels) == ("work-shed", {"work": "countries"})
    assert "no countries" in alert.summary
    assert rig.metrics.counter("seawall_shed_skipped_total", "", work="countries").value == 1
    assert rig.metrics.gauge("seawall_shed_off_count", "", work="countries").now() == 1
    rig.run(2 * CALM_S, lag=0.0)
    assert not rig.alerts.active()
    assert [(shift.name, shift.on) for _, shift in rig.shifts] == [("countries", False), ("countries", True)]
    for by, changes in (("signal", 2), ("hand", 0)):
        assert rig.metrics.counter("seawall_shed_changes_total", "", work="countries", by=by).value == changes


def test_what_a_hand_held_outlives_a_restart() -> None:
    rig = Rig()
    rig.shed.force("digests", "off")
    rig.shed.force("countries", "on")
    rig.shed.force("countries", "auto")
    assert rig.kept[-1] == {"digests": "off"}
    after = Rig(hands={**rig.kept[-1], "look-ups": "nonsense", "gone": "off"})
    assert after.off == {"digests"}
    assert [alert.labels["work"] for alert in after.alerts.active()] == ["digests"]


def test_unknown_work_and_states_are_rejected() -> None:
    rig = Rig()
    for name, hand, status in (("nothing", "off", 404), ("countries", "ajar", 422)):
        with pytest.raises(Rejected) as error:
            rig.shed.force(name, hand)
        assert error.value.status == status


def test_work_without_a_declared_default_is_refused_and_so_are_useless_signals() -> None:
    rig = Rig()
    with pytest.raises(Misconfigured, match="declares no default"):
        rig.shed.add("x", rank=50, without=" ", eases=("lag",))
    with pytest.raises(Misconfigured, match="taken"):
        rig.shed.add("y", rank=0, without="nothing", eases=("lag",))
    with pytest.raises(Misconfigured, match="signal"):
        rig.shed.watch(Signal(name="memory", read=lambda: 0.0, high=1.0, low=1.0))


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.floats(0.5, 40),
            st.floats(0, 3),
            st.sampled_from([None, *((name, hand) for name in NAMES for hand in ("on", "off", "auto"))]),
        ),
        max_size=40,
    )
)
def test_whatever_the_load_and_the_hands_do_it_is_slow_ordered_and_obedient(
    course: list[tuple[float, float, tuple[str, str] | None]],
) -> None:
    rig = Rig()
    held: dict[str, str] = {}
    stack: list[str] = []  # as signals switched off
    moved_at = float("-inf")
    by_signal: dict[str, list[float]] = {name: [] for name in NAMES}
    for seconds, load, hand in course:
        if hand is not None:
            rig.shed.force(*hand)
            held.pop(hand[0], None)
            if hand[1] != "auto":
                held[hand[0]] = hand[1]
        for _ in range(int(seconds / EVERY_S)):
            before = {name for name, work in rig.work.items() if work.shed_why is not None}
            rig.run(EVERY_S, lag=load)
            after = {name for name, work in rig.work.items() if work.shed_why is not None}
            now = rig.clock.monotonic()
            assert all(rig.work[name].on == (hand == "on") for name, hand in held.items()), "a hand wins"
            if before == after:
                continue
            assert len(before ^ after) == 1
            assert now - moved_at >= STEP_S
            moved_at = now
            [name] = before ^ after
            assert name not in held or name in before, "no signal begins to move what a hand holds"
            if name in after:
                assert all(other in before or other in held for other in NAMES[: NAMES.index(name)])
                stack.append(name)
            else:
                assert stack.pop() == name, "the last to go comes back first"
                assert now - by_signal[name][-1] >= CALM_S
            by_signal[name].append(now)
