"""`up` itself, where it matters what comes between two of its steps; with real roles below it, in test_loops.py."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from seawall.guard import Heart
from seawall.guard.outlet import Outlet
from seawall.journal.filesystem import LocalFilesystem
from seawall.kernel.clock import SystemClock
from seawall.machine.claim import Claim
from seawall.machine.diary import Diary
from seawall.machine.folder import Folder
from seawall.machine.up import FIRST_S, Parts, Up
from seawall.settings import Settings, load_resolved, read
from stall import Stopwatch

NOWHERE = "postgresql://nobody@127.0.0.1:1/none"


class SlowDatabase:
    """Takes its time to be made, as one does for which a folder and a server have to be set up first."""

    def __init__(self) -> None:
        self.asked, self.made = asyncio.Event(), asyncio.Event()

    async def prepare(self) -> tuple[str, str]:
        self.asked.set()
        await self.made.wait()
        return NOWHERE, NOWHERE

    async def run(self, heart: Heart) -> None:
        while True:
            await heart.beat()
            await asyncio.sleep(0.1)

    async def stop(self, *, timeout_s: float) -> None: ...


@contextlib.asynccontextmanager
async def running(
    folder: Folder, file: Path, database: SlowDatabase, *, migrate: Callable[[str], Awaitable[None]],
    has_senders: bool = False, leave: Callable[[int], None] = lambda status: None,
) -> AsyncIterator[Up]:  # fmt: skip
    """`up` on a store that nobody reaches; its roles are real processes."""
    flags = {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "dsn": NOWHERE}

    def reread() -> Settings:
        return read(flags, config=file, environment={})

    settings = reread()
    claim = Claim(folder, settings.program)
    claim.take()
    parts = Parts(
        folder=folder, settings=settings, reread=reread, migrate=migrate, merge=nothing, set_log_level=len,  # type: ignore[arg-type]
        lines=Outlet(2), database=database, has_senders=lambda: has_senders, leave=leave,
        diary=lambda metrics: Diary(
            folder.changes, "up", version="1", filesystem=LocalFilesystem(), clock=SystemClock(), metrics=metrics
        ),
    )  # fmt: skip
    up = Up(parts, claim)
    task = asyncio.create_task(up.run())
    try:
        async with asyncio.timeout(20):
            yield up
    finally:
        database.made.set()
        up.stop("the test is over")
        assert await task == 0
        claim.release()


async def nothing(*given: object) -> None: ...


async def test_the_end_is_seen_to_before_files_are_removed_on_a_disk_that_may_hang(tmp_path: Path) -> None:
    folder, database = Folder(tmp_path / "data", LocalFilesystem()), SlowDatabase()
    database.made.set()
    file = tmp_path / "seawall.toml"
    file.touch()
    found: list[tuple[int, bool]] = []

    def leave(status: int) -> None:
        found.append((status, folder.admin_file.exists()))

    async with running(folder, file, database, migrate=nothing, leave=leave):
        while not folder.admin_file.exists():
            await asyncio.sleep(0.01)
    assert found == [(0, True)] and not folder.admin_file.exists()


async def test_settings_that_were_read_again_during_the_start_are_those_that_roles_get(tmp_path: Path) -> None:
    folder, database = Folder(tmp_path / "data", LocalFilesystem()), SlowDatabase()
    file = tmp_path / "seawall.toml"
    file.write_text("[collector]\nbody_bytes_max = 40\n")
    async with running(folder, file, database, migrate=nothing):
        await database.asked.wait()
        file.write_text("[collector]\nbody_bytes_max = 50\n")
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0.1)
        assert not folder.resolved_file.exists(), "there is no store yet to be written beside them"
        database.made.set()
        while not folder.resolved_file.exists():
            await asyncio.sleep(0.01)
        given = load_resolved(folder.resolved_file)
        assert given.values["collector", "body_bytes_max"].value == 50
        assert given.program.dsn == NOWHERE


@pytest.mark.parametrize("has_senders", [False, True], ids=["a new folder", "one with sources"])
async def test_only_roles_of_a_folder_that_nobody_sends_to_wait_for_the_schema(
    tmp_path: Path, has_senders: bool
) -> None:
    folder, database = Folder(tmp_path / "data", LocalFilesystem()), SlowDatabase()
    file = tmp_path / "seawall.toml"
    file.write_text("")
    begun, made = asyncio.Event(), asyncio.Event()

    async def migrate(dsn: str) -> None:
        begun.set()
        await made.wait()

    database.made.set()
    async with running(folder, file, database, migrate=migrate, has_senders=has_senders) as up:
        collector = up._children["collector"]
        await begun.wait()
        watch = Stopwatch()
        while collector.pid is None:  # a store that is away holds up nobody for longer
            await asyncio.sleep(0.01)
        assert watch.s < FIRST_S / 2 if has_senders else watch.wall_s > FIRST_S / 2
        assert not made.is_set()
