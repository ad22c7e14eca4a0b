"""What a start makes of what a crash left."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from desk import opened, payloads_in, segments

from seawall.journal import LocalFilesystem, Settings
from seawall.journal.filesystem import LocalFile
from seawall.journal.frame import HEADER_BYTES
from seawall.journal.recovery import Recovered, recover
from seawall.kernel.error import Corrupt
from seawall.testing import FaultyFilesystem


def started(folder: Path) -> Recovered:
    return recover(folder, filesystem=LocalFilesystem(), entropy=os.urandom)


async def log_of_three(folder: Path) -> list[int]:
    """A log of three records; where each ends."""
    async with opened(folder) as desk:
        positions = await desk.keep(b"one", b"two", b"three")
    return [position.offset_bytes for position in positions]


async def test_a_tail_torn_anywhere_is_cut_and_its_bytes_are_kept(tmp_path: Path) -> None:
    ends = await log_of_three(tmp_path / "c1")
    (segment,) = segments(tmp_path / "c1")
    content = segment.read_bytes()
    for cut in range(ends[1] + 1, ends[2]):
        left = content[ends[1] : cut].rstrip(b"\0")
        if not left:
            continue  # one salt in 256 begins with a zero: nothing to tell from unused space
        folder = tmp_path / f"cut{cut}"
        folder.mkdir()
        (folder / "log.id").write_bytes((tmp_path / "c1" / "log.id").read_bytes())
        torn = folder / segment.name
        torn.write_bytes(content[:cut] + bytes(1000))
        assert started(folder).torn_bytes > 0
        assert await payloads_in(folder) == [b"one", b"two"]
        (copy,) = folder.glob("*.torn")
        assert copy.name == f"{segment.stem}.{ends[1]}.torn"
        assert copy.read_bytes() == left
        assert torn.stat().st_size == ends[1]


async def test_zeros_after_the_last_record_are_no_damage(tmp_path: Path) -> None:
    await log_of_three(tmp_path / "c1")
    (segment,) = segments(tmp_path / "c1")
    with segment.open("ab") as file:
        file.write(bytes(100_000))
    found = started(tmp_path / "c1")
    assert (found.torn_bytes, found.damage) == (0, [])


async def test_damage_before_whole_records_is_copied_and_left_in_place(tmp_path: Path) -> None:
    ends = await log_of_three(tmp_path / "c1")
    (segment,) = segments(tmp_path / "c1")
    content = bytearray(segment.read_bytes())
    content[ends[0] + 40 - 8] ^= 255
    segment.write_bytes(content)
    found = started(tmp_path / "c1")
    assert [(damage.start_bytes, damage.end_bytes) for damage in found.damage] == [(ends[0], ends[1])]
    assert found.end.offset_bytes == ends[2]
    (copy,) = (tmp_path / "c1").glob("*.bad")
    assert copy.read_bytes() == content[ends[0] : ends[1]]
    assert segment.read_bytes()[: ends[2]] == content[: ends[2]]


async def test_recovery_can_be_repeated(tmp_path: Path) -> None:
    ends = await log_of_three(tmp_path / "c1")
    (segment,) = segments(tmp_path / "c1")
    os.truncate(segment, ends[2] - 1)
    first = started(tmp_path / "c1")
    assert first.torn_bytes > 0
    again = started(tmp_path / "c1")
    assert again.end == first.end
    assert again.torn_bytes == 0


async def test_a_lost_header_is_damage_and_its_ids_are_not_given_again(tmp_path: Path) -> None:
    await log_of_three(tmp_path / "c1")
    (segment,) = segments(tmp_path / "c1")
    content = segment.read_bytes()
    segment.write_bytes(bytes(HEADER_BYTES) + content[HEADER_BYTES:])
    found = started(tmp_path / "c1")
    assert [damage.reason for damage in found.damage] == ["the segment's header is unreadable"]
    assert found.end.segment_id == 1
    assert found.end.next_sequence > 3
    async with opened(tmp_path / "c1") as desk:
        (position,) = await desk.keep(b"after")
    assert position.segment_id == 2
    assert segment.exists()


async def test_a_lost_id_is_taken_from_the_segments(tmp_path: Path) -> None:
    await log_of_three(tmp_path / "c1")
    before = started(tmp_path / "c1").end.log_id
    (tmp_path / "c1" / "log.id").unlink()
    assert started(tmp_path / "c1").end.log_id == before
    (tmp_path / "c1" / "log.id").write_text("not an id")
    with pytest.raises(Corrupt, match=r"log\.id"):
        started(tmp_path / "c1")


async def test_two_logs_in_one_folder_are_refused(tmp_path: Path) -> None:
    await log_of_three(tmp_path / "c1")
    await log_of_three(tmp_path / "c2")
    segments(tmp_path / "c2")[0].rename(tmp_path / "c1" / f"{2:020d}.seg")
    (tmp_path / "c1" / "log.id").unlink()
    with pytest.raises(Corrupt, match="2 logs"):
        started(tmp_path / "c1")


async def test_a_full_disk_does_not_stop_a_start(tmp_path: Path) -> None:
    ends = await log_of_three(tmp_path / "c1")
    (segment,) = segments(tmp_path / "c1")
    os.truncate(segment, ends[2] - 1)
    disk = FaultyFilesystem(LocalFilesystem())
    disk.fail("create", errno.ENOSPC)
    found = recover(tmp_path / "c1", filesystem=disk, entropy=os.urandom)
    assert found.end.offset_bytes == ends[1]
    # The torn bytes could not be copied: they stay where they are, and the next segment ends this one before them.
    assert segment.stat().st_size == ends[2] - 1
    async with opened(tmp_path / "c1") as desk:
        await desk.keep(b"after")
    assert await payloads_in(tmp_path / "c1") == [b"one", b"two", b"after"]


async def test_an_unreadable_block_costs_its_record_only(tmp_path: Path) -> None:
    async with opened(tmp_path / "c1", Settings(reserve_bytes=0)) as desk:
        positions = await desk.keep(*(b"%d" % n * 20_000 for n in range(4)))
    bad = positions[0].offset_bytes + 10_000
    disk = _BadBlock(bad)
    found = recover(tmp_path / "c1", filesystem=disk, entropy=os.urandom)
    assert [(damage.start_bytes, damage.end_bytes) for damage in found.damage] == [
        (positions[0].offset_bytes, positions[1].offset_bytes)
    ]
    assert found.end.offset_bytes == positions[3].offset_bytes


class _BadBlock(LocalFilesystem):
    """A disk that can't read one block of a segment."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def open(self, path: Path, *, writable: bool) -> LocalFile:
        fd = os.open(path, os.O_RDWR if writable else os.O_RDONLY)
        return _BadFile(fd, self._offset) if path.suffix == ".seg" else LocalFile(fd)


class _BadFile(LocalFile):
    def __init__(self, fd: int, offset: int) -> None:
        super().__init__(fd)
        self._offset = offset

    def read_at(self, offset_bytes: int, count_bytes: int) -> bytes:
        if offset_bytes <= self._offset < offset_bytes + count_bytes:
            raise OSError(errno.EIO, "a bad block")
        return super().read_at(offset_bytes, count_bytes)
