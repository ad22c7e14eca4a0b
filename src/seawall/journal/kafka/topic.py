"""What the topic is, and what an ack of it is worth: looked at all the time, since somebody may change it.

An ack of ``acks=all`` says that all replicas *in sync* have the record, and that may be one machine's memory. It is
called replicated only while a recent look found at least three replicas, of which two must be in sync for a write.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]

from seawall.guard.supervisor import Heart
from seawall.journal.cluster import Settings
from seawall.journal.kafka.client import Client
from seawall.journal.kafka.fault import KAFKA
from seawall.journal.topic import Topic
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import Clock
from seawall.kernel.error import Unavailable
from seawall.kernel.log import fields, logger

log = logger("journal")

BATCH_BYTES = 512 * 1024
"""What the producer puts into one batch, less where the topic takes less."""

LOOK_S = 2.0
PAUSES = 4
"""Beats between two looks."""

UNKNOWN_S = 5.0
"""For so long nobody is told that a look found out nothing: a leader that changes takes as long."""

SEGMENT = 1
"""The segment of every position in a partition: it has only offsets."""


CONFIG = (
    "retention.ms", "min.insync.replicas", "max.message.bytes", "cleanup.policy", "unclean.leader.election.enable",
    "retention.bytes",
)  # fmt: skip
"""What the topic is asked for."""

Look = Callable[[], Awaitable[Topic]]


class NoTopic(Unavailable):
    """The cluster answers, and has no such topic."""


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
        self._wanted_at = clock.monotonic()  # since when a look is due, or the last one found the topic
        self._said: tuple[str, ...] = ()
        self.topic: Topic | None = None
        self.failures = 0
        """Looks that found out nothing."""
        self.answers = False
        """The newest look found the topic."""

    @property
    def age_s(self) -> float:
        """Since a look found the topic; infinite before the first."""
        return self._clock.monotonic() - self._seen_at

    @property
    def confirmed(self) -> bool:
        """Whether an ack may be called replicated now."""
        return (
            self.topic is not None
            and self.topic.replicated
            and self.topic.keeps
            and self.age_s < self._settings.confirm_s
        )

    async def look(self) -> Topic:
        """Find out now.

        Raises:
            Unavailable: It couldn't be found out; what was known stays, and ages.
        """
        try:
            topic = await self._look()
        except Unavailable as error:
            self.failures += 1
            self.answers = False
            if isinstance(error, NoTopic):
                self._say((str(error),))
            raise
        if topic != self.topic:
            log.info("Kafka's topic", extra=fields(topic=topic.name, partitions=topic.partitions,
                     replicas=topic.replicas, in_sync_min=topic.in_sync_min))  # fmt: skip
        self.topic, self._seen_at, self.answers = topic, self._clock.monotonic(), True
        self._wanted_at = self._seen_at
        self._alerts.cleared("kafka-unknown", topic=topic.name)
        self._say(tuple(topic.problems(self._settings)))
        return topic

    def _say(self, problems: tuple[str, ...]) -> None:
        name = self._settings.topic
        if problems and problems != self._said:
            self._alerts.raised(
                "kafka-topic", f"topic {name}: {'; '.join(problems)}", unaffected="accepting events",
                cure="seawall doctor", topic=name,
            )  # fmt: skip
        elif not problems:
            self._alerts.cleared("kafka-topic", topic=name)
        self._said = problems

    def _tell_unknown(self) -> None:
        """A collector that starts in an outage sends nothing to what it doesn't know: no breaker opens and tells."""
        if not self.confirmed and self._clock.monotonic() - self._wanted_at >= UNKNOWN_S:
            name = self._settings.topic
            self._alerts.raised(
                "kafka-unknown", f"Kafka doesn't say what topic {name} is like; events go to the local log",
                unaffected="accepting events", cure="look at Kafka; seawall doctor", topic=name,
            )  # fmt: skip

    async def run(self, heart: Heart) -> None:
        """Look again and again; for a supervisor."""
        while True:
            trouble = ""
            try:
                await self._look_alive(heart)
            except Unavailable as error:
                trouble = str(error)
            for _ in range(PAUSES):
                if trouble:
                    heart.unready(trouble)
                else:
                    await heart.beat()
                await asyncio.sleep(LOOK_S / PAUSES)

    async def _look_alive(self, heart: Heart) -> None:
        """A look, which may take longer than a loop may be silent."""
        looking = asyncio.ensure_future(self.look())
        try:
            while not looking.done():
                heart.touch()
                await asyncio.wait([looking], timeout=1.0)
                self._tell_unknown()
            looking.result()
        finally:
            looking.cancel()


class Admin:
    """Asks the cluster; ``look`` is for ``TopicWatch``."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._admin: AdminClient | None = None
        # Of its own: what a hung disk is asked waits in the threads that all share, and without a look no ack counts as
        # replicated, so that each event would have to go to just that disk.
        self._threads = ThreadPoolExecutor(1, "journal.kafka.look")

    async def look(self) -> Topic:
        """The topic as the cluster says it is.

        Raises:
            NoTopic: There is none of this name.
            Unavailable: No answer.
        """
        timeout_s = self._settings.request_timeout_s
        try:
            async with asyncio.timeout(4 * timeout_s):
                return await asyncio.get_running_loop().run_in_executor(self._threads, self._ask, timeout_s)
        except TimeoutError as error:
            raise Unavailable(KAFKA, "no answer about the topic in time") from error

    def _ask(self, timeout_s: float) -> Topic:
        """Three questions, each within ``timeout_s``; in a thread."""
        name = self._settings.topic
        if self._admin is None:
            self._admin = AdminClient(self._client.config())
        try:
            return self._asked(self._admin, name, timeout_s)
        finally:
            # Trouble with connections waits in the driver to be heard, and would pile up there all through an outage.
            while self._admin.poll(0):
                pass

    @staticmethod
    def _asked(admin: AdminClient, name: str, timeout_s: float) -> Topic:
        resource = ConfigResource(ConfigResource.Type.TOPIC, name)
        try:
            metadata = admin.list_topics(name, timeout=timeout_s)
            found = metadata.topics[name]
            if found.error is not None and found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise NoTopic(KAFKA, f"there is no topic {name}")
            if found.error is not None or not found.partitions:
                raise Unavailable(KAFKA, f"topic {name}: {found.error or 'it has no partitions'}")
            asked = admin.describe_topics(TopicCollection([name]), request_timeout=timeout_s)
            described = asked[name].result(timeout_s)
            values = admin.describe_configs([resource], request_timeout=timeout_s)[resource].result(timeout_s)
        except (KafkaException, TimeoutError) as error:
            raise Unavailable(KAFKA, f"topic {name}: {error}") from error
        config = {key: entry.value for key, entry in values.items()}
        if absent := [key for key in CONFIG if config.get(key) is None]:
            raise Unavailable(KAFKA, f"topic {name}: the brokers don't say what its {', '.join(absent)} is")
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
