"""A journal in memory that keeps the seam's promises, except the one that matters: it dies with its process.

It answers in the event loop's next round, never inside ``submit``; a test holds answers back with ``hold`` and breaks
it with ``refuse`` and ``fail``.
"""

from __future__ import annotations

import asyncio
import os
from bisect import bisect_right
from dataclasses import dataclass, field

from seawall.kernel.error import Corrupt, Overloaded, SeawallError, Unavailable, Uncertain
from seawall.kernel.seam.journal import Chunk, Damage, Displaced, Done, Frame, Position

SEGMENT_HEADER_BYTES = 64
FRAME_HEADER_BYTES = 32


@dataclass(slots=True)
class _Segment:
    """Payloads in order, and the offset just after each."""

    payloads: list[bytes] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    salt: bytes = field(default_factory=lambda: os.urandom(16))

    @property
    def end_bytes(self) -> int:
        return self.ends[-1] if self.ends else SEGMENT_HEADER_BYTES


class MemoryJournal:
    """Implements ``Journal``; ``reader()`` gives a ``JournalReader`` of what was kept.

    Args:
        records_max: Submitted and not yet answered records beyond which ``submit`` raises Overloaded.
        segment_bytes_max: A segment that reached it takes no further record, so that tests meet segment borders.
    """

    def __init__(self, *, records_max: int = 10_000, segment_bytes_max: int = 1024 * 1024) -> None:
        self.log_id = os.urandom(16)
        self.segments: dict[int, _Segment] = {1: _Segment()}
        self._records_max = records_max
        self._segment_bytes_max = segment_bytes_max
        self._pending: list[tuple[bytes, Done]] = []
        self._refusal: SeawallError | None = None
        self._held = False
        self._scheduled = False
        self._wakers: set[asyncio.Event] = set()

    @property
    def refusal(self) -> SeawallError | None:
        return self._refusal

    @property
    def payloads(self) -> list[bytes]:
        """Everything that was kept and not forgotten, in order."""
        return [payload for segment in self.segments.values() for payload in segment.payloads]

    @property
    def waiting(self) -> int:
        """Records that are submitted and not answered."""
        return len(self._pending)

    @property
    def synced_end(self) -> Position:
        newest = max(self.segments)
        return Position(self.log_id, newest, self.segments[newest].end_bytes, self.segments[newest].salt)

    def submit(self, payload: bytes, done: Done) -> None:
        if self._refusal is not None:
            raise self._refusal
        if len(self._pending) >= self._records_max:
            raise Overloaded("the journal's queue is full")
        self._pending.append((payload, done))
        self._schedule()

    def reader(self) -> MemoryReader:
        return MemoryReader(self)

    def hold(self) -> None:
        """Keep what is submitted unanswered, as a hung disk does, until ``release``."""
        self._held = True

    def release(self) -> None:
        self._held = False
        if self._pending:
            self._schedule()

    def refuse(self, error: SeawallError | None) -> None:
        """What ``submit`` raises from now on; None: nothing."""
        self._refusal = error

    def fail(self) -> None:
        """A sync failed: what is pending is Uncertain, and nothing will be taken any more."""
        self._refusal = Unavailable("journal", "fsync failed: this process will not acknowledge again")
        pending, self._pending = self._pending, []
        for _, done in pending:
            done(Uncertain("the journal's fsync failed"))

    def _schedule(self) -> None:
        if not self._scheduled and not self._held:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._commit)

    def _commit(self) -> None:
        self._scheduled = False
        if self._held:
            return
        pending, self._pending = self._pending, []
        answers = [(done, self._keep(payload)) for payload, done in pending]
        for waker in self._wakers:
            waker.set()
        for done, position in answers:
            done(position)

    def _keep(self, payload: bytes) -> Position:
        newest = max(self.segments)
        segment = self.segments[newest]
        if segment.end_bytes >= self._segment_bytes_max:
            newest += 1
            segment = self.segments[newest] = _Segment()
        segment.ends.append(segment.end_bytes + FRAME_HEADER_BYTES + len(payload))
        segment.payloads.append(payload)
        return Position(self.log_id, newest, segment.ends[-1], segment.salt)

    def add_waker(self, waker: asyncio.Event) -> None:
        self._wakers.add(waker)

    def drop_waker(self, waker: asyncio.Event) -> None:
        self._wakers.discard(waker)


class MemoryReader:
    """Reads a MemoryJournal. Any number of readers may stand beside each other."""

    def __init__(self, journal: MemoryJournal) -> None:
        self._journal = journal

    @property
    def log_id(self) -> bytes:
        return self._journal.log_id

    def start(self) -> Position:
        return self._top(min(self._journal.segments))

    def _top(self, segment_id: int) -> Position:
        return Position(self.log_id, segment_id, SEGMENT_HEADER_BYTES, self._journal.segments[segment_id].salt)

    def synced_end(self) -> Position:
        return self._journal.synced_end

    async def wait(self, after: Position, timeout_s: float) -> bool:
        if self.synced_end() < after:
            raise Displaced(f"segment {after.segment_id} at {after.offset_bytes}", "the log ends before it")
        waker = asyncio.Event()
        self._journal.add_waker(waker)
        try:
            async with asyncio.timeout(timeout_s):
                while self.synced_end() <= after:
                    waker.clear()
                    await waker.wait()
        except TimeoutError:
            return False
        finally:
            self._journal.drop_waker(waker)
        return True

    def read(self, at: Position, *, end: Position | None = None, records_max: int, bytes_max: int) -> Chunk:
        segments = self._journal.segments
        self._check(at)
        limit = self.synced_end() if end is None else min(end, self.synced_end())
        frames: list[Frame] = []
        size_bytes = 0
        damage: list[Damage] = []
        if at.segment_id not in segments:
            damage.append(Damage(at.segment_id, 0, 0, "the segment is missing"))
            at = self._top(min(id for id in segments if id > at.segment_id))
        while at < limit and len(frames) < records_max:
            segment = segments[at.segment_id]
            index = bisect_right(segment.ends, at.offset_bytes)
            if index == len(segment.ends):
                if at.segment_id + 1 not in segments:
                    break
                at = self._top(at.segment_id + 1)
                continue
            payload = segment.payloads[index]
            after = Position(self.log_id, at.segment_id, segment.ends[index], segment.salt)
            size_bytes += len(payload)
            if after > limit or (frames and size_bytes > bytes_max):
                break
            frames.append(Frame(payload, after))
            at = after
        return Chunk(frames, at, damage)

    def forget(self, before: Position) -> int:
        segments = self._journal.segments
        self._check(before)
        gone = [id for id in segments if id < min(before.segment_id, max(segments))]
        for id in gone:
            del segments[id]
        return len(gone)

    def _check(self, at: Position) -> None:
        if at.log_id != self.log_id:
            raise Corrupt("position", f"log {at.log_id.hex()} is not this log, {self.log_id.hex()}")
        segments = self._journal.segments
        if at == self.start():
            return
        if at.segment_id > max(segments):
            raise Displaced(f"segment {at.segment_id}", f"the log ends in segment {max(segments)}")
        if at.salt and at.segment_id in segments and at.salt != segments[at.segment_id].salt:
            raise Displaced(f"segment {at.segment_id}", "it was written anew under the same number")
