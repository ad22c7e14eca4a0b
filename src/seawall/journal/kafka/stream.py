"""What was fetched ahead of one partition and not yet let go of: a stretch of records from ``base`` to ``next``.

Records are let go of only when reading starts beyond them, so that a batch whose transaction failed is read again
without Kafka. Bounded: a full stream holds its feed back.

A partition can lose its newest records and take others at their offsets, so an offset alone is no place in it. Fetching
therefore begins with the record before the place, which must be the one that was read there: Kafka's logs agree on
everything before a record that they share. It begins so again whenever the log may have gone back meanwhile: after each
change of the leader that wrote it, and after every broker was away (docs/decisions/0015).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from seawall.journal.kafka.feed import Delivery, Feed, Found
from seawall.kernel.event import event_id_of

RESUME_SHARE = 0.5
RETRY_S = 5.0
"""Silence after which a stream that should have records is begun again: a command may have failed."""


def witness_of(payload: bytes, epoch: int) -> bytes:
    """What a record is known by, 20 bytes: the leader's epoch as it was written, and its event. None of two records
    that ever were at one offset has the other's epoch, as long as the cluster's own metadata went forth."""
    return epoch.to_bytes(4, "big", signed=True) + event_id_of(payload)


@dataclass(slots=True)
class Taken:
    """What one reading took; ``lost`` are offsets passed over since nothing is there any more."""

    records: list[Found] = field(default_factory=list)
    next: int = 0
    lost: tuple[int, int] | None = None


class Stream:
    """One partition, read ahead by one feed."""

    def __init__(self, feed: Feed, partition: int, bytes_max: int) -> None:
        self._feed = feed
        self._partition = partition
        self._bytes_max = bytes_max
        self._records: deque[Found] = deque()
        self._size_bytes = 0
        self._turn = 0
        self._begun_at = 0.0
        self.oldest = 0  # what lies before can't be a witness any more
        self.forget()

    def forget(self) -> None:
        """As if nothing had been asked for yet."""
        self._clear(-1)

    def _clear(self, at: int) -> None:
        self._records.clear()
        self._size_bytes, self._held = 0, False
        self._doubted = -1  # a gap at this offset was seen once
        self._proving = False  # the record before ``next`` is still to come
        self._proven = -1  # up to here the log is what was read, whoever leads it
        self._interrupted = False
        self._epoch = -1  # of the record before ``next``
        self._witness = b""  # of the same; b"": not known, so it is taken as it is found
        self._first = b""  # of the record before ``base``
        self.refuted = False  # the record before ``next`` isn't the one that was read
        self.base = self.next = at  # -1: nothing was asked for yet

    @property
    def turn(self) -> int:
        return self._turn

    @property
    def wants(self) -> bool:
        """Whether it should get what the partition has at ``next``."""
        return self.base >= 0 and not self._held and not self.refuted

    def covers(self, offset: int, witness: bytes = b"") -> bool:
        """Whether it has got to ``offset``, on the same way: with this record just before it."""
        if self.base < 0 or not self.base <= offset <= self.next:
            return False
        if not witness:
            return True
        if offset == self.next:
            return self._witness in (b"", witness)
        index = offset - 1 - self._records[0][0] if self._records else -1
        if index < 0:
            return self._first in (b"", witness)
        _, payload, epoch = self._records[min(index, len(self._records) - 1)]
        return witness_of(payload, epoch) == witness

    def before(self, offset: int) -> bytes:
        """The witness of the record just before ``offset``, where it has got to; b"" as long as that isn't proven."""
        return self._witness if offset == self.next and not self._proving and not self.refuted else b""

    def holds(self, offset: int) -> bool:
        """Whether something at or after ``offset`` can be read now."""
        return self.covers(offset) and bool(self._records) and self._records[-1][0] >= offset

    def begin(self, offset: int, now: float, witness: bytes = b"") -> None:
        """Fetch from ``offset`` on, whatever was fetched before. ``witness`` is of the record that was read before."""
        doubted = self._doubted
        self._clear(offset)
        self._doubted, self._witness, self._first = doubted, witness, witness
        self._fetch(now)

    def again(self, now: float) -> None:
        """Fetch again from where it is, and see whether the log still is what was read up to there."""
        if self.base >= 0 and not self.refuted:
            self._fetch(now)

    def nudge(self, now: float) -> None:
        """``again`` when nothing came for long, though there is more."""
        if now - self._begun_at > RETRY_S:
            self.again(now)

    def bounded(self, oldest: int, now: float) -> None:
        """What the partition keeps begins there."""
        self.oldest = oldest
        if self._proving and oldest >= self.next:
            self._fetch(now)  # the witness was deleted, with all before it: nothing that is kept can have been missed

    def _fetch(self, now: float) -> None:
        self._turn += 1
        self._held = self._interrupted = False
        self._begun_at = now
        self._proving = self.next > self.oldest
        if not self._proving:
            self._proven = self.next
        self._feed.begin(self._partition, self.next - self._proving, self._turn)

    def add(self, delivery: Delivery, now: float) -> None:
        """Take over what came; of another turn, nothing."""
        if delivery.turn != self._turn or self.refuted:
            return
        self._interrupted |= delivery.interrupted
        if not delivery.records:
            return
        if self._interrupted:
            self.again(now)
            return
        last = None
        for record in delivery.records:
            if self._proving and not self._prove(record, now):
                break
            offset, payload, epoch = record
            if offset < self.next:
                continue
            if self._astray(offset, epoch, last, now):
                return
            self._records.append(record)
            self._size_bytes += len(payload)
            self.next, self._epoch, last = offset + 1, epoch, record
        self._remember(last, now)
        if not self._held and self._size_bytes > self._bytes_max:
            self._held = True
            self._feed.pause(self._partition, on=True)

    def _remember(self, last: Found | None, now: float) -> None:
        if last is not None:
            self._witness = witness_of(last[1], last[2])
            self._begun_at = now

    def _prove(self, record: Found, now: float) -> bool:
        """Whether reading may go on after a record that came while the witness was awaited."""
        offset, payload, epoch = record
        if offset < self.next - 1:
            return True
        there = offset == self.next - 1
        if not there and self._doubted != self.next - 1:
            self._doubted = self.next - 1
            self._fetch(now)
            return False
        found = witness_of(payload, epoch) if there else b""
        if self._witness and found != self._witness:
            self.refuted = True
            return False
        self._proving, self._proven = False, self.next
        if there:
            self._witness, self._epoch = found, epoch
        if self.base == self.next:
            self._first = found
        self._begun_at = now
        return True

    def _astray(self, offset: int, epoch: int, last: Found | None, now: float) -> bool:
        """Whether a record doesn't simply follow: then it is fetched again, so that nothing is passed over unseen."""
        if offset > self.next and self._doubted != self.next:
            # Offsets of a partition have gaps only where records were deleted. One is believed when it is seen
            # twice: passing over a record would lose it.
            self._doubted = self.next
            self.begin(self.next, now, witness_of(last[1], last[2]) if last else self._witness)
            return True
        if epoch != self._epoch and self._proven != self.next:
            # Another leader wrote it. What we read last may be gone since, with more before it.
            self._remember(last, now)
            self._fetch(now)
            return True
        return False

    def take(self, at: int, limit: int, *, records_max: int, bytes_max: int) -> Taken:
        """Records from ``at`` on and before ``limit``; what lies before ``at`` is let go of. It must cover ``at``."""
        records = self._records
        passed = None
        while records and records[0][0] < at:
            passed = records.popleft()
            self._size_bytes -= len(passed[1])
        if passed is not None:
            self._first = witness_of(passed[1], passed[2])
        self.base = at
        if self._held and self._size_bytes < self._bytes_max * RESUME_SHARE:
            self._held = False
            self._feed.pause(self._partition, on=False)
        taken = Taken(next=at)
        if records and records[0][0] > at:
            taken.lost = (at, min(records[0][0], limit))
            taken.next = taken.lost[1]
        size_bytes = 0
        for record in records:
            offset = record[0]
            size_bytes += len(record[1])
            if offset >= limit or len(taken.records) >= records_max or (taken.records and size_bytes > bytes_max):
                break
            if offset > taken.next:
                break  # another gap: told by the next reading, which begins at it
            taken.records.append(record)
            taken.next = offset + 1
        return taken
