"""Visits Kafka, and reads what the visit needs. Apart from ``examine``: it needs the driver."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from seawall.journal.cluster import Settings
from seawall.journal.kafka.client import client_of, properties
from seawall.journal.kafka.examine import examined
from seawall.journal.kafka.topic import NoTopic
from seawall.kernel.error import Misconfigured, SeawallError
from seawall.machine.doctor import certificate, host, kafka
from seawall.machine.doctor.aside import Aside
from seawall.machine.doctor.finding import Finding


async def findings(
    limits: Settings, *, aside: Aside, timeout_s: float, now_s: float, kept_days: int
) -> list[Finding]:  # fmt: skip
    """What is wrong with Kafka, its topic, and our way to it.

    Args:
        aside: Where the client's files are read, also those that the driver reads.
        timeout_s: Of each of three questions.
        now_s: Wall clock.
        kept_days: How long the store keeps events.
    """
    try:
        said = await aside.do(partial(properties, limits))
    except Misconfigured as error:
        return [*kafka.unusable(error.problems)]
    modes = await aside.do(partial(kafka.secret_modes, limits.client_file, said))
    found = [*kafka.security(said), *host.secrets(modes)]
    found += await aside.do(lambda: [*_certificate(said, now_s)])
    try:
        client = await aside.do(partial(client_of, limits, "doctor"))
    except Misconfigured as error:
        return [*found, *kafka.unusable(error.problems)]
    try:
        topic = await examined(limits, client, timeout_s=timeout_s)
        found += kafka.fitness(topic.name, topic.defects(limits))
        found += kafka.remembered(topic.name, topic.retention_s, kept_days)
    except NoTopic:
        found.append(kafka.missing(limits.topic))
    except SeawallError as error:
        found.append(kafka.unreachable(str(error)))
    return found


def _certificate(said: Mapping[str, str], now_s: float) -> Iterator[Finding]:
    name, key = "ssl.certificate.location", said.get("ssl.key.location", "")
    # A key with a pass phrase is the driver's to open.
    if said.get(name) and key and "ssl.key.password" not in said:
        read = certificate.read(name, said[name], key)
        yield from certificate.certificate(
            read, now_s=now_s, renewal="put a new one there, and restart collector and router"
        )
