"""One consumer in a thread of its own: it fetches ahead of whoever reads partitions, from any offset that is asked for.

No consumer group: partitions are assigned by hand, and nothing is ever committed to Kafka, since the position lives in
the store's transaction. Commands go to the thread in a queue; what it finds comes back in one wake-up of the event loop
for each round. The thread owns the consumer, the event loop's thread everything else.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition

from seawall.journal.cluster import Settings
from seawall.journal.kafka.client import Client
from seawall.kernel.log import fields, logger

log = logger("journal")

ROUND_S = 0.1
"""Longest that the thread waits for records before it looks for commands."""

ROUND_RECORDS = 1000
WATERMARKS_S = 0.25
QUERY_S = 1.0
CLOSE_S = 3.0

Found = tuple[int, bytes]  # offset, payload


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one round found of one partition."""

    partition: int
    turn: int  # which ``begin`` it belongs to
    records: Sequence[Found] = ()
    bounds: tuple[int, int] | None = None  # oldest offset and end, asked from the leader just now
    end: int = -1  # as of the newest fetch; -1: not known


class Feed:
    """Fetches records of one topic.

    Args:
        deliver: Called on the event loop's thread with each delivery.
    """

    def __init__(self, client: Client, settings: Settings, name: str, deliver: Callable[[Delivery], None]) -> None:
        self.name = name
        self._topic = settings.topic
        self._deliver = deliver
        self._config = client.config(
            # A name is demanded, but no group is joined: partitions are assigned, and nothing is committed.
            group_id="seawall", enable_auto_commit=False, enable_auto_offset_store=False, auto_offset_reset="error",
            check_crcs=True, fetch_wait_max_ms=100, fetch_error_backoff_ms=100,
            queued_min_messages=10_000, queued_max_messages_kbytes=settings.fetch_bytes // 1024,
        )  # fmt: skip
        self._commands: deque[Callable[[Consumer], None]] = deque()
        self._turns: dict[int, int] = {}  # the thread's: by partition, the newest ``begin``
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    async def __aenter__(self) -> Feed:
        self._loop = asyncio.get_running_loop()
        self.start()
        return self

    def start(self) -> None:
        """Start the thread, also in place of one that died; then everything must begin again."""
        self._turns.clear()
        self._commands.clear()
        self._thread = threading.Thread(target=self._run, name=f"journal.{self.name}", daemon=True)
        self._thread.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, CLOSE_S)

    def begin(self, partition: int, offset: int, turn: int) -> None:
        """Deliver a partition's records from ``offset`` on, as ``turn``; nothing of an earlier turn comes after it."""

        def do(consumer: Consumer) -> None:
            place = TopicPartition(self._topic, partition, offset)
            if partition in self._turns:
                consumer.incremental_unassign([place])
            self._turns[partition] = turn
            consumer.incremental_assign([place])

        self._commands.append(do)

    def pause(self, partition: int, *, on: bool) -> None:
        """Hold fetching back, or go on."""

        def do(consumer: Consumer) -> None:
            place = [TopicPartition(self._topic, partition)]
            if on:
                consumer.pause(place)
            else:
                consumer.resume(place)

        self._commands.append(do)

    def ask(self, partition: int) -> None:
        """Ask the leader for the partition's bounds; they are delivered when it answers, else not at all."""
        self._commands.append(lambda consumer: self._ask(consumer, partition))

    def _run(self) -> None:
        consumer = Consumer(self._config)
        due_s = 0.0
        try:
            while not self._ending.is_set():
                self._obey(consumer)
                deliveries = self._fetch(consumer)
                now = self._loop.time()
                if now >= due_s:
                    due_s = now + WATERMARKS_S
                    deliveries += [Delivery(p, turn, end=self._end(consumer, p)) for p, turn in self._turns.items()]
                if deliveries:
                    self._loop.call_soon_threadsafe(self._hand_over, deliveries)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
        finally:
            consumer.close()

    def _hand_over(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self._deliver(delivery)

    def _obey(self, consumer: Consumer) -> None:
        while self._commands:
            try:
                self._commands.popleft()(consumer)
            except KafkaException as error:
                # The reader asks again when nothing comes.
                log.warning("Kafka's consumer refused", extra=fields(feed=self.name, cause=str(error)))

    def _fetch(self, consumer: Consumer) -> list[Delivery]:
        first = consumer.poll(ROUND_S)
        if first is None:
            return []
        found: dict[int, list[Found]] = {}
        lost: set[int] = set()
        for message in (first, *consumer.consume(ROUND_RECORDS, 0)):
            self._sort(message, found, lost)
        for partition in lost:
            self._ask(consumer, partition)
        return [
            Delivery(partition, self._turns[partition], records, end=self._end(consumer, partition))
            for partition, records in found.items()
        ]

    def _sort(self, message: Message, found: dict[int, list[Found]], lost: set[int]) -> None:
        error, partition, offset = message.error(), message.partition(), message.offset()
        if error is not None:
            if partition is not None and partition >= 0 and error.code() == KafkaError._AUTO_OFFSET_RESET:
                lost.add(partition)
            else:
                log.debug("Kafka's consumer says", extra=fields(feed=self.name, cause=error.str()))
        elif partition is not None and offset is not None and partition in self._turns:
            found.setdefault(partition, []).append((offset, message.value() or b""))

    def _end(self, consumer: Consumer, partition: int) -> int:
        try:
            known = consumer.get_watermark_offsets(TopicPartition(self._topic, partition), cached=True)
        except KafkaException:
            return -1
        return -1 if known is None else max(-1, known[1])

    def _ask(self, consumer: Consumer, partition: int) -> None:
        try:
            place = TopicPartition(self._topic, partition, OFFSET_END)
            bounds = consumer.get_watermark_offsets(place, timeout=QUERY_S)
        except KafkaException as error:
            log.debug("no answer about a partition", extra=fields(feed=self.name, cause=str(error)))
            return
        if bounds is not None:
            turn = self._turns.get(partition, 0)
            self._loop.call_soon_threadsafe(self._deliver, Delivery(partition, turn, bounds=(bounds[0], bounds[1])))
