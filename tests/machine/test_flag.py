"""A process' flags follow the store within a second, and outlive it: gone, hung, away at a start, with a torn copy."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from seawall.guard import Supervisor
from seawall.guard.flag import Flag, Part, Registry, Setting, Wish
from seawall.guard.switchboard import Known, Switchboard
from seawall.journal.filesystem import LocalFilesystem
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import SystemClock
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.filesystem import Filesystem
from seawall.machine import flag as room
from seawall.machine.flag import FlagWatch
from seawall.machine.known import KnownFlags
from seawall.store import pool
from seawall.store.change import Author
from seawall.store.flag import Flags
from seawall.testing.filesystem import FaultyFilesystem
from seawall.testing.postgres import Database, PostgresServer
from stall import Stopwatch

LIGHT = Flag(
    name="light", owner="house", help="…", without="…", default=True, safe=False, requires=(Part("power"),),
    roles=("router",),
)  # fmt: skip
NOWHERE = "postgresql://seawall@127.0.0.1:1/seawall"
AUTHOR = Author("alice", SystemClock(), "a test")


@dataclass
class Process:
    board: Switchboard
    watch: FlagWatch
    supervisor: Supervisor
    alerts: Alerts

    @property
    def on(self) -> bool:
        return self.board.switch("light")()

    @property
    def reason(self) -> str:
        return next(loop.reason for loop in self.supervisor.health() if loop.name == "flags")


@contextlib.asynccontextmanager
async def process(dsn: str, folder: Path, *, filesystem: Filesystem | None = None) -> AsyncIterator[Process]:
    registry, clock, metrics = Registry([LIGHT]), SystemClock(), Metrics()
    supervisor, alerts = Supervisor(metrics), Alerts(metrics, clock)
    board = Switchboard(registry, role="router", release="1", clock=clock, loop_ready=supervisor.ready)
    board.provide("power", lambda: True)
    copies = KnownFlags(folder / "flags", "router", filesystem or LocalFilesystem())
    watch = FlagWatch(
        board, registry, copies, pool.Settings(dsn=dsn), role="router", clock=clock, metrics=metrics, alerts=alerts
    )
    async with watch:
        watch.register(supervisor)
        async with supervisor:
            yield Process(board, watch, supervisor, alerts)


async def until(true: Callable[[], bool], timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not true():
            await asyncio.sleep(0.002)


async def put(dsn: str, value: bool | None) -> Setting:
    async with pool.Store(pool.Settings(dsn=dsn), role="test") as store:
        flags = Flags(store)
        version = (await flags.load(timeout_s=2)).settings.get("light", Setting(flag="light")).version
        return (await flags.put(LIGHT, Wish(value=value), version=version, author=AUTHOR))[1]


def kept(folder: Path) -> Known | None:
    return KnownFlags(folder / "flags", "router", LocalFilesystem()).read()


async def test_a_change_is_there_at_once_by_its_hint_and_on_disk(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "EVERY_S", 2.5)
    async with process(database.dsn, tmp_path) as it:
        await until(lambda: it.on and all(loop.ready for loop in it.supervisor.health()))
        for value in (False, True):  # just read: the next read that finds the last one anyhow is far away
            await put(database.dsn, value)
            await until(lambda value=value: it.on is value)  # type: ignore[misc]
        watch = Stopwatch()
        setting = await put(database.dsn, False)
        await until(lambda: not it.on)
        assert watch.s < 0.9 * room.EVERY_S
        await until(lambda: it.board.lines()[0].kept)
        found = kept(tmp_path)
        assert found is not None and found.settings["light"] == setting
        [line] = it.board.lines()
        assert (line.version, line.origin, line.changed_by, line.why) == (3, "store", "alice", "a test")


async def test_a_change_whose_hint_is_lost_is_there_within_two_reads(database: Database, tmp_path: Path) -> None:
    async with process(database.dsn, tmp_path) as it:
        await until(lambda: it.on)
        admin = await asyncpg.connect(database.dsn)
        await admin.execute(  # without NOTIFY
            "insert into flag (name, value, version, changed_by, why) values ('light', false, 1, 'bob', 'by hand')"
        )
        await admin.close()
        watch = Stopwatch()
        await until(lambda: not it.on)
        assert watch.s < 2 * room.EVERY_S + 0.5


async def test_without_store_and_copy_flags_are_safe_and_it_is_told(tmp_path: Path) -> None:
    async with process(NOWHERE, tmp_path) as it:
        await until(lambda: "nothing is known of the flags" in it.reason)
        assert not it.on and it.board.lines()[0].wanted
        assert [alert.name for alert in it.alerts.active()] == ["flags-unknown"]


@pytest.mark.parametrize("value", [True, False])
async def test_a_start_without_the_store_goes_on_from_the_copy(database: Database, tmp_path: Path, value: bool) -> None:
    await put(database.dsn, value)
    async with process(database.dsn, tmp_path) as it:
        await until(lambda: it.board.lines()[0].kept)
    async with process(NOWHERE, tmp_path) as it:
        assert it.on is value, "before any loop has run"
        await until(lambda: "the last known settings are in force" in it.reason)
        assert it.on is value and it.board.lines()[0].origin == "copy" and it.board.age_s() is None
        assert it.alerts.active() == []


async def test_a_torn_copy_is_no_copy_and_the_store_mends_it(database: Database, tmp_path: Path) -> None:
    await put(database.dsn, True)
    async with process(database.dsn, tmp_path) as it:
        await until(lambda: it.board.lines()[0].kept)
    file = tmp_path / "flags" / "router"
    file.write_bytes(file.read_bytes()[:-3])
    async with process(NOWHERE, tmp_path) as it:
        assert not it.on
    async with process(database.dsn, tmp_path) as it:
        await until(lambda: it.on and it.board.lines()[0].kept)
    assert kept(tmp_path) is not None


async def test_a_stale_copy_is_overruled_by_the_store_as_soon_as_it_answers(database: Database, tmp_path: Path) -> None:
    stale = Known(settings={"light": Setting(flag="light", value=True, version=40)}, schema=3)
    KnownFlags(tmp_path / "flags", "collector", LocalFilesystem()).write(stale)
    await put(database.dsn, False)
    async with process(database.dsn, tmp_path) as it:
        await until(lambda: not it.on)
        assert it.board.lines()[0].version == 1


async def test_a_store_that_goes_away_changes_nothing_and_its_age_is_shown(
    server: PostgresServer, tmp_path: Path
) -> None:
    dsn = server.dsn(database="seawall")
    await put(dsn, False)
    async with process(dsn, tmp_path) as it:
        await until(lambda: not it.on and it.board.lines()[0].kept)
        server.kill()
        await until(lambda: "the last known settings are in force" in it.reason)
        await until(lambda: (it.board.age_s() or 0.0) > 1.5)
        assert not it.on, "what was switched off doesn't come on by itself"
        await asyncio.to_thread(server.start)
        await put(dsn, True)
        await until(lambda: it.on, 10)
        assert (it.board.age_s() or 9.0) < 2.0


async def test_a_disk_that_takes_no_copy_is_asked_again_and_holds_no_flag_back(
    database: Database, tmp_path: Path
) -> None:
    filesystem = FaultyFilesystem(LocalFilesystem())
    async with process(database.dsn, tmp_path, filesystem=filesystem) as it:
        await until(lambda: it.on and it.board.lines()[0].kept)
        filesystem.fail("rename", errno.ENOSPC)
        await put(database.dsn, False)
        await until(lambda: not it.on)
        assert not it.board.lines()[0].kept
        filesystem.heal()
        await until(lambda: it.board.lines()[0].kept)
    found = kept(tmp_path)
    assert found is not None and found.settings["light"].value is False


async def test_a_disk_that_hangs_has_one_thread_and_holds_no_flag_back(database: Database, tmp_path: Path) -> None:
    class Hung(LocalFilesystem):
        def __init__(self) -> None:
            self.goes_on = threading.Event()

        def make_folder(self, path: Path) -> None:
            self.goes_on.wait(30)
            super().make_folder(path)

    disk = Hung()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
    async with process(database.dsn, tmp_path, filesystem=disk) as it:
        await until(lambda: it.on)
        await put(database.dsn, False)
        await until(lambda: not it.on, 10.0)
        await asyncio.sleep(4.0)  # another read, and another
        async with asyncio.timeout(2.0):
            await asyncio.to_thread(int)  # one is left for whoever needs one
        assert not it.board.lines()[0].kept
        disk.goes_on.set()
        await until(lambda: it.board.lines()[0].kept, 10.0)
    found = kept(tmp_path)
    assert found is not None and found.settings["light"].value is False
