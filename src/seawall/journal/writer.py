"""Writes one log, batch by batch: the synchronous core, all of it on one thread.

Three outcomes of a batch, never mixed up: its ends (durable), Overloaded or Unavailable (not one byte of it was
written), Uncertain (it may be on disk). How each comes about is decided here and nowhere else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from seawall.journal.frame import FRAME_BYTES, HEADER_BYTES, Codec, Header
from seawall.journal.segment import DISK_FULL, LogEnd, segment_path
from seawall.journal.settings import Settings
from seawall.kernel.clock import Clock
from seawall.kernel.error import Overloaded, Unavailable, Uncertain
from seawall.kernel.seam.filesystem import File, Filesystem
from seawall.kernel.seam.journal import Position


@dataclass(slots=True)
class _Open:
    """The segment being written."""

    id: int
    file: File
    codec: Codec
    salt: bytes
    end: int = HEADER_BYTES  # just after the last frame that is synced
    filled: int = HEADER_BYTES  # zeros are written up to here
    named: bool = False  # its name is on stable storage


class Writer:
    """Appends to one log. The caller holds the folder's lock and has recovered it.

    Args:
        settings: May be replaced at any time, also by another thread: each use reads them anew.
        entropy: Gives that many random bytes.
    """

    def __init__(
        self,
        folder: Path,
        end: LogEnd,
        settings: Settings,
        *,
        filesystem: Filesystem,
        clock: Clock,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._folder = folder
        self.settings = settings
        self._filesystem = filesystem
        self._clock = clock
        self._entropy = entropy
        self._log_id = end.log_id
        self._segment: _Open | None = None
        self._next_sequence = end.next_sequence
        self._zeros = bytes(settings.fill_bytes)
        self.synced_end = end.position
        self._last_id = end.segment_id
        self.failed = ""  # why it will never write again
        self.full = False  # the disk is, or nearly: nothing is written until ``probe`` says otherwise
        self.sync_s = 0.0  # how long the last sync took

    def commit(self, payloads: Sequence[bytes]) -> tuple[int, list[int]]:
        """Write 1 or more payloads as one batch; returns the segment's id and each frame's end offset in it.

        Raises:
            Overloaded: The disk is full, or would soon be. Not a byte of the batch was written.
            Unavailable: An earlier failure was final. Not a byte of the batch was written.
            Uncertain: A write or sync of the batch failed: all, some or none of it may be on disk.

        Durability: on return, the batch and the segment's name are on stable storage.
        """
        if self.failed:
            raise Unavailable("journal", self.failed)
        size = FRAME_BYTES * len(payloads) + sum(map(len, payloads))
        segment = self._make_room(size)
        batch, ends = segment.codec.encode(payloads, self._next_sequence)
        self._write(segment, batch)
        self._sync(segment)
        base = segment.end
        segment.end += len(batch)
        self._next_sequence += len(payloads)
        self.synced_end = Position(self._log_id, segment.id, segment.end, segment.salt)
        return segment.id, [base + end for end in ends]

    def probe(self) -> bool:
        """Whether there is room again after ``full``; then it isn't any more."""
        with contextlib.suppress(OSError):
            if self._filesystem.free_bytes(self._folder) >= self.settings.resume_bytes:
                self.full = False
        return not self.full

    def close(self) -> None:
        """Close the file: every acknowledged byte is synced already. Harmless when called twice."""
        if self._segment is not None:
            self._segment.file.close()
            self._segment = None

    def _make_room(self, size: int) -> _Open:
        """A segment with zeros on disk's account for ``size`` more bytes. Raises before the batch touches anything."""
        segment = self._segment
        if segment is not None and segment.end > HEADER_BYTES and segment.end + size > self.settings.segment_bytes:
            self.close()
            segment = None
        try:
            if segment is None:
                segment = self._create()
            self._fill(segment, segment.end + size)
        except OSError as error:
            if error.errno in DISK_FULL:
                raise self._refuse("the journal's disk is full") from error
            raise self._fail("can't write ahead", error, kept=False) from error
        return segment

    def _create(self) -> _Open:
        """Make the next segment. Its id was never used for a frame: at most a crash or a full disk left its file."""
        self._check_space(HEADER_BYTES)
        id = self._last_id + 1
        path = segment_path(self._folder, id)
        salt = self._entropy(16)
        header = Header(
            log_id=self._log_id, segment_id=id, salt=salt, created_us=self._clock.wall_us(),
            first_sequence=self._next_sequence, previous_end=self._previous_end(),
        )  # fmt: skip
        file = self._filesystem.create(path)
        try:
            file.write_at(0, header.encode())
        except OSError:
            # Not a frame was in it, so the id stays free; left behind, it would stand in the next attempt's way.
            file.close()
            self._filesystem.remove(path)
            raise
        self._last_id = id
        self._segment = _Open(id, file, Codec(salt), salt)
        return self._segment

    def _previous_end(self) -> int:
        """Where the frames of the newest segment end; 0: there is none. Of one whose very first write filled the disk
        nothing was synced: the end of what was lies in a segment before it."""
        if not self._last_id:
            return 0
        return self.synced_end.offset_bytes if self.synced_end.segment_id == self._last_id else HEADER_BYTES

    def _fill(self, segment: _Open, needed: int) -> None:
        """Write zeros at least up to ``needed``: a sync of bytes inside the file's size is several times cheaper, and
        a full disk is met here, before a byte of the batch is written."""
        if len(self._zeros) != self.settings.fill_bytes:
            self._zeros = bytes(self.settings.fill_bytes)
        while segment.filled < needed:
            self._check_space(len(self._zeros))
            segment.file.write_at(segment.filled, self._zeros)
            segment.filled += len(self._zeros)

    def _check_space(self, size: int) -> None:
        if self._filesystem.free_bytes(self._folder) < self.settings.reserve_bytes + size:
            raise self._refuse("the journal's disk is nearly full")

    def _write(self, segment: _Open, batch: bytes) -> None:
        try:
            segment.file.write_at(segment.end, batch)
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise self._fail("write failed", error) from error
            # Only a disk that copies on write fills up here. Some of the bytes may be there and can't be called back,
            # so this isn't Overloaded. The next segment's header says where this one's frames end: before them.
            self.close()
            self.full = True
            raise Uncertain("the journal's disk filled up in the middle of a write") from error

    def _sync(self, segment: _Open) -> None:
        started = self._clock.monotonic()
        try:
            segment.file.sync_data()
            if not segment.named:
                # Before the first answer: a crash could keep the data and lose the name.
                self._filesystem.sync_folder(self._folder)
                segment.named = True
        except OSError as error:
            raise self._fail("sync failed", error) from error
        self.sync_s = self._clock.monotonic() - started

    def _refuse(self, why: str) -> Overloaded:
        self.full = True
        return Overloaded(why, retry_after_s=self.settings.full_retry_after_s)

    def _fail(self, what: str, error: OSError, *, kept: bool = True) -> Uncertain | Unavailable:
        """The first failure is final: the kernel may have dropped the bytes and report the next sync as good."""
        self.failed = f"{what}: {error.strerror or error} (errno {error.errno}); only a restart re-reads the disk"
        self.close()
        return Uncertain(f"the journal's {what}: {error}") if kept else Unavailable("journal", self.failed)
