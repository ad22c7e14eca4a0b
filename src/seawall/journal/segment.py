"""Segment files of one log: their names, and their headers."""

from __future__ import annotations

import contextlib
import errno
from dataclasses import dataclass
from pathlib import Path

from seawall.journal.frame import HEADER_BYTES, Header, decode_header
from seawall.kernel.seam.filesystem import File, Filesystem
from seawall.kernel.seam.journal import Position

SEGMENT_SUFFIX = ".seg"
_DIGITS = 20
_BLOCK_BYTES = 4096

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What an OSError says when there is no room: the only failure of a write that can pass by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEnd:
    """Where a log ends after recovery, and so where its writer begins."""

    log_id: bytes
    segment_id: int  # the newest segment; 0: there is none
    offset_bytes: int  # just after its last frame
    next_sequence: int
    salt: bytes = b""  # of the newest segment; empty where its header is unreadable

    @property
    def position(self) -> Position:
        if self.segment_id == 0:
            return Position(self.log_id, 1, HEADER_BYTES)
        return Position(self.log_id, self.segment_id, self.offset_bytes, self.salt)


def segment_path(folder: Path, segment_id: int) -> Path:
    return folder / f"{segment_id:0{_DIGITS}d}{SEGMENT_SUFFIX}"


def segment_ids(filesystem: Filesystem, folder: Path) -> list[int]:
    """Ids of the segments in a folder, ascending."""
    stems = (name[: -len(SEGMENT_SUFFIX)] for name in filesystem.names(folder) if name.endswith(SEGMENT_SUFFIX))
    return sorted(int(stem) for stem in stems if len(stem) == _DIGITS and stem.isdigit())


def read_header(file: File, log_id: bytes, segment_id: int) -> Header | None:
    """The header, or None when it is damaged or another file's: then no frame in the file can be believed."""
    header = decode_header(read_around(file, 0, HEADER_BYTES))
    if header is None or header.log_id != log_id or header.segment_id != segment_id:
        return None
    return header


def read_around(file: File, at: int, count_bytes: int) -> bytes:
    """Bytes of the file. A block that the disk can't give is all ones, which is neither a frame nor unused space: so
    only what lies in it is lost, and it is told.

    Raises:
        OSError: Not one block can be read, nor any other of the file: that is a disk that is away, not a bad block.
    """
    try:
        return file.read_at(at, count_bytes)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        failure = error
    parts: list[bytes] = []
    good = 0
    end = at + count_bytes
    while at < end:
        size = min(_BLOCK_BYTES - at % _BLOCK_BYTES, end - at)
        try:
            parts.append(file.read_at(at, size))
            good += 1
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            parts.append(b"\xff" * size)
        at += size
    if good == 0 and (len(parts) > 1 or not _answers(file, end - count_bytes, end)):
        raise failure
    return b"".join(parts)


def _answers(file: File, start: int, end: int) -> bool:
    """Whether the disk gives any block of the file outside of a range: its first or its last."""
    for at in (0, (file.size_bytes() - 1) // _BLOCK_BYTES * _BLOCK_BYTES):
        if at + _BLOCK_BYTES <= start or end <= at:
            with contextlib.suppress(OSError):
                file.read_at(at, 1)
                return True
    return False
