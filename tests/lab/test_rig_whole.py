"""A whole rig, on the wheel's Redis: what it makes, what actions do to it and undo, and what it says of itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from seawall.kernel.error import Rejected, Unavailable
from seawall.lab import act, probe
from seawall.lab.rig import Rig, current, open_rig, own
from seawall.lab.seam import Order

pytestmark = pytest.mark.slow

TRAFFIC = ({"kind": "events", "rate": 40}, {"kind": "held", "rate": 10, "wait_s": 4})


class Armed:
    """Holds what an action arms, as a watchdog would, and sees that it did so before it acted."""

    def __init__(self) -> None:
        self.reverts: dict[str, Mapping[str, object]] = {}
        self.faults: list[str] = []
        self.dead: list[str] = []

    def arm(
        self, revert: Mapping[str, object], *, max_s: float, fault: str, target: str, dead: Sequence[str] = ()
    ) -> str:
        id = f"a{len(self.faults)}"
        assert all(current().alive(path) for path in dead), "it is armed before anything is done"
        self.reverts[id], self.dead = revert, [*dead]
        self.faults.append(f"{target}: {fault}")
        return id

    def landed(self, id: str) -> None:
        assert id in self.reverts

    def still(self, ids: Sequence[str]) -> None:
        pass

    def undone(self, id: str) -> None:
        del self.reverts[id]


ARMED = Armed()


def order(folder: Path, *needs: str, **more: object) -> Order:
    fields = {
        "needs": needs, "profile": "embedded", "app": "", "traffic": TRAFFIC, "weak": (), "seed": 7,
        "folder": folder / "rig", "fetched": folder, "run": folder / "run", "options": {"redis": "wheel"}, **more,
    }  # fmt: skip
    return Order(**fields)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    made = order(tmp_path_factory.mktemp("lab"), "sentinel")
    with open_rig(made, arm=ARMED, say=lambda text: None) as found:
        assert current() is found
        yield found
    with pytest.raises(Rejected):
        current()
    assert not [entry for entry in made.folder.iterdir() if entry.name not in (own.MARK, own.LOCK)]


def _until(true: Callable[[], bool], within_s: float = 30.0) -> None:
    latest = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < latest, dict(current().sampled())
        time.sleep(0.1)


def test_what_it_says_of_itself_when_nothing_is_wrong(rig: Rig) -> None:
    _until(lambda: probe.ok_share() > 0.99 and probe.own_share() > 0.99)
    _until(lambda: rig.called("redis") > 50)
    assert set(rig.paths()) == {"redis.r1", "redis.r2"} and all(rig.alive(path) for path in rig.paths())
    assert rig.called("kafka") == 0
    found = rig.sample()
    for name in ("intake.ok_rate", "intake.p99_ms", "held.own_rate", "router.lag_s", "collector.rss_mb",
                 "listener.redis_age_s", "breaker.redis_code", "line.redis_bytes_s",
                 "intake.accepted_total"):  # fmt: skip
        assert found.get(name, -1) >= 0, (name, found)
    assert found["intake.ready_ratio"] == 1.0 and probe.intake_ready()
    assert rig.broken() == "" and probe.wrong_count() == 0
    assert 0 <= probe.listener_age_s() < 5 and probe.alive("redis") and probe.primary() == "r1"
    assert "redis.r1" in rig.targets() and "collector" in rig.targets()


@pytest.mark.parametrize(
    ("name", "do"),
    [
        ("hole", lambda: act.hole("redis")), ("reset", lambda: act.reset("redis")),
        ("refuse", lambda: act.refuse("redis")), ("stop", lambda: act.stop("redis")),
        ("kill", lambda: act.kill("redis")), ("forget", lambda: act.forget("redis")),
    ],
)  # fmt: skip
def test_what_is_broken_is_dead_until_it_is_undone(rig: Rig, name: str, do: Callable[[], str]) -> None:
    _until(lambda: all(rig.alive(path) for path in rig.paths()))
    said = do()
    assert said and ARMED.reverts
    assert not any(rig.alive(path) for path in rig.paths())
    assert act.back("redis") != "redis: 0 faults undone"
    assert not ARMED.reverts
    _until(lambda: all(rig.alive(path) for path in rig.paths()))
    rig.parts["redis"].settle()


def test_a_slow_line_is_slow_and_alive(rig: Rig) -> None:
    assert "300 ms" in act.slow("redis", ms=300)
    assert all(rig.round_trip(path) >= 0.3 for path in rig.paths())
    act.all_back()
    _until(lambda: all(rig.round_trip(path) < 0.3 for path in rig.paths()))


def test_a_line_that_somebody_made_quick_again_is_no_slow_line(rig: Rig) -> None:
    act.slow("redis", ms=50)
    rig.proxy.clear("redis.r1")
    with pytest.raises(Unavailable, match=r"the line redis\.r1 has no latency"):
        act.back("redis")
    assert not ARMED.reverts and not any(line["faults"] for line in rig.proxy.links().values())
    act.slow("redis", ms=50)
    act.narrow("redis", bytes_s=100_000)  # takes the other's place: that is no surprise
    assert act.all_back() == "4 faults undone"


def test_an_upgrade_leaves_the_old_one_silent_and_the_new_one_reachable(rig: Rig) -> None:
    rig.parts["redis"].settle()
    first = probe.primary()
    act.upgrade()
    assert probe.primary() != first
    assert not any(rig.alive(path) for path in rig.paths())
    act.reachable()
    assert rig.alive(f"redis.{probe.primary()}") and not rig.alive(f"redis.{first}")
    act.all_back()
    rig.parts["redis"].settle()
    assert all(rig.alive(path) for path in rig.paths())
    _until(lambda: 0 <= probe.listener_age_s() < 2)


def test_subscribers_are_cut_off_and_a_primary_fails_over(rig: Rig) -> None:
    assert "cut off" in act.kick_subscribers()
    rig.parts["redis"].settle()
    first = probe.primary()
    assert first in act.fail_over()
    assert probe.primary() != first
    act.all_back()
    rig.parts["redis"].settle()


def test_a_collector_that_is_ended_is_replaced_and_that_is_noted(rig: Rig) -> None:
    for how in ("TERM", "KILL"):
        assert f"SIG{how}" in act.end("collector", how=how)
        _until(probe.intake_ready)
        rig.tree.wait_ready(60.0)
    rig.sample()
    said = rig.moments()
    assert ("child", "collector is another process") in said and ("killed", "collector: SIGKILL") in said


def test_two_rigs_at_once_and_unknown_targets_are_refused(rig: Rig, tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="one at a time"), open_rig(order(tmp_path), arm=ARMED, say=print):
        pass
    for wrong in (lambda: act.hole("kafka"), lambda: act.end("cook"), lambda: act.hole("redis.r9")):
        with pytest.raises(Rejected, match="no such"):
            wrong()
    assert not ARMED.reverts


def test_in_the_end_the_ledger_judges_all_of_it(rig: Rig) -> None:
    _until(lambda: probe.ok_share() > 0.99 and probe.own_share() > 0.99)
    counts = rig.finish(60.0)
    assert rig.verdict is not None and rig.verdict.holds, (counts, rig.verdict.examples)
    assert counts["own"] > 20 and counts["wrong"] == counts["ticket"] == 0
    assert counts["effects"] >= 2 * counts["finished"] - counts["held"]
    assert counts["lost"] == counts["unknown"] == 0
