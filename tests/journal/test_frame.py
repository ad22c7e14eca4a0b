"""The bytes on disk: no flipped bit and no hostile body makes a record that nobody submitted."""

from __future__ import annotations

import os
from pathlib import Path

from seawall.journal.frame import FRAME_BYTES, HEADER_BYTES, Codec, Header, decode_header
from seawall.journal.scan import scan
from seawall.testing import CrashDisk
from seawall.testing.disk import CrashFile

PAYLOADS = [b"first" * 5, b"", b"third" * 9, b"last"]
SALT = bytes(range(16))


def file_of(content: bytes) -> CrashFile:
    disk = CrashDisk()
    file = disk.create(Path("/x/segment"))
    file.write_at(0, content)
    return file


def read(content: bytes, salt: bytes = SALT) -> tuple[list[bytes], int]:
    """Payloads found, and how many damaged ranges."""
    found = scan(file_of(content), Codec(salt), 0, len(content), records_max=100, bytes_max=1 << 20)
    assert found.next == len(content)
    return [frame.payload for frame in found.frames], len(found.damage)


def test_each_flipped_bit_costs_one_record_at_most_and_is_told() -> None:
    content, ends = Codec(SALT).encode(PAYLOADS, 1)
    assert read(content) == (PAYLOADS, 0)
    for bit in range(len(content) * 8):
        rotten = bytearray(content)
        rotten[bit // 8] ^= 1 << bit % 8
        hit = next(n for n, end in enumerate(ends) if bit // 8 < end)
        payloads, damaged = read(bytes(rotten))
        assert payloads == PAYLOADS[:hit] + PAYLOADS[hit + 1 :], f"bit {bit}"
        assert damaged == 1


def test_every_cut_gives_the_whole_records_before_it() -> None:
    content, ends = Codec(SALT).encode(PAYLOADS, 1)
    for size in range(len(content)):
        payloads, _ = read(content[:size])
        assert payloads == PAYLOADS[: sum(end <= size for end in ends)]


def test_a_body_cannot_forge_a_record_when_reading_goes_on_behind_damage() -> None:
    forged = Codec(b"a sender's guess").encode([b"EVIL"], 7)[0]
    content = bytearray(Codec(SALT).encode([b"before", forged * 3, b"after"], 1)[0])
    content[FRAME_BYTES + 6 + 8] ^= 1  # the length of the second one
    assert read(bytes(content)) == ([b"before", b"after"], 1)
    # With a salt that a sender can know, it works: that is why the salt is random.
    known = Codec(SALT).encode([b"EVIL"], 7)[0]
    content = bytearray(Codec(SALT).encode([b"before", known, b"after"], 1)[0])
    content[FRAME_BYTES + 6 + 8] ^= 1
    assert read(bytes(content))[0] == [b"before", b"EVIL", b"after"]


def test_frames_of_another_segment_are_not_believed() -> None:
    content, _ = Codec(SALT).encode(PAYLOADS, 1)
    assert read(content, salt=os.urandom(16)) == ([], 1)


def test_a_marker_across_two_windows_is_found() -> None:
    frame, _ = Codec(SALT).encode([b"here"], 1)
    window = 1024 * 1024
    for before in range(window - 10, window + 3):
        assert read(b"\xff" * before + frame) == ([b"here"], 1)


def test_a_header_survives_the_loss_of_either_copy_and_no_other_change() -> None:
    header = Header(log_id=bytes(16), segment_id=7, salt=SALT, created_us=1, first_sequence=9, previous_end=4711)
    block = header.encode()
    assert len(block) == HEADER_BYTES
    assert decode_header(block) == header
    assert decode_header(bytes(512) + block[512:]) == header
    assert decode_header(block[:-512] + bytes(512)) == header
    assert decode_header(bytes(512) + block[512:-512] + bytes(512)) is None
    for bit in range(64 * 8):
        copy = bytearray(block[:64])
        copy[bit // 8] ^= 1 << bit % 8
        assert decode_header(bytes(copy) + bytes(HEADER_BYTES - 64)) is None
