"""Finds frames in one segment, and goes on behind whatever isn't one: nothing after damage is lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from seawall.journal.frame import FRAME_BYTES, Codec
from seawall.journal.segment import read_around
from seawall.kernel.seam.filesystem import File

WINDOW_BYTES = 1024 * 1024


class Found(NamedTuple):
    """One frame whose checksums are right."""

    payload: bytes
    start: int
    end: int
    sequence: int
    batch_start: bool


class Range(NamedTuple):
    """Bytes that are no frame, though frames were expected there."""

    start: int
    end: int
    reason: str


@dataclass(slots=True)
class Scan:
    """What was found from ``start`` on, in order; ``next`` is where to go on."""

    next: int
    frames: list[Found] = field(default_factory=list)
    damage: list[Range] = field(default_factory=list)

    def _damaged(self, start: int, end: int, reason: str) -> None:
        """Note a range; ranges that touch are one."""
        if self.damage and self.damage[-1].end == start:
            start, _, reason = self.damage.pop()
        self.damage.append(Range(start, end, reason))
        self.next = end


def scan(
    file: File, codec: Codec, start: int, limit: int, *, records_max: int, bytes_max: int, one_at_least: bool = True
) -> Scan:
    """Frames between ``start``, where one begins, and ``limit``, where one ends: all between them must be frames.

    At most ``records_max``, and ``bytes_max`` of payloads, but one at least when there is any and ``one_at_least``.
    What isn't a frame up to the next one (or to ``limit``) is damage.

    Raises:
        OSError: The file can't be read at all. (A block that can't is damage.)
    """
    found = Scan(start)
    window = _Window(file, limit)
    left_bytes = bytes_max
    while found.next < limit and len(found.frames) < records_max:
        at = found.next
        head = codec.decode(*window.around(at, FRAME_BYTES))
        end = at + FRAME_BYTES + head.payload_bytes if head is not None else 0
        if head is None or end > limit:
            found._damaged(at, _next_frame(window, codec, at + 1), "no frame")
            continue
        if head.payload_bytes > left_bytes and (found.frames or not one_at_least):
            break
        payload = window.slice(at + FRAME_BYTES, head.payload_bytes)
        if not codec.holds(head, payload):
            found._damaged(at, end, "payload checksum")
            continue
        found.frames.append(Found(payload, at, end, head.sequence, head.batch_start))
        found.next = end
        left_bytes -= head.payload_bytes
    return found


class _Window:
    """A piece of the file, moved forward as reading goes on."""

    def __init__(self, file: File, limit: int) -> None:
        self._file = file
        self._base = 0
        self._data = b""
        self.limit = limit

    def around(self, at: int, count_bytes: int) -> tuple[bytes, int]:
        """Bytes that hold ``count_bytes`` from ``at`` (fewer at the limit), and where in them ``at`` is."""
        end = min(at + count_bytes, self.limit)
        if not (self._base <= at and end <= self._base + len(self._data)):
            self._data = read_around(self._file, at, min(max(count_bytes, WINDOW_BYTES), self.limit - at))
            self._base = at
        return self._data, at - self._base

    def slice(self, at: int, count_bytes: int) -> bytes:
        data, index = self.around(at, count_bytes)
        return data[index : index + count_bytes]


def _next_frame(window: _Window, codec: Codec, at: int) -> int:
    """Where the next frame's header lies at or after ``at``; the limit when there is none."""
    while at < window.limit:
        data, index = window.around(at, WINDOW_BYTES)
        if index >= len(data):
            break  # the file ends before the limit, which says where frames ended: what is behind it is lost
        hit = data.find(codec.marker, index)
        if hit < 0:
            # The marker may lie across the border of two windows.
            at += max(1, len(data) - index - len(codec.marker) + 1)
            continue
        at += hit - index
        if codec.decode(*window.around(at, FRAME_BYTES)) is not None:
            return at
        at += 1
    return window.limit
