"""Incidents that are made of work alone (I2), on a whole rig: what makes them, and what ends them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from seawall.kernel.error import Unavailable
from seawall.lab import load, probe, tune, volume
from seawall.lab.arm import revert
from seawall.lab.checker.ledger import read
from seawall.lab.record import LEDGER
from seawall.lab.rig import Rig, open_rig

from .test_rig_whole import ARMED, order

pytestmark = pytest.mark.slow

TRAFFIC = (
    {"kind": "events", "rate": 10, "type": "lab.ingest", "tenants": 2, "tenant": "customer", "bytes_max": 200},
    {"kind": "events", "rate": 5, "type": "lab.runbook", "bytes_max": 200},
)
SETTINGS = {"worker": {"inflight_max": 12}}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    options = {"api": True, "settings": SETTINGS}
    made = order(tmp_path_factory.mktemp("lab"), app="lanes.py", traffic=TRAFFIC, options=options)
    with open_rig(made, arm=ARMED, say=lambda text: None) as found:
        yield found


def until(met: Callable[[], bool], within_s: float = 30.0) -> None:
    latest = time.monotonic() + within_s
    while not met():
        assert time.monotonic() < latest, "not in time"
        time.sleep(0.1)


def test_lanes_are_seen_by_who_waits_in_them_and_the_api_is_asked(rig: Rig) -> None:
    until(lambda: {"begun.ingestion_p99_s", "begun.runbook_p99_s", "took.ingestion_mean_s"} <= rig.sample().keys())
    assert rig.sample()["api.ok_ratio"] == 1.0
    tenants = {str(one["tenant"]) for one in rig.platform.items("/v1/sources")}
    assert {"customer-1", "customer-2", "default"} <= tenants


def test_a_tenant_floods_and_is_named(rig: Rig) -> None:
    load.flood(rate=40, type="lab.ingest")
    until(lambda: rig.sample().get("begun.flood_rate", 0.0) > 5)
    said = load.top(by="tenant", first="flood")
    assert said.startswith("tenant flood has ") and ("top", said) in rig.moments()
    load.back("flood")
    assert not ARMED.reverts
    until(lambda: rig.sample().get("begun.flood_rate") == 0.0)


def test_ingestion_gets_slower_until_it_is_undone(rig: Rig) -> None:
    load.slower(times=5, over_s=0.1)
    until(lambda: rig.sample().get("took.ingestion_mean_s", 0.0) > 0.8)
    assert ARMED.reverts
    load.back("ingestion")
    until(lambda: rig.sample().get("took.ingestion_mean_s", 9.0) < 0.4)
    assert not ARMED.reverts


def test_a_queue_is_throttled_and_a_bound_is_raised_under_traffic(rig: Rig) -> None:
    assert load.throttle("ingestion", 5, raise_to=50, over_s=5).startswith("ingestion: 5/s")
    assert load.grow("journal", "pending_records_max", 30_000) == "journal.pending_records_max is 30000"
    acts = [text for kind, text in rig.moments() if kind == "act"]
    assert acts[-1] == "journal.pending_records_max is 30000 from now on"
    assert rig.ready()


def test_the_journal_is_full_until_its_volume_grows_and_takes_all_of_it_then(rig: Rig) -> None:
    before = (rig.folder / tune.FILE).read_text()
    assert "now there is none" in volume.confine(room_bytes=1)
    assert ARMED.reverts
    load.back("journal")
    assert not ARMED.reverts and (rig.folder / tune.FILE).read_text() == before
    until(lambda: probe.ok_share(seconds=1.0) == 1.0)
    assert rig.sample()["intake.bare_count"] == 0, "each refusal said when to try again"


def test_whoever_else_undoes_a_full_journal_needs_its_folder_alone(rig: Rig) -> None:
    volume.confine(room_bytes=1)
    [said] = ARMED.reverts.values()
    for _ in range(2):
        revert.undo(revert.parse(said))
    until(lambda: probe.ok_share(seconds=1.0) == 1.0)
    load.back("journal")


def test_a_flag_that_is_set_before_what_it_requires_is_there_is_said_to_be_held(rig: Rig) -> None:
    said = load.flag("geo")
    assert said.startswith("flag geo is set on, and is held at its safe value: ") and ("act", said) in rig.moments()
    assert ARMED.reverts
    load.back("geo")
    assert not ARMED.reverts
    geo = next(one for one in rig.platform.call("GET", "/v1/flags")["items"] if one["name"] == "geo")
    assert geo["value"] == "off"


def test_all_of_it_is_in_the_ledger_and_then_there_is_no_more(rig: Rig) -> None:
    assert rig.finish(60)["lost"] == 0
    assert len(read(rig.run / LEDGER).runs) >= 3
    with pytest.raises(Unavailable, match="it has ended"):
        load.flood(rate=1, type="lab.ingest")
    ARMED.reverts.clear()
