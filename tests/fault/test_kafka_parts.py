"""The journal of a cluster on real brokers: one controller and three of them, killed and stopped. Marked ``parts``."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka_feeder import Feeder, verdict

from seawall.journal import cluster
from seawall.journal.kafka.client import client_of
from seawall.journal.kafka.topic import Admin
from seawall.journal.topic import Topic
from seawall.kernel.error import Unavailable
from seawall.lab.part.kafka import Kafka
from seawall.lab.part.node import DEFAULT

pytestmark = pytest.mark.parts
FETCHED = Path(__file__).resolve().parents[2] / DEFAULT / "fetched"
PARTITIONS = 3
LARGE = {"max.message.bytes": "12582912", "retention.bytes": "-1"}


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    with Kafka(tmp_path_factory.mktemp("kafka") / "kafka3", brokers=3, fetched=FETCHED) as part:
        yield part


def look(part: Kafka, topic: str) -> Topic:
    settings = cluster.Settings(bootstrap=part.bootstrap, topic=topic)
    return asyncio.run(Admin(client_of(settings, "test"), settings).look())


def test_a_topic_is_seen_as_it_is(brokers: Kafka) -> None:
    settings = cluster.Settings(bootstrap=brokers.bootstrap)
    brokers.make_topic("good", partitions=PARTITIONS, settings={**LARGE, "min.insync.replicas": "2"})
    good = look(brokers, "good")
    assert good.replicated and len(good.id) == 16 and good.cluster_id and not good.problems(settings)
    brokers.make_topic(
        "bad", replication=1,
        settings={"cleanup.policy": "compact", "retention.ms": "1000", "retention.bytes": "1000000"},
    )  # fmt: skip
    said = " ".join(look(brokers, "bad").problems(settings))
    for word in ("replicas 1", "cleanup.policy", "retention.ms", "retention.bytes", "max.message.bytes"):
        assert word in said
    with pytest.raises(Unavailable):
        look(brokers, "missing")


def test_two_of_three_brokers_gone_and_the_collector_killed_meanwhile(brokers: Kafka, tmp_path: Path) -> None:
    brokers.make_topic("seawall", partitions=PARTITIONS, settings={**LARGE, "min.insync.replicas": "2"})
    feeder = Feeder(tmp_path, brokers.bootstrap)
    feeder.start()
    feeder.goes_on("replicated", 200, within_s=60)
    lost = ("broker2", "broker3")
    for name in lost:
        brokers.kill(name)
    feeder.goes_on("fsync", 300, within_s=30)
    feeder.end(signal.SIGKILL)
    feeder.start()
    feeder.goes_on("fsync", 200, within_s=30)
    for name in lost:
        brokers.start(name)
    feeder.goes_on("replicated", 200, within_s=120)
    found = verdict(feeder, brokers.direct, "seawall", PARTITIONS)
    assert feeder.end(signal.SIGTERM) == 0
    assert found["lost"] == found["two_ids"] == found["invented"] == 0, found
    assert set(feeder.kinds()) == {"replicated", "fsync"}, "nobody was refused"
