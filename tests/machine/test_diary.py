"""What was changed on this machine reaches the timeline once, whatever the disk and the store do."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from seawall.guard import Supervisor
from seawall.journal.filesystem import LocalFilesystem
from seawall.kernel.error import Unavailable
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.change import TEXT_MAX, Change, Kind
from seawall.kernel.seam.filesystem import Filesystem
from seawall.machine import diary as room
from seawall.machine.diary import Diary, noted_in, read_diary
from seawall.store import change, pool
from seawall.testing.clock import ManualClock
from seawall.testing.filesystem import FaultyFilesystem
from seawall.testing.postgres import Database, PostgresServer


class Timeline:
    """A store that may be away, and counts what it gets."""

    def __init__(self) -> None:
        self.away = False
        self.found: list[Change] = []
        self.asked = asyncio.Event()

    async def merge(self, changes: Sequence[Change]) -> None:
        self.asked.set()
        if self.away:
            raise Unavailable("PostgreSQL", "it is away")
        keys = {one.key for one in self.found}
        self.found += [one for one in changes if one.key not in keys]


def made(folder: Path, *, filesystem: Filesystem | None = None, version: str = "1.0", metrics: Metrics | None = None):  # type: ignore[no-untyped-def]
    return Diary(
        folder, "up", version=version, filesystem=filesystem or LocalFilesystem(), clock=ManualClock(),
        metrics=metrics or Metrics(),
    )  # fmt: skip


@contextlib.asynccontextmanager
async def running(diary: Diary) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(Metrics())
    supervisor.add("changes", diary.run, essential=False)
    async with diary, supervisor:
        yield supervisor


async def until(true: object, timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not true():  # type: ignore[operator]
            await asyncio.sleep(0.005)


async def test_a_note_is_on_disk_on_return_and_in_the_next_life(tmp_path: Path) -> None:
    async with made(tmp_path) as diary:
        one = diary.change(Kind.BREAKER, "redis", by="alice", before="closed", after="open", why="it lies")
        await diary.note(one)
        assert noted_in(tmp_path, LocalFilesystem()) == [one]
    async with made(tmp_path) as diary:  # as after kill -9: leaving writes nothing more
        assert await diary.pending() == [one]


async def test_changes_wait_while_the_store_is_away_and_each_comes_once(tmp_path: Path) -> None:
    timeline = Timeline()
    timeline.away = True
    diary = made(tmp_path)
    diary.merge_with(timeline.merge)
    async with running(diary) as supervisor:
        for number in range(250):
            diary.jot(diary.change(Kind.RESTART, f"role{number}"))
        await timeline.asked.wait()
        await until(lambda: "changes wait for the store" in supervisor.health()[0].reason)
        await until(lambda: len(noted_in(tmp_path, LocalFilesystem())) == 250)
        timeline.away = False
        await until(lambda: len(timeline.found) == 250)
        await until(lambda: noted_in(tmp_path, LocalFilesystem()) == [])
    assert [one.what for one in timeline.found] == [f"role{number}" for number in range(250)]


async def test_a_crash_between_store_and_disk_keeps_one(tmp_path: Path) -> None:
    timeline = Timeline()
    async with made(tmp_path) as diary:
        await diary.note(diary.change(Kind.START, "seawall"))
    before = (tmp_path / "up").read_bytes()
    for _ in range(2):  # the same file twice: the store had it, the disk didn't know
        (tmp_path / "up").write_bytes(before)
        diary = made(tmp_path)
        diary.merge_with(timeline.merge)
        async with running(diary):
            await timeline.asked.wait()
            await until(lambda: noted_in(tmp_path, LocalFilesystem()) == [])
        timeline.asked.clear()
    assert len(timeline.found) == 1


@pytest.mark.parametrize("call", ["create", "sync_data", "rename"])
async def test_a_disk_that_takes_nothing_loses_nothing_while_we_live(tmp_path: Path, call: str) -> None:
    filesystem, timeline = FaultyFilesystem(LocalFilesystem()), Timeline()
    timeline.away = True
    diary = made(tmp_path, filesystem=filesystem)
    diary.merge_with(timeline.merge)
    async with running(diary):
        filesystem.fail(call, errno.ENOSPC)
        await diary.note(diary.change(Kind.BREAKER, "redis"))  # the hand isn't held back
        assert noted_in(tmp_path, LocalFilesystem()) == []
        filesystem.heal()
        await until(lambda: len(noted_in(tmp_path, LocalFilesystem())) == 1)
        timeline.away = False
        await until(lambda: len(timeline.found) == 1)


async def test_a_disk_that_hangs_holds_nobody_for_long_and_writes_nothing_old_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "WRITE_S", 0.05)
    filesystem = FaultyFilesystem(LocalFilesystem())
    async with made(tmp_path, filesystem=filesystem) as diary:
        filesystem.hang("sync_data")
        async with asyncio.timeout(10):
            await diary.note(diary.change(Kind.BREAKER, "one"))
        monkeypatch.setattr(room, "WRITE_S", 5.0)
        second = asyncio.create_task(diary.note(diary.change(Kind.BREAKER, "two")))
        await asyncio.sleep(0)
        filesystem.release()
        await second
        assert [one.what for one in noted_in(tmp_path, LocalFilesystem())] == ["one", "two"]


async def test_a_disk_that_hangs_takes_one_thread_however_often_it_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "WRITE_S", 0.02)
    filesystem = FaultyFilesystem(LocalFilesystem())
    async with made(tmp_path, filesystem=filesystem) as diary:
        filesystem.hang("sync_data")
        for number in range(20):
            await diary.note(diary.change(Kind.RESTART, f"role{number}"))
        async with asyncio.timeout(10):
            assert await asyncio.gather(
                *(asyncio.to_thread(str, number) for number in range(4))
            )  # a machine of one core has 5
        filesystem.release()
        monkeypatch.setattr(room, "WRITE_S", 5.0)
        await diary.note(diary.change(Kind.RESTART, "last"))
        assert len(noted_in(tmp_path, LocalFilesystem())) == 21


async def test_a_damaged_line_is_left_out_and_told_and_all_others_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with made(tmp_path) as diary:
        for name in ("a", "b", "c"):
            await diary.note(diary.change(Kind.RESTART, name))
    file = tmp_path / "up"
    head, first, second, third = file.read_bytes().splitlines()
    file.write_bytes(b"\n".join([head, first, second.replace(b'"b"', b'"x"'), third, third[:20]]))
    version, changes = read_diary(file, LocalFilesystem())
    assert (version, [one.what for one in changes]) == ("1.0", ["a", "c"])
    assert "a diary of changes is damaged" in caplog.text
    file.write_bytes(b"\0" * 100)
    assert read_diary(file, LocalFilesystem()) == (None, [])


async def test_a_start_of_another_version_is_a_change_of_its_own(tmp_path: Path) -> None:
    timeline = Timeline()
    for version in ("1.0", "1.0", "1.1"):
        diary = made(tmp_path, version=version)
        diary.merge_with(timeline.merge)
        async with running(diary):
            await diary.started("seawall", by="alice")
            await until(lambda: noted_in(tmp_path, LocalFilesystem()) == [])
    assert [(one.kind, one.before, one.after) for one in timeline.found] == [
        (Kind.VERSION, None, "1.0"), (Kind.START, None, "1.0"), (Kind.START, None, "1.0"),
        (Kind.VERSION, "1.0", "1.1"), (Kind.START, None, "1.1"),
    ]  # fmt: skip


async def test_notes_are_bounded_in_length_and_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(room, "PENDING_MAX", 2)
    metrics = Metrics()
    async with made(tmp_path, metrics=metrics) as diary:
        one = diary.change(Kind.SETTING, "x" * 9999, after="line\nline\x1b[2J\ud800")
        for _ in range(3):
            await diary.note(replace(one))
        kept = await diary.pending()
    assert len(kept) == 2 and len(kept[0].what) == TEXT_MAX
    assert kept[0].after is not None and kept[0].after.isprintable()
    assert metrics.counter("seawall_changes_dropped_total", "").value == 1
    assert "a change can't be kept" in caplog.text


async def test_the_store_keeps_each_change_once_in_order_of_time(tmp_path: Path, database: Database) -> None:
    settings = pool.Settings(dsn=database.dsn)
    diary = made(tmp_path)
    diary.merge_with(lambda changes: change.bring(settings, changes, timeout_s=2.0))
    async with running(diary), pool.Store(settings, role="test") as store:
        one = diary.change(Kind.BREAKER, "redis", by="alice", before="closed", after="open", why="it lies")
        await diary.note(one)
        await until(lambda: noted_in(tmp_path, LocalFilesystem()) == [])
        await change.bring(settings, [one, one], timeout_s=2.0)
        [line] = await change.page(store, change.Asked(kind=Kind.BREAKER), timeout_s=2.0)
    assert (line.key, line.at_us, line.what, line.by, line.before, line.after, line.why) == (
        one.key, one.at_us, "redis", "alice", "closed", "open", "it lies",
    )  # fmt: skip


async def test_a_worker_may_tell_of_itself_and_make_up_nothing_else(database: Database, tmp_path: Path) -> None:
    worker = pool.Settings(dsn=database.worker_dsn)
    diary = made(tmp_path)
    for kind in (Kind.START, Kind.STOP, Kind.VERSION, Kind.SETTING):
        one = diary.change(kind, "worker")
        await change.bring(worker, [one, one], timeout_s=2.0)
    for kind in (Kind.FLAG, Kind.SOURCE, Kind.BREAKER, Kind.MIGRATION, Kind.RESTART):
        with pytest.raises(Unavailable, match="row-level security"):
            await change.bring(worker, [diary.change(kind, "geo", by="alice")], timeout_s=2.0)


async def test_a_store_that_is_killed_loses_no_change(server: PostgresServer, tmp_path: Path) -> None:
    settings = pool.Settings(dsn=server.dsn(database="seawall"), connect_timeout_s=0.5)
    diary = made(tmp_path)
    diary.merge_with(lambda changes: change.bring(settings, changes, timeout_s=1.0))
    async with running(diary):
        for number in range(6):
            if number == 2:
                server.kill()
            await diary.note(diary.change(Kind.RESTART, f"role{number}"))
        assert len(noted_in(tmp_path, LocalFilesystem())) >= 4
        await asyncio.to_thread(server.start)
        await until(lambda: noted_in(tmp_path, LocalFilesystem()) == [], 20)
    async with pool.Store(settings, role="test") as store:
        lines = await change.page(store, change.Asked(kind=Kind.RESTART), timeout_s=2.0)
    assert sorted(line.what for line in lines) == [f"role{number}" for number in range(6)]
