"""The journal seam: where accepted events become durable, and how they are read back.

``submit`` takes no future per request: one fsync answers hundreds of requests, and each is answered by calling it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Protocol

from seawall.kernel.error import Corrupt, SeawallError


@dataclass(frozen=True, slots=True, order=True, init=False)
class Position:
    """A place in one log; when it was given out, every byte before it in that log was on stable storage.

    It can't come to mean another event: the log id is random and made with the log's folder, a segment id is never
    used for other events, and bytes are never overwritten. All that holds for one folder. Where the folder is put back
    from a copy, or two copies of it are written, the same numbers are given twice, and only the salt tells them apart.
    """

    log_id: bytes  # 16 random bytes
    segment_id: int  # counts from 1, without gaps
    offset_bytes: int  # just after the last byte of a frame, or just after a segment's header
    salt: bytes = field(default=b"", compare=False)  # the segment's 16 random bytes; empty: it isn't there yet
    replicated: bool = field(default=False, compare=False)  # by a quorum of machines' memory, not by our disk's sync

    def __init__(
        self, log_id: bytes, segment_id: int, offset_bytes: int, salt: bytes = b"", replicated: bool = False
    ) -> None:  # fmt: skip
        # One is made for each event. What a frozen dataclass makes of itself here takes twice as long.
        _set_log_id(self, log_id)
        _set_segment_id(self, segment_id)
        _set_offset_bytes(self, offset_bytes)
        _set_salt(self, salt)
        _set_replicated(self, replicated)


_set_log_id, _set_segment_id, _set_offset_bytes, _set_salt, _set_replicated = (
    vars(Position)[each.name].__set__ for each in fields(Position)
)


class Displaced(Corrupt):
    """A position isn't a place in this log: its folder was put back from a copy, or there are two copies of it.

    Nobody can tell what lies between the two. Reading anew from ``start`` misses nothing that is there; what was read
    before collapses by event id.
    """


class WentBack(Displaced):
    """The log lost what it held before this position, and may hold other records there by now."""

    def __init__(self, where: str, detail: str, at: Position) -> None:
        super().__init__(where, detail)
        self.at = at  # what was read lies before it; what wasn't, probably near it


class Replaced(Displaced):
    """The position is of another log that had this one's name, and is gone."""


Outcome = Position | SeawallError
Done = Callable[[Outcome], None]
"""Called exactly once, on the event loop's thread: a Position means durable; Uncertain that it may be on disk."""


class Journal(Protocol):
    """Takes records for keeps."""

    def submit(self, payload: bytes, done: Done) -> None:
        """Queue one encoded record; ``done`` tells when it would survive a power cut.

        Must be called on the event loop's thread. Order of submission is order in the log.

        Raises:
            Overloaded: The queue is full, the disk is, or the journal is stopping. Nothing was kept, and ``done``
                is never called.
            Unavailable: An earlier fsync failed: this process will never acknowledge again. Nothing was kept.

        Durability: none on return; that is what ``done(Position)`` says.
        """

    @property
    def refusal(self) -> SeawallError | None:
        """What ``submit`` would raise now, or None; so that a body needn't be read in vain."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One record, as read."""

    payload: bytes
    end: Position  # where reading goes on after it


@dataclass(frozen=True, slots=True)
class Damage:
    """A range of bytes that disagree with their checksums; kept in place or aside, counted and alerted, never skipped
    in silence."""

    segment_id: int
    start_bytes: int
    end_bytes: int
    reason: str
    gone: bool = False  # there are no bytes to look at any more: what was in it is lost


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one read found: frames in order, where the next read starts, and damage passed on the way."""

    frames: Sequence[Frame]
    next: Position
    damage: Sequence[Damage] = ()


class JournalReader(Protocol):
    """Reads one log, only what is certainly on stable storage."""

    @property
    def log_id(self) -> bytes: ...

    def start(self) -> Position:
        """The oldest position that can still be read.

        Raises:
            Unavailable: It isn't known now; nothing may be begun from a guess.
        """

    def synced_end(self) -> Position:
        """Latest position known to be on stable storage; grows."""

    async def wait(self, after: Position, timeout_s: float) -> bool:
        """Wait until the synced end lies beyond ``after``; False when ``timeout_s`` passed first.

        Raises:
            Displaced: ``after`` lies beyond the log's end, and that is certain.

        Cancelled: nothing happened.
        """

    def read(self, at: Position, *, end: Position | None = None, records_max: int, bytes_max: int) -> Chunk:
        """Frames from ``at`` on, at most up to ``end`` and to the synced end. At least one frame when there is any.

        A segment that is missing though later ones exist is damage, told and passed, also the one that ``at`` lies in:
        waiting for it would only hold back what comes after it.

        Raises:
            Displaced: ``at`` lies in a segment of another salt, or beyond the last one.
            Corrupt: ``at`` is of another log.
        """

    def forget(self, before: Position) -> int:
        """Delete segments that end at or before ``before``; returns how many went. Never the newest one.

        The caller's own checkpoint beyond them must be durable, and old enough (decision 0001).

        Raises:
            Displaced: ``before`` isn't a place in this log, so it says nothing about it. Nothing was deleted.
        """
