"""The router over partitions of brokers in memory: positions in the store's transaction, fresh before backlog."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from uuid import UUID

import pytest
from confluent_kafka import KafkaError

from seawall.journal import cluster
from seawall.journal.kafka import KafkaLog, Partitions, Topic, TopicWatch
from seawall.journal.kafka.client import client_of
from seawall.kernel.alert import Alerts
from seawall.kernel.event import Record, encode
from seawall.kernel.metric import Metrics
from seawall.testing.kafka import FETCH, MockKafka

from .rig import CLOCK, IDS, Rig, record, until

pytestmark = pytest.mark.parts  # the client library's own brokers, but half a minute and more


@dataclass
class Kafka:
    """A producer, and readers as each router process has them."""

    mock: MockKafka
    settings: cluster.Settings
    watch: TopicWatch
    log: KafkaLog
    alerts: Alerts
    metrics: Metrics
    facts: dict[str, object]  # what a look finds otherwise than the mock is

    def number(self, name: str) -> float:
        return sum(sample.value for sample in self.metrics.samples() if sample.name == name)

    async def append(self, count: int, **values: object) -> list[bytes]:
        """Records of many sources, so that every partition gets some; their ids."""
        return await self.put(*(record(id=IDS.next(), source_id=bytes([n % 16]) * 16, **values) for n in range(count)))

    async def put(self, *records: Record) -> list[bytes]:
        """Their ids, when Kafka has them."""
        heard: list[object] = []
        for each in records:
            self.log.submit(encode(each), heard.append)
        await until(lambda: len(heard) == len(records))
        return [each.id for each in records]

    @contextlib.asynccontextmanager
    async def partitions(self) -> AsyncIterator[Partitions]:
        client = client_of(self.settings, "router")
        async with Partitions(
            client, self.settings, self.watch, clock=CLOCK, alerts=self.alerts, metrics=self.metrics
        ) as found:
            yield found


@pytest.fixture
def mock() -> Iterator[MockKafka]:
    with MockKafka("seawall", partitions=3) as brokers:
        yield brokers


@pytest.fixture
async def kafka(mock: MockKafka) -> AsyncIterator[Kafka]:
    settings, metrics = cluster.Settings(bootstrap=mock.bootstrap), Metrics()

    async def look() -> Topic:
        return Topic(**mock.facts(**facts))

    facts: dict[str, object] = {}

    alerts = Alerts(metrics, CLOCK)
    watch = TopicWatch(look, settings, clock=CLOCK, alerts=alerts)
    await watch.look()
    async with KafkaLog(client_of(settings, "c1"), settings, watch, metrics=metrics) as log:
        yield Kafka(mock, settings, watch, log, alerts, metrics, facts)


async def test_every_record_of_every_partition_is_stored_once(rig: Rig, kafka: Kafka) -> None:
    await kafka.append(300)
    async with kafka.partitions() as partitions:
        rig.find = partitions.find  # type: ignore[method-assign]
        async with rig.router():
            await rig.arrived(300)
            await kafka.append(200)
            await rig.arrived(500)
    assert await rig.count("log_position") == 3
    # A restart goes on where the store says, and commits nothing to Kafka.
    await kafka.append(50)
    async with kafka.partitions() as partitions:
        rig.find = partitions.find  # type: ignore[method-assign]
        async with rig.router():
            await rig.arrived(550)
    assert await rig.count("event") == 550
    assert rig.number("seawall_router_reread_total") == 0


async def test_two_routers_fence_each_other_and_store_each_record_once(rig: Rig, kafka: Kafka) -> None:
    async with kafka.partitions() as one, kafka.partitions() as two:
        rig.find = one.find  # type: ignore[method-assign]
        async with rig.router():
            rig.find = two.find  # type: ignore[method-assign]
            async with rig.router():
                for _ in range(5):
                    await kafka.append(100)
                    await asyncio.sleep(0.05)
                await rig.arrived(500)
    assert await rig.count("event") == 500


async def test_records_that_kafka_deleted_before_they_were_read_are_told_as_damage_and_passed(
    rig: Rig, kafka: Kafka
) -> None:
    """The brokers of the mock keep the newest 5 MB of a partition: a short retention, a long outage of the store."""
    alone = {"source_id": b"\x05" * 16}
    await kafka.put(*(record(id=IDS.next(), **alone) for _ in range(20)))
    async with kafka.partitions() as partitions:
        rig.find = partitions.find  # type: ignore[method-assign]
        async with rig.router():
            await rig.arrived(20)
    large = await kafka.put(*(record(id=IDS.next(), body=b"x" * 900_000, **alone) for _ in range(12)))
    async with kafka.partitions() as partitions:
        rig.find = partitions.find  # type: ignore[method-assign]
        async with rig.router() as supervisor:
            await until(lambda: rig.count("event", f"id = '{large[-1].hex()}'"))
            # Of twelve, those that the brokers had deleted are gone, and nothing else is.
            stored = await rig.count("event") - 20
            assert 0 < stored < 12
            for id in large[-stored:]:
                assert await rig.count("event", f"id = '{id.hex()}'") == 1
            assert rig.number("seawall_router_damage_total") == 1
            assert rig.number("seawall_router_missing_segments_count") == 1
            said = "Kafka deleted records before they were read: 20 to"
            await until(lambda: any(said in loop.reason for loop in supervisor.health() if not loop.ready))
            more = await kafka.put(record(id=IDS.next(), **alone))
            await until(lambda: rig.count("event", f"id = '{more[0].hex()}'"))
    assert rig.number("seawall_router_reread_total") == 0


async def test_a_topic_made_anew_under_its_name_is_read_from_its_start_and_said(rig: Rig, kafka: Kafka) -> None:
    """Positions of the old one don't mean anything in it, though there are such offsets."""
    await kafka.append(30)
    async with kafka.partitions() as partitions:
        rig.find = partitions.find  # type: ignore[method-assign]
        async with rig.router() as supervisor:
            supervisor.add("feeds", partitions.watch)
            await rig.arrived(30)
            kafka.mock.id = b"n" * 16  # what a look finds from now on
            await kafka.watch.look()
            await until(lambda: rig.number("seawall_router_begun_anew_total") == 3)
            await kafka.append(10)
            await rig.arrived(40)
    assert await rig.count("event") == 40
    assert rig.number("seawall_router_reread_total") == 30, "read twice, and collapsed"


async def test_another_cluster_with_fewer_partitions_is_read_from_its_start_and_said(rig: Rig, kafka: Kafka) -> None:
    await kafka.append(30)
    async with kafka.partitions() as partitions:
        rig.find = partitions.find  # type: ignore[method-assign]
        async with rig.router() as supervisor:
            supervisor.add("feeds", partitions.watch)
            await rig.arrived(30)
            kafka.facts.update(cluster_id="another", id=b"n" * 16, partitions=2)
            await kafka.watch.look()
            await until(lambda: rig.number("seawall_router_reread_total") > 0)
            names = {alert.name for alert in kafka.alerts.active()}
            assert {"kafka-cluster-changed", "kafka-partitions-gone"} <= names
            for partition in range(2):
                where = f"log_id = '{stored(partition, cluster_id='another')}'"
                await until(lambda where=where: rig.count("log_position", where))
    assert await rig.count("event") == 30
    for partition in range(3):
        where = f"log_id = '{stored(partition)}'"
        assert await rig.count("log_position", where) == 1, "places in the old one are kept, should it come back"


def stored(partition: int, **facts: object) -> str:
    """What the store calls a partition."""
    return str(UUID(bytes=Topic(**MockKafka("seawall").facts(**facts)).log_id(partition)))


async def test_records_that_are_there_and_dont_come_are_told_the_lag_grows_and_they_come_when_they_can(
    rig: Rig, kafka: Kafka
) -> None:
    """A consumer that stands still says nothing; so it was ready, with a lag of zero, for minutes."""
    await kafka.append(30)
    async with kafka.partitions() as partitions:
        rig.find = partitions.find  # type: ignore[method-assign]
        async with rig.router() as supervisor:
            supervisor.add("lookout", partitions.look_out)
            await rig.arrived(30)
            kafka.mock.fail(FETCH, [KafkaError.UNKNOWN_LEADER_EPOCH] * 100_000)
            await kafka.append(10)
            reason = "Kafka doesn't hand them out"
            await until(lambda: any(reason in loop.reason for loop in supervisor.health() if not loop.ready))
            assert "kafka-reading-stuck" in {alert.name for alert in kafka.alerts.active()}
            lag_s = max(s.value for s in rig.metrics.samples() if s.name == "seawall_router_lag_seconds")
            assert lag_s > 5.0
            assert kafka.number("seawall_kafka_stuck_partitions_count") > 0
            assert kafka.number("seawall_kafka_consumers_renewed_total") > 0
            kafka.mock.heal(FETCH)
            await rig.arrived(40)
            await until(lambda: not kafka.alerts.active())
            assert kafka.number("seawall_kafka_stuck_partitions_count") == 0
            await until(lambda: all(loop.ready for loop in supervisor.health()))
    assert await rig.count("event") == 40


async def test_fresh_records_of_a_partition_go_before_its_backlog(rig: Rig, kafka: Kafka) -> None:
    long_ago = CLOCK.wall_us() - 60_000_000
    await kafka.append(600, received_us=long_ago)
    async with kafka.partitions() as partitions:
        rig.find = partitions.find  # type: ignore[method-assign]
        async with rig.router(backlog_rate=20, backlog_batch=5, batch_records=50):
            await until(lambda: rig.number("seawall_router_splits_total") >= 3)
            fresh = await kafka.append(30)
            for id in fresh:
                await until(lambda id=id: rig.count("event", f"id = '{id.hex()}'"))
            assert await rig.count("event") < 600, "the backlog is still being drained"
        async with rig.router(backlog_rate=10_000):
            await rig.arrived(630)
    assert await rig.count("event") == 630
