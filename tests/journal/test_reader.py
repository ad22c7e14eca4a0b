"""Reading a log: beside its writer, after its death, beside a hung one, and through damage."""

# ruff: noqa: SIM117 (two lines say who lives inside whom)

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import socket
from pathlib import Path

import pytest
from desk import NO_SOCKET, answered, opened, payloads_in, segments, until

from seawall.guard import Supervisor
from seawall.journal import LocalFilesystem, LogReader, Settings, SyncedPublisher, discover
from seawall.journal.frame import FRAME_BYTES, HEADER_BYTES
from seawall.journal.lock import try_lock
from seawall.journal.publisher import MESSAGE, encode
from seawall.journal.recovery import recover
from seawall.kernel.error import Corrupt
from seawall.kernel.seam.journal import Chunk, Replaced
from seawall.testing import FaultyFilesystem

LARGE = Settings(reserve_bytes=0)


def everything(reader: LogReader) -> Chunk:
    return reader.read(reader.start(), records_max=1_000_000, bytes_max=1 << 30)


def payloads(reader: LogReader) -> list[bytes]:
    return [frame.payload for frame in everything(reader).frames]


async def three_segments(folder: Path) -> None:
    """Records 0 to 2, each in a segment of its own: nobody writes the log any more."""
    for n in range(3):
        async with opened(folder) as desk:
            await desk.keep(b"%d" % n)


async def read_dead(folder: Path) -> tuple[list[bytes], list[str]]:
    """Payloads and reasons of damage in a log without a writer."""
    async with LogReader(folder, NO_SOCKET) as reader:
        chunk = everything(reader)
        return [frame.payload for frame in chunk.frames], [damage.reason for damage in chunk.damage]


async def test_a_log_without_a_writer_is_read_to_its_end(tmp_path: Path) -> None:
    async with opened(tmp_path / "c1") as desk:
        await desk.keep(b"one", b"two")
    assert await payloads_in(tmp_path / "c1") == [b"one", b"two"]


async def test_a_reader_lets_the_lock_go_at_once(tmp_path: Path) -> None:
    async with opened(tmp_path / "c1") as desk:
        await desk.keep(b"one")
    async with LogReader(tmp_path / "c1", NO_SOCKET) as reader, opened(tmp_path / "c1") as desk:
        await desk.keep(b"two")
        assert payloads(reader) == [b"one"]


async def test_beside_a_silent_writer_only_what_is_proven_is_read(tmp_path: Path) -> None:
    async with opened(tmp_path / "c1") as desk, LogReader(tmp_path / "c1", NO_SOCKET) as reader:
        (first,) = await desk.keep(b"one")
        assert not await reader.wait(reader.start(), 0.6)
        await desk.keep(b"two")
        # The second batch was begun: so the first one was synced.
        assert await reader.wait(reader.start(), 5)
        assert reader.synced_end() == first
        assert payloads(reader) == [b"one"]


async def test_what_is_written_and_not_synced_is_never_read(tmp_path: Path) -> None:
    path = tmp_path / "run" / "c1.sock"
    async with opened(tmp_path / "c1") as desk, SyncedPublisher(desk.log, path):
        async with LogReader(tmp_path / "c1", path) as reader:
            (end,) = await desk.keep(b"one")
            assert await reader.wait(reader.start(), 5)
            desk.disk.hang("sync_data")
            desk.submit(b"two")
            await until(desk.disk.hung.is_set)
            assert b"two" in segments(tmp_path / "c1")[0].read_bytes()
            assert not await reader.wait(end, 0.6)
            assert payloads(reader) == [b"one"]
            desk.disk.release()
            assert await reader.wait(end, 5)
            assert payloads(reader) == [b"one", b"two"]


async def test_a_reader_finds_the_writer_again_after_its_restart(tmp_path: Path) -> None:
    path = tmp_path / "run" / "c1.sock"
    async with opened(tmp_path / "c1") as desk, SyncedPublisher(desk.log, path):
        await desk.keep(b"one")
        reader = await LogReader(tmp_path / "c1", path).__aenter__()
    try:
        assert payloads(reader) == [b"one"]
        end = reader.synced_end()
        assert not await reader.wait(end, 0.1)
        async with opened(tmp_path / "c1") as desk, SyncedPublisher(desk.log, path):
            await desk.keep(b"two")
            assert await reader.wait(end, 5)
            assert payloads(reader) == [b"one", b"two"]
    finally:
        reader.close()


async def test_what_a_dead_writer_left_after_its_last_word_is_found(tmp_path: Path) -> None:
    path = tmp_path / "run" / "c1.sock"
    async with opened(tmp_path / "c1") as desk, LogReader(tmp_path / "c1", path) as reader:
        await desk.keep(b"one", b"two")
        assert await reader.wait(reader.start(), 5)
        assert payloads(reader) == [b"one"]
        await desk.log.stop()
        assert await reader.wait(reader.synced_end(), 5)
        assert payloads(reader) == [b"one", b"two"]


async def test_the_publisher_passes_over_a_subscriber_that_does_not_read(tmp_path: Path) -> None:
    path = tmp_path / "run" / "c1.sock"
    async with opened(tmp_path / "c1") as desk, SyncedPublisher(desk.log, path) as publisher:
        with socket.socket(socket.AF_UNIX) as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            slow.connect(str(path))
            await until(lambda: bool(publisher._subscribers))
            for _ in range(20_000):
                publisher._send()
            (subscriber,) = publisher._subscribers
            assert subscriber._paused and subscriber._missed
            await desk.keep(b"the newest")
            slow.setblocking(False)
            received = b""
            newest = encode(desk.log.synced_end)
            async with asyncio.timeout(5):
                while not received.endswith(newest):
                    try:
                        received = (received + slow.recv(1 << 20))[-MESSAGE.size :]
                    except BlockingIOError:
                        await asyncio.sleep(0.001)


async def test_the_publisher_makes_its_socket_again_when_it_was_removed(tmp_path: Path) -> None:
    path = tmp_path / "run" / "c1.sock"
    async with opened(tmp_path / "c1") as desk, SyncedPublisher(desk.log, path) as publisher:
        async with Supervisor(desk.metrics) as supervisor:
            publisher.register(supervisor)
            await until(lambda: supervisor.health()[0].ready)
            path.unlink()
            await until(path.exists)
            async with LogReader(tmp_path / "c1", path) as reader:
                await desk.keep(b"one")
                assert await reader.wait(reader.start(), 5)
    assert not path.exists()


async def test_a_socket_deep_in_the_tree_can_be_published(tmp_path: Path) -> None:
    path = tmp_path / ("d" * 60) / ("e" * 60) / "c1.sock"
    async with opened(tmp_path / "c1") as desk, SyncedPublisher(desk.log, path):
        async with LogReader(tmp_path / "c1", path) as reader:
            await desk.keep(b"one")
            assert await reader.wait(reader.start(), 5)


async def test_discover_finds_every_log_also_without_a_writer(tmp_path: Path) -> None:
    assert discover(tmp_path / "journal") == []
    for name in ("c2", "c1"):
        async with opened(tmp_path / "journal" / name) as desk:
            await desk.keep(b"x")
    (tmp_path / "journal" / "not-a-log").mkdir()
    assert [path.name for path in discover(tmp_path / "journal")] == ["c1", "c2"]
    with pytest.raises(Corrupt):
        await LogReader(tmp_path / "journal" / "not-a-log", NO_SOCKET).__aenter__()


async def test_damage_in_the_middle_is_told_kept_aside_and_nothing_after_it_is_lost(tmp_path: Path) -> None:
    async with opened(tmp_path / "c1") as desk:
        positions = await desk.keep(*(b"record %d" % n for n in range(5)))
        rot(segments(tmp_path / "c1")[0], positions[2].offset_bytes - 3)
        await desk.keep(b"after")
        async with LogReader(tmp_path / "c1", NO_SOCKET) as reader:
            assert await reader.wait(reader.start(), 5)
            chunk = everything(reader)
    assert [frame.payload for frame in chunk.frames] == [b"record 0", b"record 1", b"record 3", b"record 4"]
    (damage,) = chunk.damage
    assert (damage.start_bytes, damage.end_bytes) == (positions[1].offset_bytes, positions[2].offset_bytes)
    (copy,) = (tmp_path / "c1").glob("*.bad")
    assert len(copy.read_bytes()) == FRAME_BYTES + len(b"record 2")


async def test_a_missing_segment_is_told_and_reading_goes_on_behind_it(tmp_path: Path) -> None:
    await three_segments(tmp_path / "c1")
    async with LogReader(tmp_path / "c1", NO_SOCKET) as reader:
        middle = everything(reader).frames[1].end
    segments(tmp_path / "c1")[1].unlink()
    assert await read_dead(tmp_path / "c1") == ([b"0", b"2"], ["the segment is missing"])
    async with LogReader(tmp_path / "c1", NO_SOCKET) as reader:
        # Also from a position in it: waiting there would hold back what comes after.
        chunk = reader.read(middle, records_max=10, bytes_max=1000)
        assert [frame.payload for frame in chunk.frames] == [b"2"]
        assert [damage.reason for damage in chunk.damage] == ["the segment is missing"]
    found = recover(tmp_path / "c1", filesystem=LocalFilesystem(), entropy=os.urandom)
    assert [damage.reason for damage in found.damage] == ["the segment is missing"]


async def test_a_segment_cut_short_is_damage(tmp_path: Path) -> None:
    await three_segments(tmp_path / "c1")
    segment = segments(tmp_path / "c1")[1]
    os.truncate(segment, HEADER_BYTES + 10)
    assert await read_dead(tmp_path / "c1") == ([b"0", b"2"], ["no frame"])


async def test_a_segment_cut_short_by_much_is_passed_at_once(tmp_path: Path) -> None:
    """What is missing of it isn't looked for byte by byte: whoever reads would stand still for minutes."""
    async with opened(tmp_path / "c1", LARGE) as desk:
        (end,) = await desk.keep(bytes(500_000))
    async with opened(tmp_path / "c1", LARGE) as desk:
        await desk.keep(b"after")
    os.truncate(segments(tmp_path / "c1")[0], HEADER_BYTES + 10)
    disk = FaultyFilesystem(LocalFilesystem())
    async with LogReader(tmp_path / "c1", NO_SOCKET, filesystem=disk) as reader:
        before = disk.counts["read_at"]
        chunk = everything(reader)
        assert [frame.payload for frame in chunk.frames] == [b"after"]
        assert [(damage.start_bytes, damage.end_bytes) for damage in chunk.damage] == [(HEADER_BYTES, end.offset_bytes)]
        assert disk.counts["read_at"] - before < 50
        # Also where a batch has ended there: what is missing is known to have been there.
        chunk = reader.read(end, records_max=10, bytes_max=1000)
        assert ([frame.payload for frame in chunk.frames], chunk.damage) == ([b"after"], [])


async def test_a_first_segment_that_a_crash_left_blank_is_read_as_it_was_made_anew(tmp_path: Path) -> None:
    async with opened(tmp_path / "c1") as desk:
        desk.disk.fail("write_at", errno.ENOSPC, after=1)  # its header only
        await answered(desk.submit(b"refused"), 1)
        assert len(segments(tmp_path / "c1")) == 1
    async with LogReader(tmp_path / "c1", NO_SOCKET) as reader:
        async with opened(tmp_path / "c1") as desk:
            await desk.keep(b"one", b"two")
        assert await reader.wait(reader.start(), 5)
        chunk = everything(reader)
        assert ([frame.payload for frame in chunk.frames], chunk.damage) == ([b"one", b"two"], [])


async def test_a_segment_in_the_place_of_another_is_damage(tmp_path: Path) -> None:
    await three_segments(tmp_path / "c1")
    first, second, _ = segments(tmp_path / "c1")
    shutil.copy(first, second)
    found, damage = await read_dead(tmp_path / "c1")
    assert found == [b"0", b"2"]
    assert damage == ["the segment's header is unreadable"]


async def test_a_segment_of_another_log_is_damage(tmp_path: Path) -> None:
    await three_segments(tmp_path / "c1")
    await three_segments(tmp_path / "c2")
    shutil.copy(segments(tmp_path / "c2")[1], segments(tmp_path / "c1")[1])
    assert await read_dead(tmp_path / "c1") == ([b"0", b"2"], ["the segment's header is unreadable"])


async def test_one_bad_copy_of_a_header_costs_nothing(tmp_path: Path) -> None:
    await three_segments(tmp_path / "c1")
    for segment in segments(tmp_path / "c1"):
        with segment.open("r+b") as file:
            file.write(bytes(512))
    assert await payloads_in(tmp_path / "c1") == [b"0", b"1", b"2"]


async def test_records_that_vanish_without_a_bad_byte_are_told_by_their_numbers(tmp_path: Path) -> None:
    async with opened(tmp_path / "c1") as desk:
        positions = await desk.keep(b"one", b"two", b"six")
    segment = segments(tmp_path / "c1")[0]
    content = segment.read_bytes()
    cut, kept = slice(positions[0].offset_bytes, positions[1].offset_bytes), positions[1].offset_bytes
    segment.write_bytes(content[: cut.start] + content[kept:])
    found, damage = await read_dead(tmp_path / "c1")
    assert found == [b"one", b"six"]
    assert len(damage) == 1 and "missing" in damage[0]


async def test_two_readers_may_read_one_log(tmp_path: Path) -> None:
    await three_segments(tmp_path / "c1")

    async def read_all() -> list[bytes]:
        # Only one of them can recover the log at a time; the other one looks again.
        async with LogReader(tmp_path / "c1", NO_SOCKET) as reader:
            while len(payloads(reader)) < 3:
                await reader.wait(reader.synced_end(), 1)
            return payloads(reader)

    async with asyncio.timeout(5):
        assert await asyncio.gather(read_all(), read_all()) == [[b"0", b"1", b"2"]] * 2


async def test_a_reader_waits_while_another_recovers(tmp_path: Path) -> None:
    await three_segments(tmp_path / "c1")
    lock = try_lock(tmp_path / "c1")
    assert lock is not None
    async with LogReader(tmp_path / "c1", NO_SOCKET) as reader:
        assert payloads(reader) == [b"0", b"1"]
        lock.release()
        assert await reader.wait(reader.synced_end(), 5)
        assert payloads(reader) == [b"0", b"1", b"2"]


def rot(path: Path, offset: int) -> None:
    """One bit of a file changes."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("segments_after", [2, 5])
async def test_another_log_in_the_folder_is_read_from_its_start_and_nothing_of_it_is_forgotten(
    tmp_path: Path, segments_after: int
) -> None:
    """Unnoticed, it was never read; and what was read of the first one was deleted of the second."""
    folder = tmp_path / "c1"
    await three_segments(folder)
    async with LogReader(folder, NO_SOCKET) as reader:
        at = everything(reader).next
        shutil.rmtree(folder)
        for n in range(segments_after):
            async with opened(folder) as desk:
                await desk.keep(b"new %d" % n)
        with pytest.raises(Replaced):
            reader.forget(at)
        with pytest.raises(Replaced):
            reader.read(at, records_max=10, bytes_max=1000)
        assert reader.log_id == desk.log.log_id
        assert await reader.wait(reader.start(), 5.0)
        assert payloads(reader) == [b"new %d" % n for n in range(segments_after)]
    assert len(segments(folder)) == segments_after


async def test_a_writer_of_another_log_is_noticed_by_who_waits(tmp_path: Path) -> None:
    folder, socket_path = tmp_path / "c1", tmp_path / "s"
    await three_segments(folder)
    async with LogReader(folder, socket_path) as reader:
        at = everything(reader).next
        shutil.rmtree(folder)
        async with opened(folder) as desk, SyncedPublisher(desk.log, socket_path):
            await desk.keep(b"new")
            with pytest.raises(Replaced):
                await reader.wait(at, 5.0)
            assert payloads(reader) == [b"new"]
