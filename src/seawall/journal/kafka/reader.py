"""Reads partitions by position: the router's view of Kafka, one reader for each partition.

Each has two streams, one that follows the log and one for stretches with an end: so fresh records are fetched beside a
backlog, each from its own offset.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import TracebackType

from seawall.guard.supervisor import Heart
from seawall.journal.cluster import Settings
from seawall.journal.kafka.client import Client
from seawall.journal.kafka.feed import Delivery, Feed
from seawall.journal.kafka.stream import Stream
from seawall.journal.kafka.topic import SEGMENT, TopicWatch
from seawall.journal.topic import Topic
from seawall.kernel.clock import Clock, Deadline
from seawall.kernel.error import Corrupt, Unavailable
from seawall.kernel.log import fields, logger
from seawall.kernel.seam.journal import Chunk, Damage, Displaced, Frame, JournalReader, Position

log = logger("journal")

OPEN_S = 2.0
TICK_S = 0.5
BEYOND_S = 10.0
"""How long the leader must say that the partition ends before a position, until that is believed: a new leader's end
lags behind for a moment."""


class PartitionReader:
    """Implements ``JournalReader`` for one partition of one topic.

    ``read`` gives what was fetched already and ``wait`` fetches. Retention is the topic's, so ``forget`` forgets
    nothing.
    """

    def __init__(
        self, topic: Topic, partition: int, fresh: Feed, backlog: Feed, *, fetch_bytes: int, clock: Clock,
        beyond_s: float = BEYOND_S,
    ) -> None:  # fmt: skip
        self.partition = partition
        self._topic = topic
        self._log_id = topic.log_id(partition)
        self._feed = fresh
        self._fresh = Stream(fresh, partition, fetch_bytes)
        self._backlog = Stream(backlog, partition, fetch_bytes)
        self._clock = clock
        self._beyond_s = beyond_s
        self._oldest = -1
        self._end = -1
        self._asked = 0  # answers about the bounds
        self._beyond: dict[int, float] = {}  # by offset: since when the leader says that the log ends before it
        self._news = asyncio.Event()

    @property
    def known(self) -> bool:
        """Whether the leader has told the partition's bounds."""
        return self._asked > 0

    @property
    def log_id(self) -> bytes:
        return self._log_id

    @property
    def topic_id(self) -> bytes:
        return self._topic.id

    def start(self) -> Position:
        return self._position(self._oldest)

    def synced_end(self) -> Position:
        return self._position(max(self._end, self._oldest))

    async def wait(self, after: Position, timeout_s: float) -> bool:
        """True also says that ``read`` at ``after`` has something to give."""
        self._check(after)
        deadline = Deadline.after(timeout_s, self._clock)
        await self._refute(after, deadline)
        while True:
            stream = self._stream(after.offset_bytes)
            if stream.holds(after.offset_bytes) or after.offset_bytes < self._oldest:
                return True
            left_s = deadline.left_s(self._clock)
            if left_s == 0.0:
                if self._end > after.offset_bytes:
                    stream.nudge(self._clock.monotonic())
                return False
            await self._hear(left_s)

    def read(self, at: Position, *, end: Position | None = None, records_max: int, bytes_max: int) -> Chunk:
        self._check(at)
        offset, limit = at.offset_bytes, self.synced_end().offset_bytes
        if end is not None:
            limit = min(limit, end.offset_bytes)
        if offset < self._oldest:
            next = min(self._oldest, limit)
            return Chunk((), self._position(next), (self._lost(offset, next),)) if next > offset else Chunk((), at)
        stream = self._fresh if end is None else self._backlog
        if not stream.covers(offset):
            stream.begin(offset, self._clock.monotonic())
            return Chunk((), at)
        taken = stream.take(offset, limit, records_max=records_max, bytes_max=bytes_max)
        frames = [Frame(payload, self._position(each + 1)) for each, payload in taken.records]
        damage = () if taken.lost is None else (self._lost(*taken.lost),)
        return Chunk(frames, self._position(taken.next), damage)

    def forget(self, before: Position) -> int:
        self._check(before)
        return 0

    def renew(self, topic: Topic) -> None:
        """The topic was made anew: positions of the old one are refused from now on."""
        self._topic = topic
        self._asked, self._oldest, self._end = 0, -1, -1
        self.begin_again()
        self.ask()

    def begin_again(self) -> None:
        """Fetch anew from where the streams are."""
        for stream in (self._fresh, self._backlog):
            if stream.base >= 0:
                stream.begin(stream.next, self._clock.monotonic())

    async def until_known(self, deadline: Deadline) -> None:
        """Until the bounds were told, or the deadline passed."""
        while not self.known and (left_s := deadline.left_s(self._clock)) > 0:
            await self._hear(left_s)

    async def _hear(self, timeout_s: float) -> None:
        """Until something new came, or so long."""
        self._news.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._news.wait()

    def ask(self) -> None:
        """Ask for the partition's bounds."""
        self._feed.ask(self.partition)

    def take(self, delivery: Delivery, *, fresh: bool) -> None:
        """What a feed found."""
        if delivery.bounds is not None:
            self._oldest, end = delivery.bounds
            self._end = max(end, 0)
            self._asked += 1
        else:
            read = delivery.records[-1][0] + 1 if delivery.records else 0
            self._end = max(self._end, delivery.end, read)
        stream = self._fresh if fresh else self._backlog
        stream.add(delivery, self._clock.monotonic())
        self._news.set()

    def _stream(self, offset: int) -> Stream:
        """The one that has got to ``offset``; the fresh one is sent there when none has."""
        for stream in (self._fresh, self._backlog):
            if stream.covers(offset):
                return stream
        self._fresh.begin(offset, self._clock.monotonic())
        return self._fresh

    async def _refute(self, after: Position, deadline: Deadline) -> None:
        """Raise Displaced when the log certainly ends before ``after``."""
        offset = after.offset_bytes
        if self.synced_end().offset_bytes >= offset:
            self._beyond.clear()
            return
        asked = self._asked
        self.ask()
        while self._asked == asked and (left_s := deadline.left_s(self._clock)) > 0:
            await self._hear(left_s)
        if self._asked == asked:
            return
        if self._end >= offset:
            self._beyond.clear()
            return
        now = self._clock.monotonic()
        since = self._beyond.setdefault(offset, now)
        if now - since >= self._beyond_s:
            self._beyond.clear()
            raise Displaced(f"partition {self.partition} at {offset}", f"it ends at {self._end}")

    def _check(self, at: Position) -> None:
        if at.log_id != self._log_id:
            raise Corrupt("position", f"log {at.log_id.hex()} is not this log, {self._log_id.hex()}")
        if at.segment_id != SEGMENT:
            raise Displaced(f"segment {at.segment_id}", f"a partition has segment {SEGMENT} only")
        if at.salt and self._topic.id and at.salt != self._topic.id:
            raise Displaced(f"partition {self.partition}", "the topic was deleted and made anew under the same name")

    def _position(self, offset: int) -> Position:
        return Position(self._log_id, SEGMENT, offset, self._topic.id)

    def _lost(self, start: int, end: int) -> Damage:
        return Damage(SEGMENT, start, end, "Kafka deleted records before they were read", gone=True)


class Partitions:
    """Readers of all partitions of the topic; ``find`` is what the router asks.

    ``async with`` starts two consumers. Register ``watch`` with a supervisor.
    """

    def __init__(self, client: Client, settings: Settings, watch: TopicWatch, *, clock: Clock) -> None:
        self._settings = settings
        self._watch = watch
        self._clock = clock
        self._readers: dict[int, PartitionReader] = {}
        self._missing = "nobody has asked for partitions yet"
        self._fresh = Feed(client, settings, "kafka.fresh", lambda delivery: self._take(delivery, fresh=True))
        self._backlog = Feed(client, settings, "kafka.backlog", lambda delivery: self._take(delivery, fresh=False))
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Partitions:
        for feed in (self._fresh, self._backlog):
            await self._stack.enter_async_context(feed)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def find(self) -> Mapping[str, JournalReader]:
        """Every partition whose leader has told its bounds, by name; the others when asked next.

        None while the topic isn't known: that must not keep a router from the other logs it reads. ``watch`` is unready
        as long, and says why.
        """
        try:
            topic = self._watch.topic or await self._watch.look()
        except Unavailable as error:
            self._say(str(error))
            return {}
        for partition in range(topic.partitions):
            if partition not in self._readers:
                self._readers[partition] = PartitionReader(
                    topic, partition, self._fresh, self._backlog, fetch_bytes=self._settings.fetch_bytes,
                    clock=self._clock,
                )  # fmt: skip
        unknown = [reader for reader in self._readers.values() if not reader.known]
        for reader in unknown:
            reader.ask()
        deadline = Deadline.after(OPEN_S, self._clock)
        for reader in unknown:
            await reader.until_known(deadline)
        found = {f"{topic.name}-{n}": reader for n, reader in self._readers.items() if reader.known}
        self._say("" if found else f"no partition of topic {topic.name} tells its bounds")
        return found

    def _say(self, missing: str) -> None:
        """Why nothing is read, "" when something is; logged once."""
        if missing and missing != self._missing:
            log.warning("nothing is read from Kafka", extra=fields(cause=missing))
        self._missing = missing

    async def watch(self, heart: Heart) -> None:
        """Replace a consumer's thread that died, and notice a topic made anew; for a supervisor. Unready while nothing
        can be read."""
        while True:
            for feed in (self._fresh, self._backlog):
                if not feed.alive:
                    log.error("a thread that fetches from Kafka died", extra=fields(feed=feed.name))
                    feed.start()
                    for reader in self._readers.values():
                        reader.begin_again()
            topic = self._watch.topic
            for reader in self._readers.values():
                if topic is not None and topic.id != reader.topic_id:
                    reader.renew(topic)
            if self._missing:
                heart.unready(self._missing)
            else:
                await heart.beat()
            await asyncio.sleep(TICK_S)

    def _take(self, delivery: Delivery, *, fresh: bool) -> None:
        reader = self._readers.get(delivery.partition)
        if reader is not None:
            reader.take(delivery, fresh=fresh)
        else:
            log.debug("a delivery for nobody", extra=fields(partition=delivery.partition))
