"""Takes records to Kafka behind the journal's seam: acknowledged by all replicas in sync, retried without copies.

The driver's own thread sends; one thread of ours collects what it says of each record, and hands a whole batch of that
to the event loop in one wake-up. The event loop's thread owns all other state.
"""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from seawall.guard.supervisor import Heart
from seawall.journal.cluster import Settings
from seawall.journal.kafka.client import Client
from seawall.journal.kafka.fault import KAFKA, meaning
from seawall.journal.kafka.topic import BATCH_BYTES, SEGMENT, TopicWatch
from seawall.kernel.error import Overloaded, SeawallError, Unavailable
from seawall.kernel.event import source_id_of
from seawall.kernel.limit import RECORD_BYTES_MAX
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.journal import Done, Position

log = logger("journal")

POLL_S = 0.2
TICK_S = 0.25
GIVE_UP_FACTOR = 3
"""The driver forgets a record after so many ack deadlines. Longer, and an outage would fill its queue with records that
lie in the local log already."""

CLOSE_S = 2.0

Landed = tuple[Done, int, KafkaError | None, int, int]  # done, bytes, error, partition, offset


class _Report:
    """What the driver calls for one record, on the polling thread: two words for the event loop's thread."""

    __slots__ = ("_done", "_landed", "_size")

    def __init__(self, landed: list[Landed], done: Done, size: int) -> None:
        self._landed = landed
        self._done = done
        self._size = size

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        self._landed.append((self._done, self._size, error, message.partition() or 0, message.offset() or 0))


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
        self._watch = watch
        self._client = client
        self._producer: Producer | None = None
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self._landed: list[Landed] = []
        self._pending = 0
        self._pending_bytes = 0
        self._ids: dict[int, bytes] = {}
        self._topic = watch.topic
        self._fatal = ""
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
        if self._pending >= self._settings.pending_records_max:
            return Overloaded("the queue to Kafka is full")
        return None

    def submit(self, payload: bytes, done: Done) -> None:
        refusal, size = self.refusal, len(payload)
        if refusal is None and self._pending_bytes + size > self._settings.pending_bytes_max and self._pending:
            refusal = Overloaded("the queue to Kafka is full")
        if refusal is not None:
            raise refusal
        assert self._producer is not None
        try:
            # A source's records keep their order: one key, one partition.
            self._producer.produce(
                self._settings.topic, payload, key=source_id_of(payload),
                on_delivery=_Report(self._landed, done, size),
            )  # fmt: skip
        except BufferError as error:
            raise Overloaded("the queue to Kafka is full") from error
        except KafkaException as error:
            raise meaning(error.args[0]) from error
        self._pending += 1
        self._pending_bytes += size

    async def __aenter__(self) -> KafkaLog:
        self._loop = asyncio.get_running_loop()
        self._producer = self._made()
        self._begin()
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
        producer.purge(in_queue=True, in_flight=True, blocking=False)
        self._ending.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, CLOSE_S)
        self._settle()

    async def watch(self, heart: Heart) -> None:
        """Notice a polling thread that died, and replace a producer that can't go on; for a supervisor."""
        while True:
            if self._thread is None or not self._thread.is_alive():
                raise RuntimeError("the thread that polls Kafka's client died")
            if self._fatal:
                await self._renew()
            if self._watch.topic is None:
                heart.unready("Kafka's topic wasn't found yet")
            else:
                await heart.beat()
            await asyncio.sleep(TICK_S)

    def _made(self) -> Producer:
        settings = self._settings
        return Producer(
            self._client.config(
                acks="all", enable_idempotence=True, linger_ms=settings.linger_ms, batch_size=BATCH_BYTES,
                message_timeout_ms=round(settings.ack_timeout_s * 1000 * GIVE_UP_FACTOR),
                message_max_bytes=RECORD_BYTES_MAX + BATCH_BYTES,
                queue_buffering_max_messages=settings.pending_records_max,
                queue_buffering_max_kbytes=settings.pending_bytes_max // 1024 + RECORD_BYTES_MAX // 1024 + 1,
                # Beyond it retries only wait for a record's end; and a broker that comes back is asked at once.
                retry_backoff_ms=50, retry_backoff_max_ms=500, topic_metadata_refresh_interval_ms=10_000,
                partitioner="murmur2_random", error_cb=self._said,
            )
        )  # fmt: skip

    def _begin(self) -> None:
        self._ending = threading.Event()
        assert self._producer is not None
        self._thread = threading.Thread(
            target=self._poll, args=(self._producer, self._ending), name=f"journal.{self.name}", daemon=True
        )
        self._thread.start()

    def _poll(self, producer: Producer, ending: threading.Event) -> None:
        """Until told to end: one wake-up of the event loop for all that one poll brought."""
        while not ending.is_set():
            producer.poll(POLL_S)
            if self._landed:
                self._wake()
        producer.poll(0)

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._settle)
        except RuntimeError:
            self._ending.set()  # the event loop is closed: nobody is left to be answered

    def _said(self, error: KafkaError) -> None:
        """On a thread of the driver's; a fatal error is the end of this producer."""
        if error.fatal():
            self._fatal = f"{error.name()}: {error.str()}"

    def _settle(self) -> None:
        """Tell the outcome of each record that the driver has reported."""
        # The reports share this list with us: it is emptied in place, and the interpreter makes both steps whole.
        landed = self._landed[:]
        del self._landed[: len(landed)]
        topic = self._watch.topic
        if topic is not self._topic:
            self._topic, self._ids = topic, {}
        replicated = self._watch.confirmed
        for done, size, error, partition, offset in landed:
            self._pending -= 1
            self._pending_bytes -= size
            try:
                done(meaning(error) if error is not None else self._position(partition, offset, replicated=replicated))
            except Exception as bug:  # noqa: BLE001
                # Any kind: it is another room's, one waiter must not cost the others theirs, and it is reported.
                self._loop.call_exception_handler({"message": "an answer's waiter broke", "exception": bug})
        failed = sum(1 for each in landed if each[2] is not None)
        self._errors.value += failed
        self._acks.value += len(landed) - failed

    def _position(self, partition: int, offset: int, *, replicated: bool) -> Position:
        topic = self._topic
        assert topic is not None, "nothing is sent before the topic was found"
        log_id = self._ids.get(partition)
        if log_id is None:
            log_id = self._ids[partition] = topic.log_id(partition)
        return Position(log_id, SEGMENT, offset + 1, topic.id, replicated)

    async def _renew(self) -> None:
        """Another producer in place of one that refuses all; what it had in hand ends as Uncertain."""
        log.error("Kafka's producer is replaced", extra=fields(cause=self._fatal))
        self._fatal = ""
        self._renewals.value += 1
        await self.close()
        self._producer = self._made()
        self._begin()
