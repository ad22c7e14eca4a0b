"""The journal of a cluster on real brokers: one controller and three of them, killed and stopped. Marked ``parts``."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka_feeder import Feeder, verdict

from seawall.journal import cluster
from seawall.journal.kafka.client import client_of
from seawall.journal.kafka.topic import Admin
from seawall.journal.topic import Topic
from seawall.kernel.error import Unavailable
from seawall.lab import ledger
from seawall.lab.part.kafka import Kafka
from seawall.lab.part.node import DEFAULT
from seawall.lab.platform import Platform
from seawall.lab.tree import Tree
from seawall.lab.verify import verify
from seawall.testing.postgres import PostgresServer

pytestmark = pytest.mark.parts
FETCHED = Path(__file__).resolve().parents[2] / DEFAULT / "fetched"
APP = Path(__file__).resolve().parents[2] / "examples" / "demo.py"
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


def test_the_whole_platform_over_an_outage_of_kafka_in_which_its_collector_is_killed(
    brokers: Kafka, server: PostgresServer, tmp_path: Path
) -> None:
    """Every answer is 2xx, but for connections that the kill cut, and every accepted event was run."""
    brokers.make_topic("platform", partitions=PARTITIONS, settings={**LARGE, "min.insync.replicas": "2"})
    dsn, config = tmp_path / "dsn", tmp_path / "seawall.toml"
    dsn.write_text(server.dsn())
    dsn.chmod(0o600)
    config.write_text(f'[kafka]\nbootstrap = "{brokers.bootstrap}"\ntopic = "platform"\n')
    options = ("--dsn-file", str(dsn), "--config", str(config), "--profile", "cluster")
    with Tree(tmp_path / "data", app=APP, log=tmp_path / "up.log", options=options) as tree:
        tree.start()
        tree.wait_ready(90)
        with _traffic(tree, tmp_path / "ledger"):
            for name in ("broker2", "broker3"):
                brokers.kill(name)
            time.sleep(4)
            old = tree.kill("collector")
            tree.wait_replaced("collector", old, 30)
            time.sleep(2)
            for name in ("broker2", "broker3"):
                brokers.start(name)
            time.sleep(10)
        with Platform(tree.place) as platform:
            found = verify(
                platform, ledger.read(tmp_path / "ledger"), timeout_s=120, workflows=("weigh",), must_succeed=True
            )
        assert found.holds, f"{found.counts()} {found.examples}\n{tree.log_tail(40)}"
        assert found.accepted > 200
        tree.stop()
        report = next(
            line for line in reversed((tmp_path / "up.log").read_text().splitlines()) if "exit report" in line
        )
        assert re.search(r"\breplicated\W+[1-9]", report) and re.search(r"\blost\W+0", report), report


@contextlib.contextmanager
def _traffic(tree: Tree, path: Path) -> Iterator[None]:
    command = [
        sys.executable, "-m", "seawall", "lab", "traffic", "--rate", "50", "--seconds", "3000", "--seed", "7",
        "--ledger", str(path), "--data", str(tree.data), "--json",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE) as sender:
        try:
            time.sleep(5)
            yield
        finally:
            sender.terminate()
            sender.communicate(timeout=60)
