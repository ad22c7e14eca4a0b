"""Makes a log's folder sound again before anybody writes or reads it. The caller holds the folder's lock.

Only the newest segment can be unsound: each batch was synced before the next one was written, and each segment's last
batch before the next segment was begun. So a start costs the scan of one segment, whatever the backlog.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from seawall.journal.frame import FRAME_BYTES, HEADER_BYTES, Codec
from seawall.journal.identity import claim_log_id
from seawall.journal.quarantine import quarantine
from seawall.journal.scan import WINDOW_BYTES, Range, scan
from seawall.journal.segment import DISK_FULL, LogEnd, read_around, read_header, segment_ids, segment_path
from seawall.kernel.log import fields, logger
from seawall.kernel.seam.filesystem import File, Filesystem
from seawall.kernel.seam.journal import Damage

log = logger("journal")

_STEP_BYTES = 8 * 1024 * 1024
MISSING_NAMED_MAX = 1000
"""Missing segments that are named one by one; a folder with more of them missing is hardly a log any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """A sound log."""

    end: LogEnd
    torn_bytes: int  # cut from the tail: never acknowledged, or a sync lied; kept in a .torn file
    damage: Sequence[Damage]  # in the newest segment, and missing segments; kept in place and in .bad files


def recover(folder: Path, *, filesystem: Filesystem, entropy: Callable[[int], bytes]) -> Recovered:
    """Make or recover the log in ``folder``. Interrupted anywhere, it can be repeated.

    Raises:
        Corrupt: The log's id is gone or unreadable, and no segment tells it.
        OSError: The disk failed.

    Durability: on return, the folder, its id and all frames up to the end are on stable storage.
    """
    log_id = claim_log_id(folder, filesystem, entropy)
    ids = segment_ids(filesystem, folder)
    damage = list(missing(ids))
    if ids and _is_blank(filesystem, folder, ids[-1]) and (len(ids) > 1 or ids[-1] == 1):
        # Made at a crash, and never held a frame. A log's only segment stays: its id says which ids were used.
        filesystem.remove(segment_path(folder, ids.pop()))
    end, torn_bytes = LogEnd(log_id=log_id, segment_id=0, offset_bytes=0, next_sequence=1), 0
    if ids:
        newest = _Newest(folder, filesystem, log_id, ids)
        end = newest.recover()
        torn_bytes = newest.torn_bytes
        damage += [Damage(ids[-1], *found) for found in newest.damage]
    filesystem.sync_folder(folder)
    return Recovered(end=end, torn_bytes=torn_bytes, damage=damage)


def missing(ids: Sequence[int]) -> Iterator[Damage]:
    """A Damage for each segment that is missing between others."""
    for before, after in pairwise(ids):
        for id in range(before + 1, min(after, before + 1 + MISSING_NAMED_MAX)):
            yield Damage(id, 0, 0, "the segment is missing")


class _Newest:
    """Recovers the newest segment of a log."""

    def __init__(self, folder: Path, filesystem: Filesystem, log_id: bytes, ids: Sequence[int]) -> None:
        self._folder = folder
        self._filesystem = filesystem
        self._log_id = log_id
        self._ids = ids
        self.torn_bytes = 0
        self.damage: list[Range] = []

    def recover(self) -> LogEnd:
        id = self._ids[-1]
        file = self._filesystem.open(segment_path(self._folder, id), writable=True)
        try:
            _flush(file)
            size = file.size_bytes()
            walked = _walk(file, self._log_id, id, size)
            if walked is None:
                return self._headless(size)
            self._settle(file, walked, size)
        finally:
            file.close()
        return LogEnd(
            log_id=self._log_id, segment_id=id, offset_bytes=walked.end, next_sequence=walked.next_sequence,
            salt=walked.salt,
        )  # fmt: skip

    def _settle(self, file: File, walked: _Walked, size: int) -> None:
        """Keep what isn't a frame in files of its own, and cut the tail."""
        for found in walked.damage:
            self.damage.append(found)
            self._keep(found.start, found.end, "bad")
        torn_end = _last_byte(file, walked.end, size)
        if torn_end > walked.end:
            self.torn_bytes = torn_end - walked.end
            if not self._keep(walked.end, torn_end, "torn") or walked.end == HEADER_BYTES:
                # No room to keep the tail; or nothing else is in the segment, and cut it would look like one that was
                # never used, whose id may be given again. So the tail stays: the next segment's header says that
                # frames end before it.
                return
        if size > walked.end:
            file.truncate(walked.end)
            file.sync_data()

    def _keep(self, start: int, end: int, suffix: str) -> bool:
        try:
            quarantine(self._filesystem, self._folder, self._ids[-1], start, end, suffix)
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            log.warning("no room to keep a copy of damaged bytes", extra=fields(start=start, end=end))
            return False
        return True

    def _headless(self, size: int) -> LogEnd:
        """Both copies of the header are bad: without its salt no frame can be told. The file stays, as damage."""
        id = self._ids[-1]
        self.damage.append(Range(0, size, "the segment's header is unreadable"))
        next_sequence = 1
        if len(self._ids) > 1:
            file = self._filesystem.open(segment_path(self._folder, self._ids[-2]), writable=False)
            try:
                before = _walk(file, self._log_id, self._ids[-2], file.size_bytes())
            finally:
                file.close()
            next_sequence = before.next_sequence if before is not None else 1
        # As many as could have been in it, so that a sequence number is never given twice.
        return LogEnd(
            log_id=self._log_id,
            segment_id=id,
            offset_bytes=max(size, HEADER_BYTES),
            next_sequence=next_sequence + size // FRAME_BYTES,
        )


@dataclass(slots=True)
class _Walked:
    """A whole segment, its payloads read and dropped."""

    end: int  # just after the last frame
    next_sequence: int
    damage: list[Range]  # before the end
    salt: bytes


def _walk(file: File, log_id: bytes, segment_id: int, size: int) -> _Walked | None:
    """All of a segment; None when its header is unreadable."""
    header = read_header(file, log_id, segment_id)
    if header is None:
        return None
    codec = Codec(header.salt)
    walked = _Walked(HEADER_BYTES, header.first_sequence, [], header.salt)
    at = HEADER_BYTES
    while at < size:
        found = scan(file, codec, at, size, records_max=1_000_000, bytes_max=_STEP_BYTES)
        if found.frames:
            walked.end, walked.next_sequence = found.frames[-1].end, found.frames[-1].sequence + 1
        walked.damage += found.damage
        at = found.next
    # What reaches to the end of the file is the tail: zeros, or torn.
    walked.damage = [part for part in walked.damage if part.end <= walked.end]
    return walked


def _flush(file: File) -> None:
    """What a killed process wrote and didn't sync is made durable before anybody acts on it. From then on the file is
    read from the disk itself, since after a failed sync the cache shows bytes that aren't there."""
    file.sync_data()
    file.drop_cached()


def _is_blank(filesystem: Filesystem, folder: Path, segment_id: int) -> bool:
    """Whether a segment holds nothing but zeros after its header."""
    file = filesystem.open(segment_path(folder, segment_id), writable=True)
    try:
        _flush(file)
        return _last_byte(file, HEADER_BYTES, file.size_bytes()) == HEADER_BYTES
    finally:
        file.close()


def _last_byte(file: File, start: int, end: int) -> int:
    """Just after the last byte between ``start`` and ``end`` that isn't zero; ``start`` when there is none."""
    while end > start:
        at = max(start, end - WINDOW_BYTES)
        data = read_around(file, at, end - at).rstrip(b"\0")
        if data:
            return at + len(data)
        end = at
    return start
