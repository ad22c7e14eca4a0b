"""What is spooled is on its way to Kafka, or says why it isn't: a slow disk, a broken one, records that are refused."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from journal.desk import SMALL, segments, until
from journal.kafka_rig import record
from seawall.guard.breaker import Breaker
from seawall.guard.panel import Panel
from seawall.guard.spell import Spells
from seawall.guard.supervisor import Supervisor
from seawall.journal import LocalFilesystem, Log
from seawall.journal.cluster import Settings
from seawall.journal.kafka.client import client_of
from seawall.journal.spool import alarm, leftover
from seawall.journal.spool.forward import Forwarder, Source
from seawall.journal.spool.joint import Joint, Means
from seawall.journal.spool.leftover import Leftovers
from seawall.journal.spool.spool import LIMITS
from seawall.journal.topic import Topic
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import SystemClock
from seawall.kernel.error import Rejected, SeawallError, Unavailable
from seawall.kernel.event import decode
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.journal import Done, Outcome, Position
from seawall.testing import FaultyFilesystem

KAFKA = b"k" * 16
CLOCK = SystemClock()


@dataclass
class Kafka:
    """Takes all at once, unless it refuses."""

    refusal: SeawallError | None = None
    fault: SeawallError | None = None
    taken: list[bytes] = field(default_factory=list)

    def submit(self, payload: bytes, done: Done) -> None:
        if self.refusal is not None:
            raise self.refusal
        if self.fault is None:
            self.taken.append(payload)
        outcome = self.fault or Position(KAFKA, 1, len(self.taken), b"", replicated=True)
        asyncio.get_running_loop().call_soon(done, outcome)


@dataclass
class Desk:
    """A spool and what forwards it."""

    log: Log
    disk: FaultyFilesystem
    kafka: Kafka
    metrics: Metrics
    alerts: Alerts
    breaker: Breaker
    parked: list[bytes] = field(default_factory=list)
    park_s: float = 0.0
    rate: float | None = None

    async def keep(self, count: int) -> list[bytes]:
        payloads = [record(b"%d" % n) for n in range(count)]
        heard: list[Outcome] = []
        for payload in payloads:
            self.log.submit(payload, heard.append)
        await until(lambda: len(heard) == count)
        return payloads

    def park(self, payload: bytes, why: Rejected, done: Done) -> None:
        def kept() -> None:
            self.parked.append(payload)
            done(Position(b"p" * 16, 1, len(self.parked)))

        asyncio.get_running_loop().call_later(self.park_s, kept)

    def forwarder(self, source: Source) -> Forwarder:
        return Forwarder(
            source, self.kafka, self.breaker, Settings(), park=self.park, filesystem=self.disk, clock=CLOCK,
            metrics=self.metrics, spells=Spells(self.alerts, CLOCK), rate=lambda: self.rate,
        )  # fmt: skip

    @contextlib.asynccontextmanager
    async def forwarding(self) -> AsyncIterator[tuple[Forwarder, Supervisor]]:
        supervisor = Supervisor(self.metrics)
        async with self.forwarder(self.log) as forwarder:
            supervisor.add("forward", forwarder.run)
            async with supervisor:
                yield forwarder, supervisor

    @contextlib.contextmanager
    def hanging(self, call: str) -> Iterator[None]:
        """Once the forwarder was entered, which reads too."""
        self.disk.hang(call)
        try:
            yield
        finally:
            self.disk.release()

    def number(self, name: str) -> float:
        return sum(sample.value for sample in self.metrics.samples() if sample.name == name)

    def alerted(self) -> set[str]:
        return {alert.name for alert in self.alerts.active()}


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    disk, metrics = FaultyFilesystem(LocalFilesystem()), Metrics()
    alerts, breaker = Alerts(metrics, CLOCK), Breaker("kafka", LIMITS, clock=CLOCK, rng=random.Random(1))
    async with Log(tmp_path / "spool" / "c1", SMALL, metrics=metrics, on_failure=pytest.fail, alerts=alerts) as log:
        yield Desk(log, disk, Kafka(), metrics, alerts, breaker)


async def test_a_spool_goes_no_faster_than_the_governor_says(desk: Desk) -> None:
    desk.rate = 40.0
    payloads = await desk.keep(200)
    began_at = CLOCK.monotonic()
    async with desk.forwarding():
        await until(lambda: len(desk.kafka.taken) >= 60)
        assert len(desk.kafka.taken) <= 40 * (CLOCK.monotonic() - began_at + 1) + 40
        desk.rate = None
        await until(lambda: desk.kafka.taken == payloads)


async def test_a_disk_that_hangs_is_waited_for_by_one_thread_and_named(desk: Desk) -> None:
    """The loop was begun again every 3 s, and each time took one more of the threads that look after Kafka."""
    async with desk.forwarding() as (forwarder, supervisor):
        with desk.hanging("read_at"):
            payloads = await desk.keep(5)
            await until(desk.disk.hung.is_set)
            await asyncio.sleep(3.8)  # longer than a loop may be silent
            (health,) = supervisor.health()
            assert health.restarts == 0
            assert "no answer from the disk" in health.reason and forwarder.unable
        await until(lambda: desk.kafka.taken == payloads)
        await until(lambda: supervisor.health()[0].ready)
        assert not forwarder.unable


async def test_leaving_waits_for_no_disk_that_hangs(desk: Desk) -> None:
    async with asyncio.timeout(4):
        with contextlib.ExitStack() as stack:
            async with desk.forwarding():
                stack.enter_context(desk.hanging("read_at"))
                await desk.keep(5)
                await until(desk.disk.hung.is_set)


async def test_refused_records_of_a_batch_are_parked_together_and_once(desk: Desk) -> None:
    """One after the other took longer than a loop may be silent: it was begun again, and parked them for ever."""
    payloads = await desk.keep(Settings().forward_batch)
    desk.park_s, desk.kafka.fault = 0.05, Rejected(413, "refused by Kafka", "too large")
    async with desk.forwarding() as (forwarder, supervisor):
        await until(lambda: not forwarder.waits)
        assert supervisor.health()[0].restarts == 0
    assert desk.parked == payloads


async def test_a_spool_that_cant_be_read_says_so_until_it_can(desk: Desk) -> None:
    async with desk.forwarding() as (forwarder, supervisor):
        desk.disk.fail("names", errno.EIO)
        payloads = await desk.keep(5)
        await until(lambda: bool(forwarder.unable))
        assert "forwarding-stands" in desk.alerted()
        await until(lambda: "can't be read" in supervisor.health()[0].reason)
        desk.disk.heal()
        await until(lambda: desk.kafka.taken == payloads and not forwarder.unable)


async def test_a_disk_that_is_away_for_a_moment_costs_no_record(desk: Desk) -> None:
    """Its segment's header couldn't be read then: all of the segment was passed over as damaged, and deleted."""
    async with desk.forwarding() as (forwarder, _):
        desk.disk.fail("read_at", errno.EIO)
        payloads = await desk.keep(5)
        await until(lambda: bool(forwarder.unable))
        assert "journal-damaged" not in desk.alerted()
        desk.disk.heal()
        await until(lambda: desk.kafka.taken == payloads)


async def test_the_age_of_what_waits_is_known_though_kafka_was_never_there(desk: Desk) -> None:
    """After a restart in mid-outage it was zero until Kafka came back."""
    await desk.keep(3)
    desk.kafka.refusal = Unavailable("Kafka", "its topic wasn't found yet")
    async with desk.forwarding():
        await until(lambda: desk.number("seawall_journal_forward_lag_seconds") > 0)


async def test_damaged_bytes_of_a_spool_are_kept_when_their_segment_is_deleted(desk: Desk) -> None:
    for _ in range(3):
        await desk.keep(60)  # several segments
    first = segments(desk.log.folder)[0]
    with first.open("r+b") as file:
        file.seek(4096 + 40)
        file.write(b"\xff\xff")
    async with desk.forwarding() as (forwarder, _):
        await until(lambda: not forwarder.waits)
        await until(lambda: not first.exists())
    assert len(desk.kafka.taken) == 179
    assert [path.name for path in desk.log.folder.glob("*.bad")] == [f"{first.stem}.4096.bad"]


class BreaksOne(FaultyFilesystem):
    """Its folder ``a`` can't be listed once it was opened."""

    opened = False

    def names(self, path: Path) -> list[str]:
        if self.opened and path.name == "a":
            raise OSError(errno.EIO, "broken")
        return super().names(path)


async def test_a_left_log_that_cant_be_read_keeps_no_other_waiting(desk: Desk) -> None:
    spools, disk = desk.log.folder.parent, BreaksOne(LocalFilesystem())
    for name in ("a", "b"):
        heard: list[Outcome] = []
        async with Log(spools / name, SMALL, metrics=Metrics(), on_failure=pytest.fail) as log:
            log.submit(record(name.encode()), heard.append)
        assert len(heard) == 1

    class Breaking(Forwarder):
        async def __aenter__(self) -> Forwarder:
            entered = await super().__aenter__()
            disk.opened = True
            return entered

    def forwarder(source: Source) -> Forwarder:
        return Breaking(
            source, desk.kafka, desk.breaker, Settings(), park=desk.park, filesystem=disk, clock=CLOCK,
            metrics=desk.metrics, spells=Spells(desk.alerts, CLOCK),
        )  # fmt: skip

    leftovers = Leftovers(spools, frozenset(("c1",)), forwarder, filesystem=disk, clock=CLOCK)
    supervisor = Supervisor(desk.metrics)
    supervisor.add("leftover", leftovers.run)
    async with supervisor:
        await until(lambda: len(desk.kafka.taken) == 1)
    assert decode(desk.kafka.taken[0]).body == b"b"


async def test_an_alert_of_a_left_log_ends_when_it_can_be_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again by another forwarder, which knew nothing of the alert: that stood until the next start."""
    monkeypatch.setattr(alarm, "TROUBLE_S", 0.2)
    monkeypatch.setattr(leftover, "AGAIN_S", 0.05)
    monkeypatch.setattr(leftover, "PAUSE_S", 0.05)
    metrics, disk, heard = Metrics(), BreaksOne(LocalFilesystem()), list[Outcome]()
    alerts, settings, breaks = Alerts(metrics, CLOCK), Settings(bootstrap="127.0.0.1:1"), True
    async with Log(tmp_path / "spool" / "a", SMALL, metrics=Metrics(), on_failure=pytest.fail) as log:
        log.submit(record(b"left"), heard.append)

    class Breaking(Forwarder):
        async def __aenter__(self) -> Forwarder:
            entered = await super().__aenter__()
            disk.opened = breaks and self.limit.log_id not in (joint.local.log_id, joint.parked.log_id)
            return entered

        async def __aexit__(self, *error: object) -> None:
            disk.opened = False
            await super().__aexit__(*error)

    async def look() -> Topic:
        raise Unavailable("Kafka", "nobody is there")

    monkeypatch.setattr("seawall.journal.spool.joint.Forwarder", Breaking)
    means = Means(
        client=client_of(settings, "test"), look=look, settings=settings, local=SMALL, folder=tmp_path / "spool" / "c1",
        on_failure=pytest.fail, filesystem=disk, clock=CLOCK, metrics=metrics, alerts=alerts, panel=Panel(),
        rng=random.Random(1),
    )  # fmt: skip
    joint = Joint(means)
    async with joint:
        supervisor = Supervisor(metrics)
        supervisor.add("leftover", joint.leftovers.run)
        async with supervisor:
            await until(lambda: any(alert.name == "forwarding-stands" for alert in alerts.active()))
            breaks = False
            await until(lambda: not alerts.active())


async def test_a_left_log_whose_recovery_takes_long_is_forwarded(desk: Desk) -> None:
    """A large segment took longer than a loop may be silent: it was begun again and again, and nothing forwarded."""
    spools, heard = desk.log.folder.parent, list[Outcome]()
    async with Log(spools / "left", SMALL, metrics=Metrics(), on_failure=pytest.fail) as log:
        log.submit(record(b"left"), heard.append)
    leftovers = Leftovers(spools, frozenset(("c1",)), desk.forwarder, filesystem=desk.disk, clock=CLOCK)
    supervisor = Supervisor(desk.metrics)
    supervisor.add("leftover", leftovers.run)
    with desk.hanging("sync_data"):
        async with supervisor:
            await until(desk.disk.hung.is_set)
            await asyncio.sleep(3.8)  # longer than a loop may be silent
            assert supervisor.health()[0].restarts == 0
            desk.disk.release()
            await until(lambda: len(desk.kafka.taken) == 1)
