"""Consumers in threads of their own: they fetch ahead of whoever reads partitions, from any offset that is asked for.

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
from seawall.journal.kafka.client import Client, Config
from seawall.kernel.log import fields, logger

log = logger("journal")

ROUND_S = 0.1
"""Longest that the thread waits for records before it looks for commands."""

ROUND_RECORDS = 1000
ROUNDS_MAX = 8
"""Rounds that the event loop hasn't taken yet. While it stands still for longer nothing more is fetched: it would all
be in memory, where ``fetch_bytes`` doesn't count it."""

WATERMARKS_S = 0.25
QUERY_S = 1.0
CLOSE_S = 3.0

LEAVING_MAX = 2
"""Threads of replaced consumers that may still be closing theirs."""

LOST_PLACE = (KafkaError._AUTO_OFFSET_RESET, KafkaError._LOG_TRUNCATION)
"""Where we read, the partition has nothing, or not what was there; fetching it has stopped."""

Found = tuple[int, bytes, int]  # offset, payload, epoch of the leader that wrote it (-1: not said)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one round found of one partition."""

    partition: int
    turn: int  # which ``begin`` it belongs to
    records: Sequence[Found] = ()
    bounds: tuple[int, int] | None = None  # oldest offset and end, asked from the leader just now
    end: int = -1  # as of the newest fetch; -1: not known
    interrupted: bool = False  # every broker was away: nobody saw what became of the log meanwhile


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
        self._fetcher: _Fetcher | None = None
        self._leaving: list[_Fetcher] = []

    @property
    def alive(self) -> bool:
        return self._fetcher is not None and self._fetcher.is_alive()

    async def __aenter__(self) -> Feed:
        self._loop = asyncio.get_running_loop()
        self.renew()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        leaving, self._fetcher = [*self._leaving, *filter(None, [self._fetcher])], None
        for fetcher in leaving:
            fetcher.ending.set()
        for fetcher in leaving:
            await asyncio.to_thread(fetcher.join, CLOSE_S)

    def renew(self) -> bool:
        """Go on with a new consumer, which knows nothing of the old one's cluster; then everything must begin again.

        False when threads of earlier ones still haven't ended: they are no endless supply.
        """
        self._leaving = [fetcher for fetcher in self._leaving if fetcher.is_alive()]
        if len(self._leaving) >= LEAVING_MAX:
            return False
        if self._fetcher is not None:
            self._fetcher.ending.set()
            self._leaving.append(self._fetcher)
        self._fetcher = _Fetcher(self._config, self._topic, self.name, self._loop, self._hand_over)
        self._fetcher.start()
        return True

    def begin(self, partition: int, offset: int, turn: int) -> None:
        """Deliver a partition's records from ``offset`` on, as ``turn``; nothing of an earlier turn comes after it."""
        self._command(lambda fetcher: fetcher.begin(partition, offset, turn))

    def pause(self, partition: int, *, on: bool) -> None:
        """Hold fetching back, or go on."""
        self._command(lambda fetcher: fetcher.pause(partition, on=on))

    def ask(self, partition: int) -> None:
        """Ask the leader for the partition's bounds; they are delivered when it answers, else not at all."""
        # Once until that was tried: in an outage each takes its whole time, and they would pile up before any fetch.
        if self._fetcher is not None and partition not in self._fetcher.asked:
            self._fetcher.asked.add(partition)
            self._command(lambda fetcher: fetcher.ask(partition))

    def silent(self, partition: int) -> int:
        """Questions about the partition's bounds since the last answer, that this consumer's leader left open."""
        return 0 if self._fetcher is None else self._fetcher.silent.get(partition, 0)

    def _command(self, do: Callable[[_Fetcher], None]) -> None:
        if self._fetcher is not None:
            self._fetcher.commands.append(do)

    def _hand_over(self, fetcher: _Fetcher, deliveries: Sequence[Delivery]) -> None:
        fetcher.untaken.release()
        if fetcher is not self._fetcher:
            return  # it may speak of a topic that is gone
        for delivery in deliveries:
            self._deliver(delivery)


class _Fetcher(threading.Thread):
    """One consumer and its thread; but for ``commands``, ``asked``, ``silent``, ``untaken`` and ``ending``, only the
    thread touches it."""

    def __init__(
        self, config: Config, topic: str, name: str, loop: asyncio.AbstractEventLoop,
        hand_over: Callable[[_Fetcher, Sequence[Delivery]], None],
    ) -> None:  # fmt: skip
        super().__init__(name=f"journal.{name}", daemon=True)
        self.commands: deque[Callable[[_Fetcher], None]] = deque()
        self.asked: set[int] = set()  # partitions whose bounds a command asks for
        self.silent: dict[int, int] = {}  # by partition, questions about bounds that weren't answered
        self.untaken = threading.Semaphore(ROUNDS_MAX)  # what may still be handed over
        self.ending = threading.Event()
        self._config = {**config, "error_cb": self._said}
        self._topic = topic
        self._feed = name
        self._loop = loop
        self._hand_over = hand_over
        self._turns: dict[int, int] = {}  # by partition, the newest ``begin``
        self._interrupted = False

    def run(self) -> None:
        self._consumer = Consumer(self._config)
        due_s = 0.0
        try:
            while not self.ending.is_set():
                self._obey()
                deliveries = self._fetch()
                now = self._loop.time()
                if now >= due_s or self._interrupted:
                    due_s, interrupted, self._interrupted = now + WATERMARKS_S, self._interrupted, False
                    # First: an interruption was before what came in the same round, as far as anybody knows.
                    ends = [
                        Delivery(partition, turn, end=self._end(partition), interrupted=interrupted)
                        for partition, turn in self._turns.items()
                    ]
                    deliveries = ends + deliveries
                self._tell(deliveries)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
        finally:
            self._consumer.close()

    def begin(self, partition: int, offset: int, turn: int) -> None:
        place = TopicPartition(self._topic, partition, offset)
        if partition in self._turns:
            self._consumer.incremental_unassign([place])
        self._turns[partition] = turn
        self._consumer.incremental_assign([place])
        self._consumer.resume([place])  # a partition that was held back stays so, whatever becomes of its assignment

    def pause(self, partition: int, *, on: bool) -> None:
        place = [TopicPartition(self._topic, partition)]
        if on:
            self._consumer.pause(place)
        else:
            self._consumer.resume(place)

    def ask(self, partition: int) -> None:
        self.asked.discard(partition)
        try:
            place = TopicPartition(self._topic, partition, OFFSET_END)
            bounds = self._consumer.get_watermark_offsets(place, timeout=QUERY_S)
        except KafkaException as error:
            log.debug("no answer about a partition", extra=fields(feed=self._feed, cause=str(error)))
            bounds = None
        if bounds is None:
            self.silent[partition] = self.silent.get(partition, 0) + 1
            return
        self.silent.pop(partition, None)
        self._tell([Delivery(partition, self._turns.get(partition, 0), bounds=(bounds[0], bounds[1]))])

    def _said(self, error: KafkaError) -> None:
        """Trouble with connections, heard within ``poll``. The client mends it itself."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._interrupted = True
        log.debug("Kafka's consumer says", extra=fields(feed=self._feed, cause=error.str()))

    def _tell(self, deliveries: Sequence[Delivery]) -> None:
        if not deliveries:
            return
        while not self.untaken.acquire(timeout=ROUND_S):
            if self.ending.is_set():
                return
        self._loop.call_soon_threadsafe(self._hand_over, self, deliveries)

    def _obey(self) -> None:
        while self.commands:
            try:
                self.commands.popleft()(self)
            except KafkaException as error:
                # The reader asks again when nothing comes.
                log.warning("Kafka's consumer refused", extra=fields(feed=self._feed, cause=str(error)))

    def _fetch(self) -> list[Delivery]:
        first = self._consumer.poll(ROUND_S)
        if first is None:
            return []
        found: dict[int, list[Found]] = {}
        lost: set[int] = set()
        for message in (first, *self._consumer.consume(ROUND_RECORDS, 0)):
            self._sort(message, found, lost)
        for partition in lost:
            self.ask(partition)
        return [
            Delivery(partition, self._turns[partition], records, end=self._end(partition))
            for partition, records in found.items()
        ]

    def _sort(self, message: Message, found: dict[int, list[Found]], lost: set[int]) -> None:
        error, partition, offset = message.error(), message.partition(), message.offset()
        if error is not None:
            log.debug("Kafka's consumer says", extra=fields(feed=self._feed, cause=error.str(), partition=partition))
            if partition is not None and partition >= 0 and error.code() in LOST_PLACE:
                lost.add(partition)
        elif partition is not None and offset is not None and partition in self._turns:
            epoch = message.leader_epoch()
            record = (offset, message.value() or b"", -1 if epoch is None else epoch)
            found.setdefault(partition, []).append(record)

    def _end(self, partition: int) -> int:
        try:
            known = self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), cached=True)
        except KafkaException:
            return -1
        return -1 if known is None else max(-1, known[1])
