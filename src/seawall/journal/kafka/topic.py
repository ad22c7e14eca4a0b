"""What the topic is, and what an ack of it is worth: looked at all the time, since somebody may change it.

An ack of ``acks=all`` says that all replicas *in sync* have the record, and that may be one machine's memory. It is
called replicated only while a recent look found at least three replicas, of which two must be in sync for a write.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]

from seawall.guard.supervisor import Heart
from seawall.journal.cluster import Settings
from seawall.journal.kafka.client import Client
from seawall.journal.kafka.fault import KAFKA
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import Clock
from seawall.kernel.error import Unavailable
from seawall.kernel.limit import RECORD_BYTES_MAX
from seawall.kernel.log import fields, logger

log = logger("journal")

REPLICAS_MIN = 3
IN_SYNC_MIN = 2
BATCH_BYTES = 512 * 1024
"""What the producer puts into one batch; a topic that takes less would refuse small records for their neighbours."""

RECORD_OVERHEAD_BYTES = 1024
"""More than Kafka adds to one of our records in a batch by itself."""

LOOK_S = 2.0
SEGMENT = 1
"""The segment of every position in a partition: it has only offsets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A topic as it was found."""

    cluster_id: str
    name: str
    id: bytes  # 16 bytes, given when it was made: tells it from another one that had its name; b"" when not said
    partitions: int
    replicas: int  # of the partition that has the fewest
    in_sync_min: int
    record_bytes_max: int
    retention_s: float  # math.inf: for ever
    compacted: bool = False
    unclean: bool = False  # a replica that lacks records may become the leader
    retention_bytes: int = -1

    @property
    def replicated(self) -> bool:
        """Whether an ack means two machines at least, whichever of them dies."""
        return self.replicas >= REPLICAS_MIN and self.in_sync_min >= IN_SYNC_MIN and not self.unclean

    def log_id(self, partition: int) -> bytes:
        """The partition's name in positions: it says where, and ``id`` says which one was there."""
        said = f"seawall kafka log\0{self.cluster_id}\0{self.name}\0{partition}"
        return hashlib.sha256(said.encode()).digest()[:16]

    def problems(self, settings: Settings) -> list[str]:
        """What is wrong with it for a journal, each with its cure; none of it stops accepting."""
        found = []
        if not self.replicated:
            found.append(
                f"replicas {self.replicas}, min.insync.replicas {self.in_sync_min}, unclean election "
                f"{str(self.unclean).lower()}: an ack may be one machine's memory, so each event is synced to our "
                f"disk first; wanted: {REPLICAS_MIN}, {IN_SYNC_MIN}, false"
            )
        if self.compacted:
            found.append("cleanup.policy has compact: later events of a source would delete earlier ones; use delete")
        if self.retention_s < settings.retention_min_s:
            found.append(
                f"retention.ms is {self.retention_s * 1000:.0f}: an outage of the store that is longer loses events; "
                f"wanted: {settings.retention_min_s * 1000} at least"
            )
        if self.retention_bytes >= 0:
            found.append(f"retention.bytes is {self.retention_bytes}: a busy hour can delete what wasn't read; use -1")
        if self.record_bytes_max < RECORD_BYTES_MAX + RECORD_OVERHEAD_BYTES:
            found.append(
                f"max.message.bytes is {self.record_bytes_max}: larger events are parked; "
                f"{RECORD_BYTES_MAX + RECORD_OVERHEAD_BYTES} takes all"
            )
        return found


Look = Callable[[], Awaitable[Topic]]


class TopicWatch:
    """What is known of the topic, and since when.

    Args:
        look: Finds out. Raises Unavailable when it can't.
    """

    def __init__(self, look: Look, settings: Settings, *, clock: Clock, alerts: Alerts) -> None:
        self._look = look
        self._settings = settings
        self._clock = clock
        self._alerts = alerts
        self._seen_at = -math.inf
        self._said: tuple[str, ...] = ()
        self.topic: Topic | None = None

    @property
    def confirmed(self) -> bool:
        """Whether an ack may be called replicated now."""
        return (
            self.topic is not None
            and self.topic.replicated
            and self._clock.monotonic() - self._seen_at < self._settings.confirm_s
        )

    async def look(self) -> Topic:
        """Find out now.

        Raises:
            Unavailable: It couldn't be found out; what was known stays, and ages.
        """
        topic = await self._look()
        if topic != self.topic:
            log.info("Kafka's topic", extra=fields(topic=topic.name, partitions=topic.partitions,
                     replicas=topic.replicas, in_sync_min=topic.in_sync_min))  # fmt: skip
        self.topic, self._seen_at = topic, self._clock.monotonic()
        problems = tuple(topic.problems(self._settings))
        if problems and problems != self._said:
            self._alerts.raised(
                "kafka-topic", f"topic {topic.name}: {'; '.join(problems)}", unaffected="accepting events",
                cure="kafka-configs.sh --alter --entity-type topics", topic=topic.name,
            )  # fmt: skip
        elif not problems:
            self._alerts.cleared("kafka-topic", topic=topic.name)
        self._said = problems
        return topic

    async def run(self, heart: Heart) -> None:
        """Look again and again; for a supervisor."""
        while True:
            looking = asyncio.ensure_future(self.look())
            try:
                # A look may take longer than a loop may be silent.
                while not looking.done():
                    heart.touch()
                    await asyncio.wait([looking], timeout=1.0)
                looking.result()
            except Unavailable as error:
                heart.unready(str(error))
            else:
                await heart.beat()
            finally:
                looking.cancel()
            await asyncio.sleep(LOOK_S)


class Admin:
    """Asks the cluster; ``look`` is for ``TopicWatch``."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._admin: AdminClient | None = None

    async def look(self) -> Topic:
        """The topic as the cluster says it is.

        Raises:
            Unavailable: No answer, or there is no such topic.
        """
        timeout_s = self._settings.request_timeout_s
        try:
            async with asyncio.timeout(4 * timeout_s):
                return await asyncio.to_thread(self._ask, timeout_s)
        except TimeoutError as error:
            raise Unavailable(KAFKA, "no answer about the topic in time") from error

    def _ask(self, timeout_s: float) -> Topic:
        """Three questions, each within ``timeout_s``; in a thread."""
        name = self._settings.topic
        if self._admin is None:
            self._admin = AdminClient(self._client.config())
        resource = ConfigResource(ConfigResource.Type.TOPIC, name)
        try:
            metadata = self._admin.list_topics(name, timeout=timeout_s)
            found = metadata.topics[name]
            if found.error is not None or not found.partitions:
                raise Unavailable(KAFKA, f"topic {name}: {found.error or 'it has no partitions'}")
            asked = self._admin.describe_topics(TopicCollection([name]), request_timeout=timeout_s)
            described = asked[name].result(timeout_s)
            values = self._admin.describe_configs([resource], request_timeout=timeout_s)[resource].result(timeout_s)
        except (KafkaException, TimeoutError) as error:
            raise Unavailable(KAFKA, f"topic {name}: {error}") from error
        config = {key: entry.value for key, entry in values.items()}
        retention_ms = int(config["retention.ms"])
        id = described.topic_id
        return Topic(
            cluster_id=metadata.cluster_id or "", name=name, id=_id_bytes(id), partitions=len(found.partitions),
            replicas=min(len(partition.replicas) for partition in found.partitions.values()),
            in_sync_min=int(config["min.insync.replicas"]), record_bytes_max=int(config["max.message.bytes"]),
            retention_s=math.inf if retention_ms < 0 else retention_ms / 1000,
            compacted="compact" in config["cleanup.policy"],
            unclean=config["unclean.leader.election.enable"] == "true",
            retention_bytes=int(config["retention.bytes"]),
        )  # fmt: skip


def _id_bytes(id: object) -> bytes:
    """A topic's id, out of the driver's two halves of 64 bits, each signed."""
    high, low = id.get_most_significant_bits(), id.get_least_significant_bits()  # type: ignore[attr-defined]
    return bytes((high % 2**64).to_bytes(8, "big") + (low % 2**64).to_bytes(8, "big"))
