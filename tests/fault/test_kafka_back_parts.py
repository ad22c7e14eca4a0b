"""Partitions of real brokers that go back, or begin anew, while a router reads them: nothing that Kafka holds in the
end is left unrouted, and it is told. Marked ``parts``."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from router.rig import CLOCK, IDS, Rig, opened, record, until
from seawall.journal import cluster
from seawall.journal.kafka import Partitions, TopicWatch
from seawall.journal.kafka.client import client_of
from seawall.journal.kafka.topic import Admin
from seawall.kernel.alert import Alerts
from seawall.kernel.error import Unavailable
from seawall.kernel.event import decode, encode
from seawall.lab.part.kafka import CONTROLLER, Kafka
from seawall.lab.part.node import DEFAULT
from seawall.testing.postgres import Database

pytestmark = pytest.mark.parts
FETCHED = Path(__file__).resolve().parents[2] / DEFAULT / "fetched"
WENT_BACK = "kafka-log-went-back"
WITHIN_S = 90.0


@pytest.fixture(scope="module")
def cluster_of_three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    with Kafka(tmp_path_factory.mktemp("kafka") / "kafka3", brokers=3, fetched=FETCHED) as part:
        yield part


@pytest.fixture
def brokers(cluster_of_three: Kafka) -> Kafka:
    """All of them up, however the last test ended."""
    part = cluster_of_three
    for name in (CONTROLLER, *part.brokers):
        if part.pid(name) is None:
            part.start(name)
    part.settle()
    return part


@pytest.fixture
async def rig(database: Database) -> AsyncIterator[Rig]:
    async with opened(database) as rig:
        yield rig


class Line:
    """One topic, who writes to it, and routers that read it."""

    def __init__(self, part: Kafka, topic: str, rig: Rig) -> None:
        self.part, self.topic, self.rig = part, topic, rig
        self.alerts = Alerts(rig.metrics, CLOCK)

    @contextlib.asynccontextmanager
    async def router(self, **settings: float) -> AsyncIterator[None]:
        """With the loops that the role has."""
        where = cluster.Settings(bootstrap=self.part.bootstrap, topic=self.topic)
        client, metrics = client_of(where, "router"), self.rig.metrics
        watch = TopicWatch(Admin(client, where).look, where, clock=CLOCK, alerts=self.alerts)
        partitions = Partitions(client, where, watch, clock=CLOCK, alerts=self.alerts, metrics=metrics)
        async with partitions:
            self.rig.find = partitions.find  # type: ignore[method-assign]
            async with self.rig.router(alerts=self.alerts, **settings) as supervisor:
                supervisor.add("topic", watch.run)
                supervisor.add("feeds", partitions.watch)
                supervisor.add("lookout", partitions.look_out)
                yield

    async def write(self, count: int, *, age_s: int = 0) -> None:
        """So many events, each acknowledged, by a client that has never seen the cluster before."""
        await asyncio.to_thread(self._write, count, CLOCK.wall_us() - age_s * 1_000_000)

    def _write(self, count: int, received_us: int) -> None:
        failed: list[object] = []
        producer = Producer({"bootstrap.servers": self.part.bootstrap, "acks": "all", "log_level": 0})
        for _ in range(count):
            producer.produce(
                self.topic, encode(record(id=IDS.next(), received_us=received_us)), partition=0,
                on_delivery=lambda error, _: failed.append(error) if error is not None else None,
            )  # fmt: skip
        assert producer.flush(60) == 0 and not failed, failed

    def kept(self) -> set[str]:
        """Ids of all that the partition holds."""
        place = TopicPartition(self.topic, 0, 0)
        consumer = Consumer({
            "bootstrap.servers": self.part.bootstrap, "group.id": "check", "enable.auto.commit": False, "log_level": 0,
            "auto.offset.reset": "earliest",
        })  # fmt: skip
        try:
            _, end = consumer.get_watermark_offsets(place, timeout=30)
            consumer.assign([place])
            found: set[str] = set()
            next = 0
            while next < end:
                for message in consumer.consume(1000, 1.0):
                    if message.error() is None:
                        found.add(decode(message.value() or b"").id.hex())
                        next = (message.offset() or 0) + 1
            return found
        finally:
            consumer.close()

    async def all_routed(self) -> None:
        """Until everything that Kafka has is in the store."""
        kept = await asyncio.to_thread(self.kept)
        ids = ", ".join(f"'{id}'" for id in kept)

        async def there() -> bool:
            return await self.rig.count("event", f"id in ({ids})") == len(kept)

        await until(there, timeout_s=WITHIN_S)

    def told(self) -> set[str]:
        return {alert.name for alert in self.alerts.active()}

    def make(self, *, unclean: bool = False) -> None:
        settings = {"min.insync.replicas": "1", "retention.bytes": "-1"}
        self.part.make_topic(
            self.topic, settings={**settings, "unclean.leader.election.enable": str(unclean).lower()}
        )  # fmt: skip

    async def without_one(self) -> str:
        """A broker that doesn't lead is killed, and doesn't count any more."""
        leader = self.part.leader(self.topic)
        behind = next(name for name in self.part.brokers if name != leader)
        self.part.kill(behind)
        await until(lambda: behind not in self._in_sync(), timeout_s=60)
        return behind

    async def led_by(self, behind: str) -> None:
        """That broker leads now, with what it has; the others follow it."""
        ahead = [name for name in self.part.brokers if name != behind]
        for name in ahead:
            self.part.kill(name)
        await asyncio.to_thread(self.part.start, behind)
        await until(lambda: self._leader() == behind, timeout_s=60)
        for name in ahead:
            await asyncio.to_thread(self.part.start, name)
        await asyncio.to_thread(self.part.settle)

    def _in_sync(self) -> frozenset[str]:
        with contextlib.suppress(Unavailable):  # asked of those that are just restarting
            return self.part.in_sync(self.topic)
        return frozenset(self.part.brokers)

    def _leader(self) -> str:
        with contextlib.suppress(Unavailable):
            return self.part.leader(self.topic)
        return ""


async def test_events_written_over_lost_ones_after_an_unclean_election_are_routed(
    brokers: Kafka, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """361 of them were passed over: the log had grown past the router's place before anybody asked."""
    monkeypatch.setattr("seawall.router.range.NEAR_RECORDS", 100)
    line = Line(brokers, "unclean", rig)
    line.make(unclean=True)
    async with line.router():
        await line.write(200)
        behind = await line.without_one()
        await line.write(300)
        await line.all_routed()
        await line.led_by(behind)
        await line.write(600)
        await line.all_routed()
        assert WENT_BACK in line.told()
        assert rig.number("seawall_router_went_back_total") == 1
        assert rig.number("seawall_router_missing_segments_count") == 0
        await line.write(50)
        await line.all_routed()
        assert await rig.database.fetchval("select max(part) from log_position") >= 2, "what lay near came first"
    assert await rig.count("event") == 200 + 300 + 600 + 50, "what Kafka lost had been routed"


async def written_over(line: Line, behind: str) -> None:
    """While the router is away, one that lacks the newest records leads, and more come than were lost: it notices."""
    await line.led_by(behind)
    await line.write(600)
    async with line.router():
        await line.all_routed()
        assert WENT_BACK in line.told()


async def test_a_router_that_was_away_meanwhile_finds_out_as_it_starts(brokers: Kafka, rig: Rig) -> None:
    line = Line(brokers, "away", rig)
    line.make(unclean=True)
    async with line.router():
        await line.write(200)
        behind = await line.without_one()
        await line.write(300)
        await line.all_routed()
    await written_over(line, behind)
    assert await rig.count("event") == 200 + 300 + 600


async def test_a_router_that_was_away_finds_out_also_where_a_backlog_had_ended(brokers: Kafka, rig: Rig) -> None:
    """Where fresh events were to begin nothing had been read, so nothing told that place from another one; and none had
    come since."""
    line = Line(brokers, "ended", rig)
    line.make(unclean=True)
    await line.write(200, age_s=60)
    behind = await line.without_one()
    await line.write(300, age_s=60)
    async with line.router(batch_records=50):
        await line.all_routed()
        assert rig.number("seawall_router_splits_total") == 1
        await until(lambda: rig.count("log_position", "octet_length(salt) = 36"))
    await written_over(line, behind)
    assert await rig.count("event") == 200 + 300 + 600


@pytest.mark.parametrize("metadata", [False, True], ids=["brokers", "controller_too"])
async def test_brokers_that_come_back_with_older_disks_cost_nothing_that_was_accepted_since(
    brokers: Kafka, rig: Rig, tmp_path: Path, *, metadata: bool
) -> None:
    """With the controller's disk among them, epochs of leaders are given twice."""
    line = Line(brokers, f"older-{metadata}", rig)
    line.make()
    nodes = brokers.nodes if metadata else brokers.brokers
    async with line.router():
        await line.write(200)
        await line.all_routed()
        for name in nodes:
            brokers.kill(name)
        for name in nodes:
            shutil.copytree(brokers.folder / f"data-{name}", tmp_path / name)
        await asyncio.to_thread(brokers.up)
        await line.write(300)
        await line.all_routed()
        for name in nodes:
            brokers.kill(name)
        for name in nodes:
            shutil.rmtree(brokers.folder / f"data-{name}")
            shutil.copytree(tmp_path / name, brokers.folder / f"data-{name}")
        await asyncio.to_thread(brokers.up)
        await line.write(600)
        await line.all_routed()
        assert WENT_BACK in line.told()
    assert await rig.count("event") == 200 + 300 + 600


async def test_a_topic_made_anew_after_its_leaders_changed_is_read_at_once(brokers: Kafka, rig: Rig) -> None:
    """The client takes the new topic's leaders for outdated: it read nothing, without an error, until it was killed."""
    line = Line(brokers, "anew", rig)
    line.make()
    async with line.router():
        await line.write(100)
        for name in brokers.brokers:
            brokers.kill(name)
            await until(lambda name=name: line._leader() not in ("", name), timeout_s=60)  # type: ignore[misc]
            await asyncio.to_thread(brokers.start, name)
            await asyncio.to_thread(brokers.settle)
        await line.all_routed()
        admin = AdminClient({"bootstrap.servers": brokers.bootstrap, "log_level": 0})
        admin.delete_topics([line.topic])[line.topic].result(20)
        await until(lambda: not line._leader(), timeout_s=20)
        line.make()
        await line.write(400)
        await line.all_routed()
        assert "log-read-anew" in line.told() and WENT_BACK not in line.told()
        assert rig.number("seawall_kafka_consumers_renewed_total") >= 2
        assert rig.number("seawall_router_missing_segments_count") == 0
    assert await rig.count("event") == 100 + 400
