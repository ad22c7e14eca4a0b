"""A topic of real brokers that takes small batches only. Marked ``parts``."""

from __future__ import annotations

from pathlib import Path

import pytest

from journal.kafka_rig import opened_at, record, until
from seawall.journal import cluster
from seawall.journal.kafka.client import client_of
from seawall.journal.kafka.topic import Admin
from seawall.lab.part.kafka import Kafka
from seawall.lab.part.node import DEFAULT

pytestmark = pytest.mark.parts
FETCHED = Path(__file__).resolve().parents[2] / DEFAULT / "fetched"
TAKES_BYTES = 20_000


async def test_small_records_arent_refused_for_the_size_of_their_batch(tmp_path: Path) -> None:
    """They were parked until the next start, all that came or were forwarded together; only large ones may be."""
    with Kafka(tmp_path / "kafka1", brokers=1, fetched=FETCHED) as part:
        part.make_topic("seawall", replication=1, settings={"max.message.bytes": str(TAKES_BYTES)})
        settings = cluster.Settings(bootstrap=part.bootstrap)
        look = Admin(client_of(settings, "test"), settings).look
        async with opened_at(settings, look, tmp_path) as desk:
            for _ in range(5):
                await desk.send(*(record(b"x" * 2000) for _ in range(100)))
            await desk.send(record(b"x" * 2 * TAKES_BYTES))
            await until(lambda: not desk.joint.forwarder.waits, within_s=30)
            assert desk.joint.report()["parked"] == 1
