"""Takes records to Kafka behind the journal's seam: acknowledged by all replicas in sync, retried without copies.

The driver's own threads send. What it says of each record it says in ``poll``, which the event loop's thread calls
every two milliseconds while records are on their way. A thread that waits in ``poll`` would hear sooner, but the driver
lets go of the interpreter around each single report, so that with two threads each of them is a fight for it.
"""

from __future__ import annotations

import asyncio
from functools import partial
from types import TracebackType

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from seawall.guard.supervisor import Heart
from seawall.journal.cluster import Settings
from seawall.journal.kafka.client import Client
from seawall.journal.kafka.fault import KAFKA, meaning
from seawall.journal.kafka.topic import BATCH_BYTES, SEGMENT, TopicWatch
from seawall.journal.topic import RECORD_OVERHEAD_BYTES, Topic
from seawall.kernel.error import Overloaded, Rejected, SeawallError, Unavailable
from seawall.kernel.event import source_id_of
from seawall.kernel.limit import RECORD_BYTES_MAX
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.journal import Done, Position

log = logger("journal")

LOOK_S = 0.002
"""Between two looks at what became of records; half of it is what looking adds to an answer's time. At half of that the
driver's threads work more: answers, and so the next requests, come in smaller groups (bench/kafka.py)."""

QUIET_S = 0.1
"""After so long without any report it is looked less often: Kafka is slow, or away."""

QUIET_LOOK_S = 0.01
TICK_S = 0.25
GIVE_UP_FACTOR = 3
"""The driver forgets a record after so many ack deadlines. Longer, and an outage would fill its queue with records that
lie in the local log already."""

CLOSE_S = 2.0
DEAF_S = 15.0
"""A producer whose records all fail for so long, while the cluster answers questions about the topic, is replaced. One
was seen to send to a topic that is gone until its process ended: made anew after its leaders had changed a few times,
the topic's partitions had leaders of a lower epoch than those that the client remembered."""

FULL = "the queue to Kafka is full"
ANY_PARTITION = -1  # the driver chooses, by the key


class _LogIds(dict[int, bytes]):
    """Log ids of a topic's partitions, each made once."""

    def __init__(self, topic: Topic | None) -> None:
        super().__init__()
        self._topic = topic
        self.topic_id = b"" if topic is None else topic.id

    def __missing__(self, partition: int) -> bytes:
        assert self._topic is not None, "nothing is sent before the topic was found"
        log_id = self[partition] = self._topic.log_id(partition)
        return log_id


# Size: what is sent, what is heard of it, and when to begin with another driver are about one producer.
class KafkaLog:
    """Implements ``Journal``; a position is a partition's. ``async with`` starts it, also while Kafka is away.

    Beside what the seam says, ``done`` may get Rejected: Kafka won't ever take this record (it is too large).
    ``Position.replicated`` is said by the rule of ``TopicWatch``.
    """

    def __init__(
        self, client: Client, settings: Settings, watch: TopicWatch, *, metrics: Metrics, name: str = "kafka"
    ) -> None:  # fmt: skip
        self.name = name
        self._settings = settings
        self._name = settings.topic
        self._records_max, self._bytes_max = settings.pending_records_max, settings.pending_bytes_max
        self._watch = watch
        self._client = client
        self._producer: Producer | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._heard_at = 0.0
        self._pending = 0
        self._pending_bytes = 0
        self._batch_bytes = BATCH_BYTES  # at most, of the producer that there is
        self._learn()
        self._replicated = False  # as of the look that is going on
        self._fatal = ""
        self._topic_id = b""  # of the topic that the producer was made for; b"": not known
        self._failing_at: float | None = None  # since when records fail, and none is acknowledged
        self.troubles = 0
        """Records that Kafka didn't take, for no reason of their own."""
        self._report = self._landed  # bound once, for all records
        self._acks = metrics.counter("seawall_kafka_acks_total", "Records that Kafka acknowledged.")
        self._errors = metrics.counter("seawall_kafka_errors_total", "Records that Kafka didn't acknowledge.")
        self._renewals = metrics.counter("seawall_kafka_renewals_total", "Producers replaced after a fatal error.")
        metrics.gauge("seawall_kafka_queue_records", "Records on their way to Kafka.").read = lambda: self._pending
        metrics.gauge("seawall_kafka_queue_bytes", "Bytes on their way to Kafka.").read = lambda: self._pending_bytes

    @property
    def pending(self) -> int:
        """Records whose ``done`` wasn't called yet."""
        return self._pending

    @property
    def refusal(self) -> SeawallError | None:
        if self._producer is None:
            return Overloaded("the producer isn't open")
        if self._watch.topic is None:
            return Unavailable(KAFKA, "its topic wasn't found yet")
        if not self._watch.topic.keeps:
            return Unavailable(KAFKA, "its topic doesn't keep what it is given: cleanup.policy has compact")
        if self._batch_limit() < self._batch_bytes:
            return Unavailable(KAFKA, "its topic takes smaller batches than this producer makes")
        if self._pending >= self._records_max:
            return Overloaded(FULL)
        return None

    def submit(self, payload: bytes, done: Done) -> None:
        size = len(payload)
        if self._watch.topic is not self._topic:
            self._learn()
        if (
            self._pending >= self._records_max
            or (self._pending_bytes + size > self._bytes_max and self._pending)
            or self._producer is None
            or not self._takes
        ):
            raise self.refusal or Overloaded(FULL)
        try:
            # A source's records keep their order: one key, one partition. (By position: names cost a third more.)
            self._producer.produce(
                self._name, payload, source_id_of(payload), ANY_PARTITION, partial(self._report, done)
            )
        except BufferError as error:
            raise Overloaded(FULL) from error
        except KafkaException as error:
            raise meaning(error.args[0]) from error
        self._pending += 1
        self._pending_bytes += size
        if self._looking is None:
            self._heard_at = self._loop.time()
            self._looking = self._loop.call_later(LOOK_S, self._look)

    async def __aenter__(self) -> KafkaLog:
        self._loop = asyncio.get_running_loop()
        self._producer = self._made()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop, without waiting for any network; what wasn't acknowledged gets Unavailable or Uncertain. Harmless when
        repeated."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        producer.purge(in_queue=True, in_flight=True, blocking=False)
        latest = self._loop.time() + CLOSE_S
        self._hear(producer)
        while self._pending and self._loop.time() < latest:
            await asyncio.sleep(LOOK_S)
            self._hear(producer)
        self._pending = self._pending_bytes = 0

    async def watch(self, heart: Heart) -> None:
        """Hear of trouble also while nothing is sent, and replace a producer that can't go on; for a supervisor."""
        while True:
            self._look()
            self._judge()
            if self._fatal:
                await self._renew()
            if self._producer is None:
                heart.unready(self._fatal)
            elif self._watch.topic is None:
                heart.unready("Kafka's topic wasn't found yet")
            else:
                await heart.beat()
            await asyncio.sleep(TICK_S)

    def _made(self) -> Producer:
        settings = self._settings
        self._batch_bytes = self._batch_limit()
        return Producer(
            self._client.config(
                acks="all", enable_idempotence=True, linger_ms=settings.linger_ms, batch_size=self._batch_bytes,
                message_timeout_ms=round(settings.ack_timeout_s * 1000 * GIVE_UP_FACTOR),
                message_max_bytes=RECORD_BYTES_MAX + BATCH_BYTES,
                queue_buffering_max_messages=settings.pending_records_max,
                queue_buffering_max_kbytes=settings.pending_bytes_max // 1024 + RECORD_BYTES_MAX // 1024 + 1,
                # Beyond it retries only wait for a record's end; and a broker that comes back is asked at once.
                retry_backoff_ms=50, retry_backoff_max_ms=500, topic_metadata_refresh_interval_ms=10_000,
                partitioner="murmur2_random", error_cb=self._said,
            )
        )  # fmt: skip

    def _batch_limit(self) -> int:
        """Kafka refuses a whole batch for its size: small records for their neighbours."""
        topic = self._watch.topic
        if topic is None:
            return BATCH_BYTES
        return max(1, min(BATCH_BYTES, topic.record_bytes_max - RECORD_OVERHEAD_BYTES))

    def _said(self, error: KafkaError) -> None:
        """Called by ``poll``; a fatal error is the end of this producer."""
        if error.fatal():
            self._fatal = f"{error.name()}: {error.str()}"

    def _judge(self) -> None:
        """Whether this producer can't go on, although nothing fatal was said."""
        topic = self._watch.topic
        if topic is not None and topic.id != self._topic_id:
            if self._topic_id:
                self._fatal = self._fatal or f"topic {topic.name} was made anew"
            self._topic_id = topic.id
        if self._batch_limit() < self._batch_bytes:
            self._fatal = self._fatal or "the topic takes smaller batches only"
        failing_s = 0.0 if self._failing_at is None else self._loop.time() - self._failing_at
        if failing_s > DEAF_S and self._watch.age_s < DEAF_S:
            self._fatal = self._fatal or f"no record was taken for {failing_s:.0f} s, and the cluster answers"

    def _look(self) -> None:
        """Hear of all that the driver has to say, and look again while anything is on its way."""
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        if self._producer is None:
            return
        try:
            heard = self._hear(self._producer)
        finally:
            if self._pending and self._looking is None:
                now = self._loop.time()
                if heard:
                    self._heard_at = now
                pause_s = LOOK_S if now - self._heard_at < QUIET_S else QUIET_LOOK_S
                self._looking = self._loop.call_later(pause_s, self._look)

    def _hear(self, producer: Producer) -> int:
        """Have ``_landed`` called for each record whose outcome the driver knows; how many there were."""
        if self._watch.topic is not self._topic:
            self._learn()
        self._replicated = self._watch.confirmed
        return producer.poll(0)

    def _learn(self) -> None:
        """Go by what is known of the topic now."""
        self._topic = self._watch.topic
        keeps = self._topic is not None and self._topic.keeps
        self._takes = keeps and self._batch_limit() >= self._batch_bytes
        self._ids = _LogIds(self._topic)

    def _landed(self, done: Done, error: KafkaError | None, message: Message) -> None:
        """What the driver calls for one record."""
        self._pending -= 1
        self._pending_bytes -= len(message)
        try:
            if error is None:
                self._failing_at = None
                self._acks.value += 1
                log_id = self._ids[message.partition() or 0]
                done(Position(log_id, SEGMENT, (message.offset() or 0) + 1, self._ids.topic_id, self._replicated))
            else:
                self._errors.value += 1
                why = meaning(error)
                if not isinstance(why, Rejected):
                    self.troubles += 1
                    if self._failing_at is None:
                        self._failing_at = self._loop.time()
                done(why)
        except Exception as bug:  # noqa: BLE001
            # Any kind: it is another room's, one waiter must not cost the others theirs, and it is reported.
            self._loop.call_exception_handler({"message": "an answer's waiter broke", "exception": bug})

    async def _renew(self) -> None:
        """Another producer in place of one that refuses all; what it had in hand ends as Uncertain. One that can't be
        made now (a certificate is just being replaced) is made later: the cause stays until then."""
        if self._producer is not None:
            log.warning("Kafka's producer is replaced", extra=fields(cause=self._fatal))
            await self.close()
        try:
            self._producer = self._made()
        except KafkaException as error:
            self._fatal = f"no producer can be made: {error.args[0].str()}"
            return
        self._fatal, self._failing_at = "", None
        self._renewals.value += 1
        self._learn()
