"""Countries of addresses: from a file that may change, break or hang at any moment, and never late."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stall import Stopwatch

pytest.importorskip("maxminddb")
pytest.importorskip("iptocc")

from seawall.cache.geo import Geo, _read
from seawall.cache.setting import Settings
from seawall.guard import Supervisor
from seawall.guard.panel import Panel
from seawall.guard.shed import ShedList
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import SystemClock
from seawall.kernel.event import headers_of
from seawall.kernel.metric import Metrics

from .mmdb import written
from .test_limiter import until

ADDRESSES = ["192.0.2.7", "198.51.100.1", "203.0.113.1", "10.0.0.1", "2001:db8::1", "local", ""]
FIRST = written(
    {
        "192.0.2.0/24": {"country": {"iso_code": "DE", "names": {"en": "Germany"}}},
        "198.51.100.0/25": {"country_code": "FR"},
        "203.0.113.0/24": {"country": {"iso_code": "not a code\0"}},
    }
)


@dataclass
class Rig:
    geo: Geo
    metrics: Metrics
    alerts: Alerts
    panel: Panel
    supervisor: Supervisor
    shed: ShedList


@contextlib.asynccontextmanager
async def running(geo: str) -> AsyncIterator[Rig]:
    metrics, panel, clock = Metrics(), Panel(), SystemClock()
    alerts = Alerts(metrics, clock)
    shed = ShedList(clock=clock, metrics=metrics, alerts=alerts)
    made = Geo(Settings(geo=geo), clock=clock, metrics=metrics, alerts=alerts, panel=panel, shed=shed)
    supervisor = Supervisor(metrics)
    made.register(supervisor)
    async with made, supervisor:
        yield Rig(made, metrics, alerts, panel, supervisor, shed)


def ready(rig: Rig) -> bool:
    return bool(rig.metrics.gauge("seawall_geo_ready_count", "").now())


async def test_what_a_file_says_is_told_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "countries.mmdb"
    file.write_bytes(FIRST)
    async with running(str(file)) as rig:
        await until(lambda: ready(rig))
        for _ in range(2):
            assert await rig.geo.countries(ADDRESSES) == {"192.0.2.7": "DE", "198.51.100.1": "FR"}


async def test_countries_that_are_shed_are_left_out_and_come_back(tmp_path: Path) -> None:
    file = tmp_path / "countries.mmdb"
    file.write_bytes(FIRST)
    async with running(str(file)) as rig:
        await until(lambda: ready(rig))
        rig.shed.force("countries", "off")
        assert await rig.geo.countries(ADDRESSES) == {}
        rig.shed.force("countries", "auto")
        assert await rig.geo.countries(ADDRESSES) == {"192.0.2.7": "DE", "198.51.100.1": "FR"}


async def test_a_file_that_comes_changes_or_breaks_needs_no_restart(tmp_path: Path) -> None:
    file = tmp_path / "countries.mmdb"
    async with running(str(file)) as rig:
        assert await rig.geo.countries(ADDRESSES) == {}
        await until(lambda: [a.name for a in rig.alerts.active()] == ["geo-file"])
        file.write_bytes(FIRST)
        await until(lambda: ready(rig) and not rig.alerts.active())
        assert (await rig.geo.countries(ADDRESSES))["192.0.2.7"] == "DE"
        # In place and half: a mapped file would end the process here.
        file.write_bytes(FIRST[:40])
        await until(lambda: bool(rig.alerts.active()))
        assert (await rig.geo.countries([*ADDRESSES, "192.0.2.8"]))["192.0.2.8"] == "DE"
        (tmp_path / "new").write_bytes(written({"192.0.2.0/24": {"country": "AT"}}))
        (tmp_path / "new").replace(file)
        await until(lambda: rig.metrics.counter("seawall_geo_reloads_total", "").value == 2)
        assert await rig.geo.countries(ADDRESSES) == {"192.0.2.7": "AT"}
        assert not rig.alerts.active()


async def test_a_file_that_no_reader_foresaw_is_told_and_the_last_good_one_stays_in_use(tmp_path: Path) -> None:
    file = tmp_path / "countries.mmdb"
    file.write_bytes(FIRST)
    async with running(str(file)) as rig:
        await until(lambda: ready(rig))
        # The reader takes the file's own names for those of its arguments: TypeError.
        file.write_bytes(FIRST.replace(b"build_epoch", b"built_epoch"))
        await until(lambda: [alert.name for alert in rig.alerts.active()] == ["geo-file"])
        assert await rig.geo.countries(ADDRESSES) == {"192.0.2.7": "DE", "198.51.100.1": "FR"}
        (loop,) = rig.supervisor.health()
        assert loop.restarts == 0 and "can't be read" in loop.reason
        file.write_bytes(FIRST)
        await until(lambda: not rig.alerts.active())


async def test_a_damaged_entry_is_an_event_without_a_country(tmp_path: Path) -> None:
    file = tmp_path / "countries.mmdb"
    # A map as a name in a map, which the reader can't put into its own: TypeError.
    file.write_bytes(FIRST.replace(b"\x47country", b"\xe0\x46countr", 1))
    async with running(str(file)) as rig:
        await until(lambda: ready(rig))
        assert await rig.geo.countries(["192.0.2.7", "198.51.100.1"]) == {"198.51.100.1": "FR"}


@given(places=st.lists(st.tuples(st.integers(0, len(FIRST) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_whatever_a_file_holds_it_is_refused_as_one_or_answers(places: list[tuple[int, int]]) -> None:
    data = bytearray(FIRST)
    for at, byte in places:
        data[at] = byte
    with TemporaryDirectory() as folder:
        file = Path(folder) / "countries.mmdb"
        file.write_bytes(data)
        try:
            read = _read(file, None)
        except ValueError:
            return
    assert read is not None
    for address in ADDRESSES:
        assert len(read[1](address)) in (0, 2)


async def test_data_that_hangs_costs_150_ms_a_few_times_and_then_nothing(tmp_path: Path) -> None:
    file = tmp_path / "countries.mmdb"
    file.write_bytes(FIRST)
    async with running(str(file)) as rig:
        await until(lambda: ready(rig))

        def hangs(address: str) -> str:
            time.sleep(0.5)
            return "XX"

        rig.geo._look_up = hangs
        slowest = 0.0
        for n in range(12):
            watch = Stopwatch()
            assert await rig.geo.countries([f"192.0.2.{n}"]) == {}
            slowest = max(slowest, watch.s)
        assert slowest < 0.25 and rig.panel.lines()[0].state == "open"
        watch = Stopwatch()
        assert await rig.geo.countries(["192.0.2.99"]) == {}
        assert watch.s < 0.02


async def test_the_default_data_needs_no_file() -> None:
    async with running("default") as rig:
        assert await rig.geo.countries(["8.8.8.8", *ADDRESSES[3:]]) == {"8.8.8.8": "US"}


async def test_an_event_gets_its_country_on_the_way_into_the_store() -> None:
    from seawall.kernel.event import Record
    from seawall.kernel.seam.journal import Position
    from seawall.router.batch import Batch, Item
    from seawall.router.country import with_countries

    class Known:
        async def countries(self, addresses: object) -> dict[str, str]:
            return {"192.0.2.7": "DE"}

    def item(peer: str, headers: bytes) -> Item:
        record = Record(
            id=b"i" * 16, source_id=b"s" * 16, kind="none", tenant="t", source="s", received_us=1, peer=peer,
            headers=headers,
        )  # fmt: skip
        return Item(Position(b"l" * 16, 0, 10), record, "t")

    items = [item("192.0.2.7", b"Host\0h"), item("192.0.2.7", b""), item("10.0.0.1", b"Host\0h")]
    batch = await with_countries(Batch(items), Known())
    assert [headers_of(i.record.headers) for i in batch.items] == [
        [("Host", "h"), ("seawall-country", "DE")],
        [("seawall-country", "DE")],
        [("Host", "h")],
    ]
    assert (await with_countries(batch, None)) is batch


async def test_only_those_tenants_and_sources_are_looked_up_that_it_is_on_for() -> None:
    from seawall.kernel.event import Record
    from seawall.kernel.seam.journal import Position
    from seawall.router.batch import Batch, Item
    from seawall.router.country import with_countries

    asked: set[str] = set()

    class Known:
        async def countries(self, addresses: set[str]) -> dict[str, str]:
            asked.update(addresses)
            return dict.fromkeys(addresses, "DE")

    def item(tenant: str, source: str, peer: str) -> Item:
        record = Record(
            id=b"i" * 16, source_id=b"s" * 16, kind="none", tenant=tenant, source=source, received_us=1, peer=peer
        )
        return Item(Position(b"l" * 16, 0, 10), record, "t")

    def on(*, tenant: str = "", source: str = "") -> bool:
        return tenant != "acme" and source != "gh"

    items = [item("acme", "a", "192.0.2.1"), item("t", "gh", "192.0.2.2"), item("t", "a", "192.0.2.3")]
    items.append(item("acme", "a", "192.0.2.3"))  # an address that somebody else may be looked up by
    batch = await with_countries(Batch(items), Known(), on)
    assert asked == {"192.0.2.3"}
    assert [headers_of(i.record.headers) for i in batch.items] == [[], [], [("seawall-country", "DE")], []]
