"""Reads the segments of one log by position; synchronous, and it never writes but to forget whole segments."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from seawall.journal.frame import HEADER_BYTES, Codec, Header
from seawall.journal.scan import Found, Range, scan
from seawall.journal.segment import read_header, segment_ids, segment_path
from seawall.kernel.error import Corrupt
from seawall.kernel.seam.filesystem import File, Filesystem
from seawall.kernel.seam.journal import Chunk, Damage, Displaced, Frame, Position

_STEP_BYTES = 8 * 1024 * 1024
_MISSING = "the segment is missing"


@dataclass(slots=True)
class _Segment:
    """An open segment; ``header`` and ``codec`` are None when its header is unreadable."""

    id: int
    file: File
    header: Header | None
    codec: Codec | None

    @property
    def salt(self) -> bytes:
        return self.header.salt if self.header is not None else b""


class Cursor:
    """Reads one log's folder up to a limit that the caller knows to be synced."""

    def __init__(self, folder: Path, log_id: bytes, filesystem: Filesystem) -> None:
        self._folder = folder
        self._log_id = log_id
        self._filesystem = filesystem
        self._segment: _Segment | None = None
        self._expected: tuple[Position, int] | None = None  # the sequence number that comes at a position

    def close(self) -> None:
        """Harmless when called twice."""
        if self._segment is not None:
            self._segment.file.close()
            self._segment = None

    def ids(self) -> list[int]:
        return segment_ids(self._filesystem, self._folder)

    def start(self) -> Position:
        """The oldest position that can be read."""
        ids = self.ids()
        return self._top(ids[0] if ids else 1)

    def read(self, at: Position, limit: Position, *, records_max: int, bytes_max: int) -> Chunk:
        """See ``JournalReader.read``; ``limit`` is a frame's end."""
        ids = self.ids()
        self._check(at, ids)
        reading = _Reading(records_max, bytes_max)
        if at.segment_id not in ids and ids and at.segment_id < ids[-1]:
            at = self._pass_lost(at, limit, ids, reading)
        while at < limit and not reading.done:
            end = limit.offset_bytes if at.segment_id == limit.segment_id else self._certain_end(at.segment_id, ids)
            if at.offset_bytes < end:
                after = self._read_segment(at, end, reading)
                if after == at:
                    break  # the next record is more than may still be read
                at = after
            elif at.segment_id < min(limit.segment_id, ids[-1] if ids else 0):
                at = self._next_segment(at, ids, reading)
            else:
                break
        return Chunk(reading.frames, at, reading.damage)

    def proven_end(self, after: Position) -> Position:
        """The latest position, not before ``after``, that the files alone prove to be synced: a batch is begun only
        when the one before is synced, so the newest batch's first frame proves everything before it."""
        for id in reversed(self.ids()):
            if id < after.segment_id:
                break
            segment = self._open(id)
            if segment.codec is None:
                continue
            at = after.offset_bytes if id == after.segment_id else HEADER_BYTES
            end = _last_batch(segment.file, segment.codec, at)
            if end == HEADER_BYTES:
                self.close()  # as in `_top`
            return Position(self._log_id, id, end, segment.salt)
        return after

    def settled(self, at: Position) -> Position:
        """The same place, as the end of the segment before when ``at`` is the top of one. A segment without a frame is
        removed after a crash and made again under another salt: nobody's position may lie in it."""
        ids = self.ids()
        if at.offset_bytes > HEADER_BYTES or at.segment_id not in ids or at.segment_id - 1 not in ids:
            return at
        end = self._certain_end(at.segment_id - 1, ids)
        return Position(self._log_id, at.segment_id - 1, end, self._open(at.segment_id - 1).salt)

    def forget(self, before: Position) -> int:
        """See ``JournalReader.forget``. Oldest first: interrupted, it leaves no gap."""
        ids = self.ids()
        self._check(before, ids)
        gone = [id for id in ids[:-1] if id < before.segment_id]
        for id in gone:
            if self._segment is not None and self._segment.id == id:
                self.close()
            self._filesystem.remove(segment_path(self._folder, id))
        if gone:
            self._filesystem.sync_folder(self._folder)
        return len(gone)

    def _top(self, segment_id: int) -> Position:
        """A segment's first position; without a salt while the segment isn't there, or its header is unreadable.

        It isn't kept open: one without a frame may be removed after a crash and made again, and what is written to its
        name then would never be seen.
        """
        salt = self._open(segment_id).salt if segment_id in self.ids() else b""
        self.close()
        return Position(self._log_id, segment_id, HEADER_BYTES, salt)

    def _check(self, at: Position, ids: list[int]) -> None:
        """Whether a position is a place in this log, or was one before its segment was lost."""
        where = f"segment {at.segment_id} at {at.offset_bytes}"
        if at.log_id != self._log_id:
            raise Corrupt("position", f"log {at.log_id.hex()} is not this log, {self._log_id.hex()}")
        if at.offset_bytes < HEADER_BYTES:
            raise Corrupt(where, "there is no such place in any log")
        newest = ids[-1] if ids else 0
        if at.offset_bytes == HEADER_BYTES and at.segment_id == (ids[0] if ids else 1):
            return  # the log's start, whoever wrote it: nothing lies before it
        if at.segment_id > newest:
            # The top of the segment that comes next is a position, also before that segment is there.
            if at.salt or at.segment_id > newest + 1 or at.offset_bytes > HEADER_BYTES:
                raise Displaced(where, f"the log ends in segment {newest}")
        elif at.segment_id in ids:
            segment = self._open(at.segment_id)
            if at.salt and segment.salt and at.salt != segment.salt:
                raise Displaced(where, "the segment was written anew under the same number")
            size = segment.file.size_bytes()
            if at.offset_bytes > size and at.segment_id != newest:
                size = self._certain_end(at.segment_id, ids)  # it may have lost its end since
            if at.offset_bytes > size:
                raise Displaced(where, f"the segment has only {size} bytes")

    def _pass_lost(self, at: Position, limit: Position, ids: list[int], reading: _Reading) -> Position:
        """Where to go on when the segment of a position is gone. Waiting for it would hold back all that comes after:
        so it is damage, like one that is missing between others."""
        reading.damage.append(Damage(at.segment_id, 0, 0, _MISSING))
        later = next(id for id in ids if id > at.segment_id)
        return self._next_segment(at, ids, reading) if later <= limit.segment_id else max(at, limit)

    def _open(self, segment_id: int) -> _Segment:
        if self._segment is not None and self._segment.id == segment_id and self._segment.codec is not None:
            return self._segment
        self.close()
        file = self._filesystem.open(segment_path(self._folder, segment_id), writable=False)
        header = read_header(file, self._log_id, segment_id)
        self._segment = _Segment(segment_id, file, header, Codec(header.salt) if header else None)
        return self._segment

    def _certain_end(self, segment_id: int, ids: list[int]) -> int:
        """Where the frames of a segment end that isn't the newest: the next one's header says so."""
        if segment_id + 1 in ids:
            file = self._filesystem.open(segment_path(self._folder, segment_id + 1), writable=False)
            try:
                header = read_header(file, self._log_id, segment_id + 1)
            finally:
                file.close()
            if header is not None:
                return header.previous_end
        segment = self._open(segment_id)
        size = segment.file.size_bytes()
        return _last_frame(segment.file, segment.codec, size) if segment.codec is not None else size

    def _read_segment(self, at: Position, end: int, reading: _Reading) -> Position:
        segment = self._open(at.segment_id)
        if segment.codec is None or segment.header is None:
            reading.damage.append(Damage(at.segment_id, at.offset_bytes, end, "the segment's header is unreadable"))
            self._expected = None
            return Position(self._log_id, at.segment_id, end, at.salt)
        found = scan(
            segment.file, segment.codec, at.offset_bytes, end,
            records_max=reading.records, bytes_max=reading.bytes, one_at_least=not reading.frames,
        )  # fmt: skip
        self._check_sequence(at, segment.header, found.frames, found.damage, reading)
        id, log_id, salt = at.segment_id, self._log_id, segment.salt
        reading.take([Frame(frame.payload, Position(log_id, id, frame.end, salt)) for frame in found.frames])
        reading.damage += [Damage(id, *part) for part in found.damage]
        after = Position(log_id, id, found.next, salt)
        self._expected = (after, found.frames[-1].sequence + 1) if found.frames and not found.damage else None
        return after

    def _check_sequence(
        self, at: Position, header: Header, frames: list[Found], damage: list[Range], reading: _Reading
    ) -> None:
        """Frames are numbered without gaps: a number that is missing while every byte is right is damage as well."""
        if not frames or damage:
            return
        expected = header.first_sequence if at.offset_bytes == HEADER_BYTES else None
        if self._expected is not None and self._expected[0] == at:
            expected = self._expected[1]
        first, last = frames[0], frames[-1]
        if expected is not None and first.sequence != expected:
            reason = f"records {expected} to {first.sequence - 1} are missing"
            reading.damage.append(Damage(at.segment_id, first.start, first.start, reason))
        if last.sequence - first.sequence != len(frames) - 1:
            reason = f"records between {first.sequence} and {last.sequence} are missing"
            reading.damage.append(Damage(at.segment_id, first.start, last.end, reason))

    def _next_segment(self, at: Position, ids: list[int], reading: _Reading) -> Position:
        """The top of the next segment that is there; each one that should be between is damage, never passed over."""
        later = next(id for id in ids if id > at.segment_id)
        reading.damage += [Damage(id, 0, 0, _MISSING) for id in range(at.segment_id + 1, later)]
        after = self._top(later)
        # What was read last may lie anywhere: whoever reads again what it couldn't keep comes back to this border.
        known = self._expected if self._expected is not None and self._expected[0] == at else None
        self._expected = (after, known[1]) if known is not None and later == at.segment_id + 1 else None
        return after


@dataclass(slots=True)
class _Reading:
    """What one read gathered, and may still gather."""

    records: int
    bytes: int
    frames: list[Frame] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return self.records <= 0 or (self.bytes <= 0 and bool(self.frames))

    def take(self, frames: list[Frame]) -> None:
        self.frames += frames
        self.records -= len(frames)
        self.bytes -= sum(len(frame.payload) for frame in frames)


def _last_batch(file: File, codec: Codec, at: int) -> int:
    """Where the last batch begins at or after ``at``; ``at`` when none does."""
    size = file.size_bytes()
    proven = at
    while at < size:
        found = scan(file, codec, at, size, records_max=1_000_000, bytes_max=_STEP_BYTES)
        for frame in found.frames:
            if frame.batch_start:
                proven = frame.start
        at = found.next
    return proven


def _last_frame(file: File, codec: Codec, size: int) -> int:
    """Where the last frame ends."""
    at = end = HEADER_BYTES
    while at < size:
        found = scan(file, codec, at, size, records_max=1_000_000, bytes_max=_STEP_BYTES)
        if found.frames:
            end = found.frames[-1].end
        at = found.next
    return end
