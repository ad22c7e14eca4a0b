"""A look at the topic: what it needs of this machine, and of the brokers."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from kafka_rig import opened_at, record, replicated

from journal.test_kafka_reader import topic
from seawall.guard.supervisor import Supervisor
from seawall.journal.cluster import Settings
from seawall.journal.kafka.client import client_of
from seawall.journal.kafka.topic import CONFIG, UNKNOWN_S, Admin, TopicWatch
from seawall.journal.spool import joint
from seawall.journal.topic import Topic
from seawall.kernel.alert import Alerts
from seawall.kernel.error import Unavailable
from seawall.kernel.metric import Metrics
from seawall.testing import ManualClock

SETTINGS = Settings(bootstrap="127.0.0.1:1")


async def test_a_look_needs_none_of_the_threads_that_a_hung_disk_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds without one, and every event had to go to that disk, though Kafka was well: 503."""
    admin, released = Admin(client_of(SETTINGS, "test"), SETTINGS), threading.Event()
    monkeypatch.setattr(admin, "_ask", lambda timeout_s: topic())
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
    hung = [asyncio.ensure_future(asyncio.to_thread(released.wait)) for _ in range(3)]
    try:
        async with asyncio.timeout(20):
            assert await admin.look() == topic()
    finally:
        released.set()
        await asyncio.gather(*hung)


async def test_a_start_in_an_outage_is_told_within_seconds_and_its_end_too() -> None:
    """Nothing is sent to what isn't known, so no breaker opens: a collector that was restarted in an outage said for as
    long as a first look took, and longer, that nothing is wrong."""
    clock, metrics, answer = ManualClock(), Metrics(), asyncio.Event()
    alerts = Alerts(metrics, clock)

    async def look() -> Topic:
        await answer.wait()
        return topic()

    watch, supervisor = TopicWatch(look, SETTINGS, clock=clock, alerts=alerts), Supervisor(metrics)
    supervisor.add("topic", watch.run)
    async with asyncio.timeout(20), supervisor:
        await asyncio.sleep(0)
        clock.advance(UNKNOWN_S - 0.1)
        assert not alerts.active()
        clock.advance(0.2)
        while not alerts.active():
            await asyncio.sleep(0.05)
        [alert] = alerts.active()
        assert alert.name == "kafka-unknown" and alert.unaffected == "accepting events"
        answer.set()
        while alerts.active():
            await asyncio.sleep(0.05)


async def test_a_restart_in_an_outage_waits_for_its_spool_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Senders waited at the door for a second, for a look of which nothing would come."""

    async def away() -> Topic:
        raise Unavailable("Kafka", "nobody is there")

    async def silent() -> Topic:
        await asyncio.Event().wait()
        raise AssertionError

    async with opened_at(SETTINGS, away, tmp_path) as desk:
        assert not desk.joint.topic.answers
        assert replicated(await desk.send(record(b"spooled"))) == [False]
    monkeypatch.setattr(joint, "FIRST_LOOK_S", 60.0)
    async with asyncio.timeout(20), opened_at(SETTINGS, silent, tmp_path) as desk:
        assert replicated(await desk.send(record(b"fresh"))) == [False]
        assert desk.joint.forwarder.waits


async def test_the_newest_look_says_whether_the_cluster_answers() -> None:
    clock, there = ManualClock(), [True]

    async def look() -> Topic:
        if not there[0]:
            raise Unavailable("Kafka", "nobody is there")
        return topic()

    watch = TopicWatch(look, SETTINGS, clock=clock, alerts=Alerts(Metrics(), clock))
    assert not watch.answers
    await watch.look()
    assert watch.answers
    there[0] = False
    with pytest.raises(Unavailable):
        await watch.look()
    assert not watch.answers and watch.confirmed, "what it was like a moment ago still counts for an ack"


def test_brokers_that_dont_say_what_a_topic_is_like_are_no_reason_to_refuse_a_start() -> None:
    def asked(**config: Any) -> None:
        name = "seawall"
        partition, said = Mock(replicas=[1, 2, 3]), {key: Mock(value=value) for key, value in config.items()}
        driver = Mock()
        driver.list_topics.return_value.topics = {name: Mock(error=None, partitions={0: partition})}
        driver.describe_topics.return_value = {name: Mock()}
        driver.describe_configs.return_value = AnyKey(Mock(result=lambda timeout: said))
        Admin._asked(driver, name, 1.0)

    for values in ({}, {**dict.fromkeys(CONFIG, "1"), "unclean.leader.election.enable": None}):
        with pytest.raises(Unavailable, match=r"unclean\.leader\.election\.enable"):
            asked(**values)


class AnyKey(dict[object, object]):
    """The same for whatever is asked."""

    def __init__(self, value: object) -> None:
        super().__init__()
        self._value = value

    def __missing__(self, key: object) -> object:
        return self._value
