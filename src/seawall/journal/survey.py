"""Looks at logs from outside: takes no lock, writes nothing, and may stand beside a running platform."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from seawall.journal.cursor import Cursor
from seawall.journal.frame import HEADER_BYTES
from seawall.journal.identity import ID_NAME, read_log_id
from seawall.journal.lock import holder
from seawall.journal.reader import discover
from seawall.journal.segment import read_header, segment_path
from seawall.journal.spool.checkpoint import Checkpoint
from seawall.kernel.error import Corrupt
from seawall.kernel.seam.filesystem import Filesystem
from seawall.kernel.seam.journal import Damage, Frame, Position

SPOOL = "spool"
"""Where a data folder has logs that are forwarded to Kafka; each collector's is named as its log in ``journal``."""

_RECORDS = 1000
_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentView:
    """One segment; ``sound`` says that its header is readable. The rest is 0 without it."""

    id: int
    size_bytes: int
    sound: bool
    created_us: int = 0
    first_sequence: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LogView:
    """One log as its files show it."""

    name: str
    folder: Path
    log_id: str
    writer: int | None  # the process that took the lock last; it may be dead
    segments: tuple[SegmentView, ...]
    kept_aside: tuple[str, ...]  # files with torn or damaged bytes
    forwarded: Position | None = None  # Kafka has everything before it, as was last written down


@dataclass(slots=True)
class Verdict:
    """What a complete reading of one log found."""

    name: str
    log_id: str
    records: int = 0
    size_bytes: int = 0
    unproven_bytes: int = 0  # after the end: the newest batch of a running writer, or what a crash left
    damage: list[Damage] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        return not self.damage


def logs_in(folder: Path) -> list[Path]:
    """The logs that a path means: a log's own folder, a folder of logs, or a data folder."""
    if (folder / ID_NAME).is_file():
        return [folder]
    return discover(folder) or [*discover(folder / "journal"), *discover(folder / SPOOL)]


def inspect(folder: Path, filesystem: Filesystem) -> LogView:
    """A log's segments, without reading their records.

    Raises:
        Corrupt: There is no log in the folder.
        OSError: It can't be read.
    """
    log_id = _log_id(folder, filesystem)
    views = []
    for id in Cursor(folder, log_id, filesystem).ids():
        file = filesystem.open(segment_path(folder, id), writable=False)
        try:
            header = read_header(file, log_id, id)
            size = file.size_bytes()
        finally:
            file.close()
        if header is None:
            views.append(SegmentView(id=id, size_bytes=size, sound=False))
        else:
            views.append(
                SegmentView(
                    id=id, size_bytes=size, sound=True,
                    created_us=header.created_us, first_sequence=header.first_sequence,
                )
            )  # fmt: skip
    aside = (name for name in filesystem.names(folder) if name.endswith((".torn", ".bad")))
    return LogView(
        name=name_of(folder), folder=folder, log_id=log_id.hex(), writer=holder(folder),
        segments=tuple(views), kept_aside=tuple(aside), forwarded=Checkpoint(folder, filesystem).load(),
    )  # fmt: skip


def verify(folder: Path, filesystem: Filesystem) -> Verdict:
    """Read every record and check it.

    What follows the newest batch's beginning can't be judged beside a running writer: it may be half written. Its
    readable records count; bytes after them are named, not blamed.

    Raises:
        Corrupt: There is no log in the folder.
        OSError: It can't be read.
    """
    log_id = _log_id(folder, filesystem)
    cursor = Cursor(folder, log_id, filesystem)
    verdict = Verdict(name_of(folder), log_id.hex())
    try:
        proven = cursor.proven_end(cursor.start())
        for frames, damage in _walk(cursor, cursor.start(), proven):
            _add(verdict, frames)
            verdict.damage += damage
        tail_end = _file_end(folder, filesystem, proven)
        for frames, damage in _walk(cursor, proven, tail_end):
            _add(verdict, frames)
            # A hole before whole records is damage; what reaches to the end is only unfinished.
            verdict.damage += [part for part in damage if part.end_bytes < tail_end.offset_bytes]
            verdict.unproven_bytes += sum(
                part.end_bytes - part.start_bytes for part in damage if part.end_bytes == tail_end.offset_bytes
            )
        verdict.damage += [
            Damage(segment.id, 0, segment.size_bytes, "the segment's header is unreadable")
            for segment in inspect(folder, filesystem).segments
            if segment.id > proven.segment_id and segment.size_bytes > HEADER_BYTES
        ]
    finally:
        cursor.close()
    return verdict


def records(folder: Path, filesystem: Filesystem, *, after: Position | None = None) -> Iterator[Frame]:
    """Every readable record of a log from its start (or from ``after``) on, in order. Damage is passed: see ``verify``.

    Raises:
        Corrupt: There is no log in the folder, or no such position in it.
        OSError: It can't be read.
    """
    cursor = Cursor(folder, _log_id(folder, filesystem), filesystem)
    try:
        start = after or cursor.start()
        proven = cursor.proven_end(cursor.start())
        for limit in (proven, _file_end(folder, filesystem, proven)):
            for frames, _ in _walk(cursor, start, limit):
                yield from frames
            start = max(start, limit)
    finally:
        cursor.close()


def _walk(cursor: Cursor, at: Position, limit: Position) -> Iterator[tuple[list[Frame], list[Damage]]]:
    """Pieces of a log between two positions."""
    while at < limit:
        chunk = cursor.read(at, limit, records_max=_RECORDS, bytes_max=_BYTES)
        yield list(chunk.frames), list(chunk.damage)
        if chunk.next == at:
            return
        at = chunk.next


def _add(verdict: Verdict, frames: list[Frame]) -> None:
    verdict.records += len(frames)
    verdict.size_bytes += sum(len(frame.payload) for frame in frames)


def _file_end(folder: Path, filesystem: Filesystem, at: Position) -> Position:
    """Where the file that ``at`` lies in ends, without the zeros at its end."""
    try:
        file = filesystem.open(segment_path(folder, at.segment_id), writable=False)
    except FileNotFoundError:
        return at
    try:
        tail = file.read_at(at.offset_bytes, max(0, file.size_bytes() - at.offset_bytes))
    finally:
        file.close()
    return Position(at.log_id, at.segment_id, max(HEADER_BYTES, at.offset_bytes + len(tail.rstrip(b"\0"))))


def name_of(folder: Path) -> str:
    """A log's name, which says of a spooled one that it is."""
    return f"{SPOOL}/{folder.name}" if folder.absolute().parent.name == SPOOL else folder.name


def _log_id(folder: Path, filesystem: Filesystem) -> bytes:
    log_id = read_log_id(folder, filesystem)
    if log_id is None:
        raise Corrupt(str(folder), "there is no log in this folder")
    return log_id
