"""The journal of a cluster over brokers in memory, for the tests of this folder. What those brokers keep proves nothing
about real ones; what our side does when they refuse, hang and come back is what is tested."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from seawall.guard.panel import Panel
from seawall.guard.supervisor import Supervisor
from seawall.journal import LocalFilesystem, Settings, cluster
from seawall.journal.kafka import Topic
from seawall.journal.kafka.client import client_of
from seawall.journal.kafka.topic import Look
from seawall.journal.spool.joint import Joint, Means
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import SystemClock
from seawall.kernel.event import EventIds, Record, decode, encode
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.flag import Switch, always
from seawall.kernel.seam.journal import Outcome, Position
from seawall.testing.kafka import MockKafka

CLOCK = SystemClock()
IDS = EventIds(CLOCK)
SOURCE = b"\x07" * 16


def record(body: bytes = b"{}", source_id: bytes = SOURCE) -> bytes:
    """An encoded record with an id of its own."""
    return encode(
        Record(id=IDS.next(), source_id=source_id, kind="none", tenant="acme", source="shop",
               received_us=CLOCK.wall_us(), body=body)
    )  # fmt: skip


@dataclass
class Desk:
    """An open joint journal, and what its callers heard."""

    joint: Joint
    metrics: Metrics
    alerts: Alerts
    heard: list[Outcome] = field(default_factory=list)

    async def send(self, *payloads: bytes, within_s: float = 5.0) -> list[Outcome]:
        """Submit, and wait for the answers, in order of their coming."""
        heard: list[Outcome] = []
        for payload in payloads:
            self.joint.submit(payload, heard.append)
        await until(lambda: len(heard) == len(payloads), within_s=within_s)
        self.heard += heard
        return heard

    async def warm(self) -> None:
        """Until Kafka answers in time, and nothing waits for it. A client's first record may take longer than that."""
        while replicated(await self.send(record(b"warm"))) != [True]:
            await until(lambda: not self.joint.forwarder.waits)

    def names(self) -> set[str]:
        return {alert.name for alert in self.alerts.active()}


def replicated(outcomes: Iterable[Outcome]) -> list[bool]:
    """How each was made durable; any other answer fails the test."""
    said = []
    for outcome in outcomes:
        assert isinstance(outcome, Position), outcome
        said.append(outcome.replicated)
    return said


async def until(check: Callable[[], Any], *, within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not check():
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def opened(
    mock: MockKafka, folder: Path, *, ordered: frozenset[bytes] = frozenset(),
    facts: dict[str, Any] | None = None, forwarding: Switch = always, kind: type[Joint] = Joint, **settings: Any,
) -> AsyncIterator[Desk]:  # fmt: skip
    async def look() -> Topic:
        """As the facts are now: a test may change them."""
        said = dict(facts or {})
        if error := said.pop("error", None):
            raise error
        return Topic(**mock.facts(**said))

    chosen = cluster.Settings(bootstrap=mock.bootstrap, **settings)
    async with opened_at(chosen, look, folder, ordered=ordered, forwarding=forwarding, kind=kind) as desk:
        yield desk


@contextlib.asynccontextmanager
async def opened_at(
    chosen: cluster.Settings, look: Look, folder: Path, *, ordered: frozenset[bytes] = frozenset(),
    forwarding: Switch = always, kind: type[Joint] = Joint,
) -> AsyncIterator[Desk]:  # fmt: skip
    """Over whatever brokers the settings say; ``look`` finds the topic."""
    metrics = Metrics()
    alerts = Alerts(metrics, CLOCK)
    means = Means(
        client=client_of(chosen, "test"), look=look, settings=chosen,
        local=Settings(reserve_bytes=0, fill_bytes=4096, segment_bytes=256 * 1024), folder=folder / "spool" / "c1",
        on_failure=pytest.fail, filesystem=LocalFilesystem(), clock=CLOCK, metrics=metrics, alerts=alerts,
        panel=Panel(), rng=random.Random(7), ordered=lambda: ordered, forwarding=forwarding,
    )  # fmt: skip
    async with kind(means) as joint:
        supervisor = Supervisor(metrics)
        joint.register(supervisor)
        async with supervisor:
            yield Desk(joint, metrics, alerts)


def written(mock: MockKafka, *, expect: int, within_s: float = 15.0) -> list[bytes]:
    """Bodies of all records that the brokers have, in the order of their partitions; at least ``expect``."""
    import time

    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({
        "bootstrap.servers": mock.bootstrap, "group.id": "check", "enable.auto.commit": False, "log_level": 0,
        "auto.offset.reset": "error", "error_cb": lambda error: None,
    })  # fmt: skip
    consumer.assign([TopicPartition(mock.topic, n, 0) for n in range(mock.partitions)])
    bodies: list[bytes] = []
    end = time.monotonic() + within_s
    try:
        while time.monotonic() < end:
            found = consumer.consume(1000, 0.3)
            bodies += [decode(message.value()).body for message in found if not message.error()]
            if not found and len(bodies) >= expect:
                break
    finally:
        consumer.close()
    return bodies
