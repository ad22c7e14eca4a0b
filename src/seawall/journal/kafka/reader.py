"""Reads one partition by position: the router's view of Kafka.

A reader has two streams, one that follows the log and one for stretches with an end: so fresh records are fetched
beside a backlog, each from its own offset.
"""

from __future__ import annotations

import asyncio
import contextlib

from seawall.journal.kafka.fault import KAFKA
from seawall.journal.kafka.feed import Delivery, Feed
from seawall.journal.kafka.refuted import Refuted
from seawall.journal.kafka.stream import Stream, witness_of
from seawall.journal.kafka.topic import SEGMENT
from seawall.journal.topic import Topic
from seawall.kernel.clock import Clock, Deadline
from seawall.kernel.error import Corrupt, Unavailable
from seawall.kernel.seam.journal import Chunk, Damage, Frame, Position, Replaced, WentBack

BEYOND_S = 10.0
"""How long the leader must say that the partition ends before a position, until that is believed: a new leader's end
lags behind for a moment."""

ID_BYTES = 16
NO_ID = b"\xff" * ID_BYTES
"""In the place of a topic's id that the brokers don't say."""


# Size: one contract, whose methods share where the log begins and ends.
class PartitionReader:
    """Implements ``JournalReader`` for one partition of one topic.

    ``read`` gives what was fetched already and ``wait`` fetches. Retention is the topic's, so ``forget`` forgets
    nothing. A position's salt is the topic's id, and behind it the witness: what the record just before it is known by.
    Without one (nothing was read before it) the record is taken as it is found.
    """

    def __init__(
        self, topic: Topic, partition: int, fresh: Feed, backlog: Feed, *, fetch_bytes: int, clock: Clock,
        beyond_s: float = BEYOND_S,
    ) -> None:  # fmt: skip
        self.partition = partition
        self._id = topic.id or NO_ID
        self._log_id = topic.log_id(partition)
        self._former: set[bytes] = set()  # log ids of clusters that were here before
        self._feed = fresh
        self._fresh = Stream(fresh, partition, fetch_bytes)
        self._backlog = Stream(backlog, partition, fetch_bytes)
        self.streams = (self._fresh, self._backlog)
        self._clock = clock
        self._beyond_s = beyond_s
        self._oldest = -1
        self._end = -1
        self._cached = [-1, -1]  # by stream: the end that its feed said last
        self._asked = 0  # answers about the bounds
        self._beyond: dict[int, float] = {}  # by offset: since when the leader says that the log ends before it
        self._refuted = Refuted(clock)
        self._news = asyncio.Event()

    @property
    def known(self) -> bool:
        """Whether the leader has told the partition's bounds."""
        return self._asked > 0

    @property
    def log_id(self) -> bytes:
        return self._log_id

    def start(self) -> Position:
        if not self.known:
            raise Unavailable(KAFKA, f"partition {self.partition} hasn't told its bounds yet")
        return self._position(self._oldest)

    def synced_end(self) -> Position:
        return self._position(max(self._end, self._oldest, 0))

    async def wait(self, after: Position, timeout_s: float) -> bool:
        """True also says that ``read`` at ``after`` has something to give."""
        self._check(after)
        deadline = Deadline.after(timeout_s, self._clock)
        await self._refute(after, deadline)
        while True:
            stream = self._stream(after)
            if stream.holds(after.offset_bytes) or after.offset_bytes < self._oldest or stream.refuted:
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
        if not stream.covers(offset, at.salt[ID_BYTES:]):
            stream.begin(offset, self._clock.monotonic(), at.salt[ID_BYTES:])
            return Chunk((), at)
        if stream.refuted and offset == stream.next:
            raise self._went_back(at, "holds another record before it than was read there")
        taken = stream.take(offset, limit, records_max=records_max, bytes_max=bytes_max)
        frames = [
            Frame(payload, self._position(each + 1, witness_of(payload, epoch)))
            for each, payload, epoch in taken.records
        ]
        damage = () if taken.lost is None else (self._lost(*taken.lost),)
        if frames:
            return Chunk(frames, frames[-1].end, damage)
        if taken.next != offset:
            return Chunk((), self._position(taken.next), damage)
        # A place that nothing was read before learns its witness, too: a split's, whose older part ends there.
        witness = b"" if at.salt[ID_BYTES:] else stream.before(offset)
        return Chunk((), self._position(offset, witness) if witness else at, damage)

    def forget(self, before: Position) -> int:
        self._check(before)
        return 0

    def renew(self, topic: Topic) -> None:
        """It is another topic now, or of another cluster: positions of the old one are refused from now on."""
        self._id = topic.id or NO_ID
        self._former.add(self._log_id)
        self._log_id = topic.log_id(self.partition)
        self._former.discard(self._log_id)
        self._asked, self._oldest, self._end, self._cached = 0, -1, -1, [-1, -1]
        self._beyond.clear()
        self._refuted.clear()
        for stream in self.streams:
            stream.oldest = 0
            stream.forget()
        self.ask()

    def begin_again(self, feed: Feed) -> None:
        """A feed's consumer is a new one: fetch anew from where its stream is."""
        (self._fresh if feed is self._feed else self._backlog).again(self._clock.monotonic())

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

    def told(self, end: int, before: int) -> None:
        """Somebody beside our consumers asked for the end; ``before`` is how far we had read when that began."""
        if end < before:
            # Nothing is certain yet. But from now on whoever waits there asks, and what comes is proven first.
            self._end = end
            for stream in self.streams:
                stream.again(self._clock.monotonic())
        else:
            self._end = max(self._end, end)
        self._news.set()

    def take(self, delivery: Delivery, *, fresh: bool) -> None:
        """What a feed found."""
        now = self._clock.monotonic()
        stream = self._fresh if fresh else self._backlog
        if delivery.bounds is not None:
            self._oldest, end = delivery.bounds
            self._end = max(end, 0)
            self._asked += 1
            for each in self.streams:
                each.bounded(self._oldest, now)
        else:
            self._ends(delivery, fresh)
            stream.add(delivery, now)
            if stream.refuted:
                self._suspend()
        self._news.set()

    def _ends(self, delivery: Delivery, fresh: bool) -> None:
        """What it says of the end; what a feed only repeats is old, and may be of a log that has gone back since."""
        read = delivery.records[-1][0] + 1 if delivery.records else 0
        new = delivery.end if delivery.end != self._cached[fresh] else 0
        self._cached[fresh] = delivery.end
        self._end = max(self._end, new, read)

    def _suspend(self) -> None:
        """The log went back, so its bounds may have too: nothing begins before they were asked for again."""
        if self._asked:
            self._asked = 0
            self.ask()

    def _stream(self, at: Position) -> Stream:
        """The one that has got to ``at``; the fresh one is sent there when none has."""
        for stream in self.streams:
            if stream.covers(at.offset_bytes, at.salt[ID_BYTES:]):
                return stream
        self._fresh.begin(at.offset_bytes, self._clock.monotonic(), at.salt[ID_BYTES:])
        return self._fresh

    async def _refute(self, after: Position, deadline: Deadline) -> None:
        """Raise WentBack when the log certainly ends before ``after``."""
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
            raise self._went_back(after, f"ends at {self._end}")

    def _went_back(self, at: Position, how: str) -> WentBack:
        """Of this place nothing is believed any more, nor anything that was fetched ahead of it."""
        self._refuted.add(at)
        for stream in self.streams:
            stream.forget()
        return self._displaced(at, f"it {how}")

    def _displaced(self, at: Position, how: str) -> WentBack:
        return WentBack(f"partition {self.partition} at {at.offset_bytes}", how, at)

    def _check(self, at: Position) -> None:
        if at.log_id in self._former:
            raise Replaced(f"partition {self.partition}", "the brokers are another cluster's now")
        if at.log_id != self._log_id:
            raise Corrupt("position", f"log {at.log_id.hex()} is not this log, {self._log_id.hex()}")
        if at.segment_id != SEGMENT:
            raise Replaced(f"segment {at.segment_id}", f"a partition has segment {SEGMENT} only")
        if at.salt and at.salt[:ID_BYTES] != self._id and NO_ID not in (at.salt[:ID_BYTES], self._id):
            raise Replaced(f"partition {self.partition}", "the topic was deleted and made anew under the same name")
        if at in self._refuted:
            raise self._displaced(at, "it isn't what was read there")

    def _position(self, offset: int, witness: bytes = b"") -> Position:
        return Position(self._log_id, SEGMENT, offset, self._id + witness)

    def _lost(self, start: int, end: int) -> Damage:
        return Damage(SEGMENT, start, end, "Kafka deleted records before they were read", gone=True)
