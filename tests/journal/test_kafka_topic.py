"""A look at the topic: what it needs of this machine, and of the brokers."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import Mock

import pytest

from journal.test_kafka_reader import topic
from seawall.journal.cluster import Settings
from seawall.journal.kafka.client import client_of
from seawall.journal.kafka.topic import CONFIG, Admin
from seawall.kernel.error import Unavailable

SETTINGS = Settings(bootstrap="127.0.0.1:1")


async def test_a_look_needs_none_of_the_threads_that_a_hung_disk_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds without one, and every event had to go to that disk, though Kafka was well: 503."""
    admin, released = Admin(client_of(SETTINGS, "test"), SETTINGS), threading.Event()
    monkeypatch.setattr(admin, "_ask", lambda timeout_s: topic())
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
    hung = [asyncio.ensure_future(asyncio.to_thread(released.wait)) for _ in range(3)]
    try:
        async with asyncio.timeout(2):
            assert await admin.look() == topic()
    finally:
        released.set()
        await asyncio.gather(*hung)


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
