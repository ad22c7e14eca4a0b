"""Cells of the matrix (docs/lab/matrix.md) on real parts: Redis, Kafka and PostgreSQL are slow, hung or gone, one after
the other, under events and held requests; what was accepted is all there in the end, and each answer is its own.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest

from seawall.kernel.error import Rejected, Unavailable
from seawall.lab import act, probe
from seawall.lab.part.node import FETCHED
from seawall.lab.platform import Platform
from seawall.lab.rig import Rig, open_rig
from seawall.lab.seam import Order

pytestmark = pytest.mark.parts

BROKEN_S = 4.0
WELL_S = 90.0
ANSWER_S = 5.0
DRAIN_S = 180.0
TRAFFIC = ({"kind": "events", "rate": 40}, {"kind": "held", "rate": 5, "wait_s": 4})
DEPENDENCIES = ("redis", "kafka", "postgres")
SLOW_MS = {"redis": 800, "kafka": 1500, "postgres": 300}
WAYS: Mapping[str, Callable[[str], str]] = {
    "slow": lambda target: act.slow(target, ms=SLOW_MS[target]), "hung": act.hole, "gone": act.refuse,
}  # fmt: skip


BROKEN: set[tuple[str, str]] = set()
"""What was broken so far, and mended."""


class Unheld:
    """Nobody holds what undoes a fault: the test undoes it, and its rig ends with it."""

    def arm(
        self, revert: Mapping[str, object], *, max_s: float, fault: str, target: str, dead: Sequence[str] = ()
    ) -> str:
        return "unheld"

    def landed(self, id: str) -> None:
        """Said by `act`, which looks by itself."""

    def still(self, ids: Sequence[str]) -> None:
        pass

    def undone(self, id: str) -> None:
        """As it was armed."""


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("matrix")
    order = Order(
        needs=("redis", "kafka3", "postgres"), profile="cluster", app="", traffic=TRAFFIC, weak=(), seed=1,
        folder=folder / "rig", fetched=FETCHED, run=folder / "run",
    )  # fmt: skip
    with open_rig(order, arm=Unheld(), say=lambda text: None) as made:
        yield made


def _until_well(rig: Rig) -> None:
    latest = time.monotonic() + WELL_S
    while not (probe.ok_share(seconds=3.0) == 1.0 and probe.own_share(seconds=3.0) == 1.0):
        assert time.monotonic() < latest, f"{dict(rig.sample())}\n{rig.tree.log_tail(30)}"
        time.sleep(0.2)


def _until_called(rig: Rig, what: str) -> None:
    """By the traffic. Metrics that couldn't be read in time are asked for again."""
    latest = time.monotonic() + WELL_S
    while rig.called(what) == 0:
        assert time.monotonic() < latest, f"the traffic doesn't call {what}"
        time.sleep(0.2)


def _asked_s(rig: Rig) -> float:
    """How long the API takes to answer, whatever it says."""
    began = time.monotonic()
    with (
        Platform(rig.tree.place, patience_s=0.0, timeout_s=ANSWER_S * 2) as platform,
        contextlib.suppress(Unavailable, Rejected),
    ):
        platform.call("GET", "/v1/runs?limit=1")
    return time.monotonic() - began


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("what", DEPENDENCIES)
def test_intake_goes_on_and_all_is_well_afterwards(rig: Rig, what: str, how: str) -> None:
    _until_well(rig)
    _until_called(rig, what)
    tickets = rig.flow.recent["held"].total["ticket"]
    WAYS[how](what)
    # `act` looks by itself whether it is slow.
    assert how == "slow" or not any(rig.alive(line.name) for line in rig.lines_of(what)), "it is away"
    time.sleep(BROKEN_S)
    window = rig.flow.recent["events"].window(BROKEN_S - 1)
    asked_s = _asked_s(rig)
    act.back(what)
    assert rig.alive(rig.lines_of(what)[0].name)
    BROKEN.add((what, how))
    assert window.all > 50 and window.count("ok") == window.all, window.words
    assert asked_s < ANSWER_S
    _until_well(rig)
    if what == "kafka" and how != "slow":
        # What lies in the spool is routed when it was forwarded: who waited was told at the deadline where to ask.
        assert rig.flow.recent["held"].total["ticket"] > tickets


def test_what_was_accepted_in_all_of_them_is_there_and_each_answer_is_its_own(rig: Rig) -> None:
    assert len(BROKEN) == len(DEPENDENCIES) * len(WAYS), "by itself it shows nothing: run the whole file"
    _until_well(rig)
    rig.finish(DRAIN_S)
    assert rig.verdict is not None
    assert rig.verdict.holds and not rig.verdict.silent, f"{rig.verdict.counts()} {rig.verdict.examples}"
