"""A broker that lets in nobody without TLS and a password: journal and router come in by ``kafka.client_file``, and a
wrong password is an outage like any other. Marked ``parts``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from collector.authority import Authority
from seawall.guard.panel import Panel
from seawall.guard.supervisor import Supervisor
from seawall.journal import LocalFilesystem, Settings, cluster
from seawall.journal.kafka import Partitions, TopicWatch
from seawall.journal.kafka.client import client_of
from seawall.journal.kafka.examine import examined
from seawall.journal.kafka.topic import Admin
from seawall.journal.spool.joint import Joint, Means
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import SystemClock
from seawall.kernel.error import Unavailable
from seawall.kernel.event import EventIds, Record, decode, encode
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.journal import Outcome, Position
from seawall.lab.part.kafka import Kafka
from seawall.lab.part.node import DEFAULT

pytestmark = pytest.mark.parts
FETCHED = Path(__file__).resolve().parents[2] / DEFAULT / "fetched"
CLOCK = SystemClock()
IDS = EventIds(CLOCK)
PASSWORD = "correct-horse"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Kafka]:
    folder = tmp_path_factory.mktemp("kafka")
    certificate, key = authority.put(folder)
    (folder / "store.pem").write_bytes(key.read_bytes() + certificate.read_bytes())
    login = "org.apache.kafka.common.security.plain.PlainLoginModule"
    settings = {
        "listener.security.protocol.map": "CLIENT:SASL_SSL,INNER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "listener.name.client.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.client.plain.sasl.jaas.config": f'{login} required user_seawall="{PASSWORD}";',
        "listener.name.client.ssl.keystore.type": "PEM",
        "listener.name.client.ssl.keystore.location": str(folder / "store.pem"),
    }
    with Kafka(folder / "kafka", settings=settings, fetched=FETCHED) as part:
        part.make_topic("seawall", partitions=2, settings={"max.message.bytes": "12582912", "retention.bytes": "-1"})
        yield part


def chosen(broker: Kafka, authority: Authority, folder: Path, password: str) -> cluster.Settings:
    file = folder / "kafka.properties"
    file.write_text(
        f"security.protocol=SASL_SSL\nsasl.mechanisms=PLAIN\nsasl.username=seawall\nsasl.password={password}\n"
        f"ssl.ca.location={authority.put_own(folder)}\n"
    )
    file.chmod(0o600)
    return cluster.Settings(bootstrap=broker.bootstrap, client_file=str(file))


@contextlib.asynccontextmanager
async def opened(settings: cluster.Settings, folder: Path) -> AsyncIterator[Joint]:
    metrics, client = Metrics(), client_of(settings, "c1")
    means = Means(
        client=client, look=Admin(client, settings).look, settings=settings,
        local=Settings(reserve_bytes=0, fill_bytes=4096, segment_bytes=64 * 1024), folder=folder / "spool" / "c1",
        on_failure=pytest.fail, filesystem=LocalFilesystem(), clock=CLOCK, metrics=metrics,
        alerts=Alerts(metrics, CLOCK), panel=Panel(), rng=random.Random(7),
    )  # fmt: skip
    async with Joint(means) as joint:
        supervisor = Supervisor(metrics)
        joint.register(supervisor)
        async with supervisor:
            yield joint


async def kept(joint: Joint, numbers: range) -> None:
    """Give it records of these numbers, and wait until all are durable."""
    heard: list[Outcome] = []
    for number in numbers:
        record = Record(
            id=IDS.next(), source_id=bytes([number]) * 16, kind="none", tenant="acme", source="shop",
            received_us=CLOCK.wall_us(), body=b"%d" % number,
        )  # fmt: skip
        joint.submit(encode(record), heard.append)
    async with asyncio.timeout(20):
        while len(heard) < len(numbers):
            await asyncio.sleep(0.02)
    assert all(isinstance(each, Position) for each in heard)


async def test_journal_and_router_come_in_with_the_file_and_a_wrong_password_is_an_outage(
    broker: Kafka, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = chosen(broker, authority, tmp_path, "wrong-horse")
    async with opened(wrong, tmp_path) as joint:
        await kept(joint, range(10))
        assert joint.report()["spooled"] == 10, "nobody is refused"
    with pytest.raises(Unavailable) as raised:
        await examined(wrong, client_of(wrong, "doctor"), timeout_s=5.0)
    assert "uthentication" in str(raised.value), "the doctor says what it is"
    right = chosen(broker, authority, tmp_path, PASSWORD)
    async with opened(right, tmp_path) as joint:
        await kept(joint, range(10, 20))
        async with asyncio.timeout(30):
            while joint.report()["forwarded"] < 20:
                await asyncio.sleep(0.05)
    topic = await examined(right, client_of(right, "doctor"), timeout_s=5.0)
    assert [defect.check for defect in topic.defects(right)] == ["kafka-replication"]
    assert await read(right) == set(range(20))
    for secret in (PASSWORD, "wrong-horse"):
        assert secret not in caplog.text and secret not in str(raised.value)


async def read(settings: cluster.Settings) -> set[int]:
    """The numbers that a router finds."""
    client = client_of(settings, "router")
    metrics = Metrics()
    alerts = Alerts(metrics, CLOCK)
    watch = TopicWatch(Admin(client, settings).look, settings, clock=CLOCK, alerts=alerts)
    await watch.look()
    found: set[int] = set()
    async with Partitions(client, settings, watch, clock=CLOCK, alerts=alerts, metrics=metrics) as partitions:
        for reader in (await partitions.find()).values():
            at = reader.start()
            while await reader.wait(at, 3.0):
                chunk = reader.read(at, records_max=100, bytes_max=10**6)
                found |= {int(decode(frame.payload).body) for frame in chunk.frames}
                at = chunk.next
    return found
