"""What was fetched ahead of one partition and not yet let go of: a stretch of records from ``base`` to ``next``.

Records are let go of only when reading starts beyond them, so that a batch whose transaction failed is read again
without Kafka. Bounded: a full stream holds its feed back.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from seawall.journal.kafka.feed import Delivery, Feed, Found

RESUME_SHARE = 0.5
RETRY_S = 5.0
"""Silence after which a stream that should have records is begun again: a command may have failed."""


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
        self._held = False
        self._turn = 0
        self._doubted = -1  # a gap at this offset was seen once
        self._begun_at = 0.0
        self.base = -1  # -1: nothing was asked for yet
        self.next = -1

    @property
    def turn(self) -> int:
        return self._turn

    def covers(self, offset: int) -> bool:
        return self.base >= 0 and self.base <= offset <= self.next

    def holds(self, offset: int) -> bool:
        """Whether something at or after ``offset`` can be read now."""
        return self.covers(offset) and bool(self._records) and self._records[-1][0] >= offset

    def begin(self, offset: int, now: float) -> None:
        """Fetch from ``offset`` on, whatever was fetched before."""
        self._turn += 1
        self._records.clear()
        self._size_bytes, self._held = 0, False
        self.base = self.next = offset
        self._begun_at = now
        self._feed.begin(self._partition, offset, self._turn)

    def nudge(self, now: float) -> None:
        """Begin again when nothing came for long, though there is more."""
        if now - self._begun_at > RETRY_S:
            self.begin(self.next, now)

    def add(self, delivery: Delivery, now: float) -> None:
        """Take over what came; of another turn, nothing."""
        if delivery.turn != self._turn:
            return
        for offset, payload in delivery.records:
            if offset < self.next:
                continue
            if offset > self.next and self._doubted != self.next:
                # Offsets of a partition have gaps only where records were deleted. One is believed when it is seen
                # twice: passing over a record would lose it.
                self._doubted = self.next
                self.begin(self.next, now)
                return
            self._records.append((offset, payload))
            self._size_bytes += len(payload)
            self.next = offset + 1
            self._begun_at = now
        if not self._held and self._size_bytes > self._bytes_max:
            self._held = True
            self._feed.pause(self._partition, on=True)

    def take(self, at: int, limit: int, *, records_max: int, bytes_max: int) -> Taken:
        """Records from ``at`` on and before ``limit``; what lies before ``at`` is let go of. It must cover ``at``."""
        records = self._records
        while records and records[0][0] < at:
            self._size_bytes -= len(records.popleft()[1])
        self.base = at
        if self._held and self._size_bytes < self._bytes_max * RESUME_SHARE:
            self._held = False
            self._feed.pause(self._partition, on=False)
        taken = Taken(next=at)
        if records and records[0][0] > at:
            taken.lost = (at, min(records[0][0], limit))
            taken.next = taken.lost[1]
        size_bytes = 0
        for offset, payload in records:
            size_bytes += len(payload)
            if offset >= limit or len(taken.records) >= records_max or (taken.records and size_bytes > bytes_max):
                break
            if offset > taken.next:
                break  # another gap: told by the next reading, which begins at it
            taken.records.append((offset, payload))
            taken.next = offset + 1
        return taken
