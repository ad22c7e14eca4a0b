"""Bytes of the journal: a segment's header, and frames. Little endian; no I/O in here.

A segment file, ``%020d.seg`` (its id)::

    0      header, 64 bytes
    64     zeros
    4032   the same header again: one bad sector must not cost a segment
    4096   frame, frame, …   each batch is one write and one fdatasync
    …      zeros: filled ahead of need, so that a sync need not commit a new size

Header::

    4s  magic "SWJ", version 1        Q   created_us (wall clock, for people)
    I   segment id, as in the name    Q   first_sequence: of the first frame in here
    16s log id                        I   previous_end: where the frames of the segment before this one end
    16s salt, random                  I   crc32c of all that

Frame::

    8s  marker = salt[:8]             B   flags; bit 0: first frame of its batch     B, H  zero
    I   payload bytes                 I   crc32c of the payload, salted
    Q   sequence in the log, from 1   I   crc32c of the 28 bytes before, salted
    then the payload

Invariants:
- A frame is believed only with both checksums right. They begin with the salt, which nobody outside can know: a sender
  can't put a record into its body that reading would take for ours when it looks for the next frame after damage.
- The header has a checksum of its own, so a flipped length can't make a reader jump.
- The first frame of a batch is written only after the batch before was synced: all before it is on stable storage.
- ``previous_end`` is certain. What lies beyond it in the segment before was never acknowledged and never will be.
- A segment id is never used again for other frames, and no byte of a frame is written twice.
Bounds: a payload has at most ``limit.RECORD_BYTES_MAX`` bytes, a segment fewer than 2**32.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from google_crc32c import extend, value

from seawall.kernel.limit import RECORD_BYTES_MAX

HEADER_BYTES = 4096
"""Offset of a segment's first frame."""

FRAME_BYTES = 32
"""A frame's own header."""

_MAGIC = b"SWJ\x01"
_SEGMENT = struct.Struct("<4sI16s16sQQI")
_COPY_BYTES = 64
_COPY_OFFSETS = (0, HEADER_BYTES - _COPY_BYTES)
_FRAME = struct.Struct("<8sIQBBHI")
_CRC = struct.Struct("<I")
_BATCH_START = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a segment says of itself."""

    log_id: bytes
    segment_id: int
    salt: bytes
    created_us: int
    first_sequence: int
    previous_end: int

    def encode(self) -> bytes:
        """The first ``HEADER_BYTES`` bytes of the file."""
        fixed = _SEGMENT.pack(
            _MAGIC, self.segment_id, self.log_id, self.salt, self.created_us, self.first_sequence, self.previous_end
        )
        copy = fixed + _CRC.pack(value(fixed))
        return copy + bytes(HEADER_BYTES - 2 * _COPY_BYTES) + copy


def decode_header(block: bytes) -> Header | None:
    """The header out of a segment's first bytes, by whichever copy is whole; None when neither is."""
    for offset in _COPY_OFFSETS:
        copy = block[offset : offset + _COPY_BYTES]
        if len(copy) < _COPY_BYTES or copy[:4] != _MAGIC or _CRC.unpack(copy[60:])[0] != value(copy[:60]):
            continue
        _, segment_id, log_id, salt, created_us, first_sequence, previous_end = _SEGMENT.unpack_from(copy)
        return Header(
            log_id=log_id, segment_id=segment_id, salt=salt, created_us=created_us,
            first_sequence=first_sequence, previous_end=previous_end,
        )  # fmt: skip
    return None


class Codec:
    """Frames of one segment, under its salt."""

    __slots__ = ("_seed", "marker")

    def __init__(self, salt: bytes) -> None:
        self.marker = salt[:8]
        self._seed: int = value(salt)

    def encode(self, payloads: Sequence[bytes], first_sequence: int) -> tuple[bytes, list[int]]:
        """One batch: its bytes, and for each payload the offset just after its frame, relative to the start."""
        marker, seed, pack = self.marker, self._seed, _FRAME.pack
        parts: list[bytes] = []
        ends: list[int] = []
        end, flags = 0, _BATCH_START
        for sequence, payload in enumerate(payloads, first_sequence):
            size = len(payload)
            assert size <= RECORD_BYTES_MAX
            head = pack(marker, size, sequence, flags, 0, 0, extend(seed, payload))
            parts += (head, _CRC.pack(extend(seed, head)), payload)
            end += FRAME_BYTES + size
            ends.append(end)
            flags = 0
        return b"".join(parts), ends

    def decode(self, bytes_: bytes, at: int) -> Head | None:
        """The frame header at ``at``, or None when these bytes aren't one."""
        if not bytes_.startswith(self.marker, at) or len(bytes_) - at < FRAME_BYTES:
            return None
        head = bytes_[at : at + FRAME_BYTES]
        if _CRC.unpack_from(head, 28)[0] != extend(self._seed, head[:28]):
            return None
        _, size, sequence, flags, _, _, crc = _FRAME.unpack_from(head)
        if size > RECORD_BYTES_MAX:
            return None
        return Head(size, sequence, bool(flags & _BATCH_START), crc)

    def holds(self, head: Head, payload: bytes) -> bool:
        """Whether ``payload`` is the one that ``head`` was written with."""
        crc: int = extend(self._seed, payload)
        return crc == head.crc and len(payload) == head.payload_bytes


@dataclass(slots=True)
class Head:
    """A frame's header."""

    payload_bytes: int
    sequence: int
    batch_start: bool
    crc: int
