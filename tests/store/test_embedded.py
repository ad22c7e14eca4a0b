"""The embedded server: made, started, found again, watched and stopped, as root or not."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from seawall import migrate
from seawall.journal.filesystem import LocalFilesystem
from seawall.kernel.clock import SystemClock
from seawall.kernel.error import Misconfigured
from seawall.kernel.metric import Metrics
from seawall.store import binary, partition, place, pool, postmaster, process
from seawall.store.binary import server_user
from seawall.store.embedded import EmbeddedPostgres, Settings

WAIT_S = 30.0
SETTINGS = Settings(shared_buffers_mb=16)
ROOT = os.geteuid() == 0


class Heart:
    """What the supervisor would see."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.reasons: list[str] = []

    async def beat(self) -> None:
        self.ready.set()

    def unready(self, reason: str) -> None:
        self.ready.clear()
        self.reasons.append(reason)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A data folder that everybody can enter."""
    # Not pytest's: that is closed to the server's user.
    with tempfile.TemporaryDirectory(prefix="seawall-test-", ignore_cleanup_errors=True) as made:
        Path(made).chmod(0o755)
        data = Path(made) / "D"
        data.mkdir()
        yield data


def _new(folder: Path, **changes: object) -> EmbeddedPostgres:
    return EmbeddedPostgres(SETTINGS, folder, LocalFilesystem(), elsewhere=folder.parent / "elsewhere", **changes)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def _running(postgres: EmbeddedPostgres, *, stop: bool = True) -> AsyncIterator[Heart]:
    await postgres.prepare()
    heart = Heart()
    loop = asyncio.create_task(postgres.run(heart))
    try:
        async with asyncio.timeout(WAIT_S):
            await heart.ready.wait()
        yield heart
    finally:
        if stop:
            await postgres.stop(timeout_s=WAIT_S)
        loop.cancel()
        await asyncio.wait([loop])


async def _ask(postgres: EmbeddedPostgres, sql: str) -> object:
    dsn, _ = await postgres.prepare()
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not true():
            await asyncio.sleep(0.01)


async def test_a_new_folder_becomes_a_durable_server_that_only_its_user_reaches(folder: Path) -> None:
    before = {p: p.stat().st_mode for p in (folder, *folder.parents)}
    postgres = _new(folder)
    async with _running(postgres):
        for name, value in {
            "fsync": "on", "synchronous_commit": "on", "data_checksums": "on", "listen_addresses": "",
            "server_encoding": "UTF8", "wal_level": "replica",
        }.items():  # fmt: skip
            assert await _ask(postgres, f"show {name}") == value
        assert await _ask(postgres, "select datlocale from pg_database where datname = 'seawall'") == "C.UTF-8"
        assert (folder / "postgres").stat().st_mode & 0o777 == 0o700
        assert (folder / "postgres").stat().st_uid == server_user().uid
    assert {p: p.stat().st_mode for p in before} == before  # no parent was opened to anybody
    assert postgres.pid is None


async def test_data_outlives_a_stop_and_a_warm_start_is_quick(folder: Path) -> None:
    async with _running(_new(folder)) as _:
        pass
    postgres = _new(folder)
    began = time.monotonic()
    async with _running(postgres):
        took_s = time.monotonic() - began
        await _ask(postgres, "create table kept (i int)")
    assert took_s < 10  # 0.2 on a quiet machine
    postgres = _new(folder)
    async with _running(postgres):
        assert await _ask(postgres, "select count(*) from kept") == 0


async def test_a_killed_server_is_started_again_in_the_open(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    postgres = _new(folder)
    async with _running(postgres) as heart:
        await _ask(postgres, "create table kept (i int)")
        pid = postgres.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await _until(lambda: bool(heart.reasons) and not heart.ready.is_set())
        async with asyncio.timeout(WAIT_S):
            await heart.ready.wait()
        assert postgres.pid != pid
        assert await _ask(postgres, "select count(*) from kept") == 0
    ended = [r for r in caplog.records if r.message == "PostgreSQL ended"]
    assert [r.seawall["cause"] for r in ended] == ["signal SIGKILL"]  # type: ignore[attr-defined]


CHILD = textwrap.dedent(
    """
    import asyncio, sys
    from pathlib import Path
    from seawall import migrate
    from seawall.journal.filesystem import LocalFilesystem
    from seawall.store.embedded import EmbeddedPostgres, Settings

    class Heart:
        async def beat(self):
            print("ready", postgres.pid, flush=True)
        def unready(self, reason):
            pass

    async def main():
        await postgres.prepare()
        await postgres.run(Heart())

    folder = Path(sys.argv[1])
    postgres = EmbeddedPostgres(
        Settings(shared_buffers_mb=16), folder, LocalFilesystem(), elsewhere=folder.parent / "elsewhere"
    )
    asyncio.run(main())
    """
)


def _orphan(folder: Path) -> int:
    """Run an owner, kill it with -9, and return the pid of the server that it left."""
    with subprocess.Popen([sys.executable, "-c", CHILD, str(folder)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline().split()[1])
        owner.kill()
    return pid


async def test_a_server_whose_owner_was_killed_goes_on_and_is_adopted(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "seawall")
    pid = _orphan(folder)
    postgres = _new(folder)
    dsn, _ = await postgres.prepare()
    connection = await asyncpg.connect(dsn)
    # More log than its FIFO holds, while nobody reads: it must neither die nor wait.
    await connection.execute(
        "do $$ begin for i in 1..3000 loop raise warning 'nobody reads % %', i, repeat('x', 100); end loop; end $$",
        timeout=20,
    )
    await connection.close()
    async with _running(postgres):
        assert postgres.pid == pid
        assert any("adopted" in r.message for r in caplog.records)
        await _until(lambda: any("nobody reads 1 " in r.message for r in caplog.records))
        os.kill(pid, signal.SIGKILL)
        await _until(lambda: postgres.pid not in (pid, None))
    assert process.identity(pid) is None


async def test_a_killed_server_and_owner_are_healed_by_the_next_start(folder: Path) -> None:
    pid = _orphan(folder)
    os.kill(pid, signal.SIGKILL)
    postgres = _new(folder)
    async with _running(postgres):
        assert postgres.pid != pid
        assert await _ask(postgres, "select 1") == 1


async def test_a_pid_file_whose_number_was_reused_is_not_believed(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with _running(_new(folder)):
        pass
    # After a power cut the file is still there, and its number may be anybody's: here it is our own.
    file = folder / "postgres" / "data" / "postmaster.pid"
    file.write_text(f"{os.getpid()}\n{file.parent}\n1\n5432\n\n\n\nready   \n")
    assert postmaster.find(file.parent) is None
    postgres = _new(folder)
    async with _running(postgres):
        assert await _ask(postgres, "select 1") == 1
    assert any("stale pid file" in r.message for r in caplog.records)


async def test_a_hung_server_makes_the_loop_unready_and_is_left_alone(folder: Path) -> None:
    postgres = _new(folder)
    async with _running(postgres) as heart:
        pid = postgres.pid
        assert pid is not None
        pids = [pid, *process.children_of(pid)]
        for one in pids:
            os.kill(one, signal.SIGSTOP)
        try:
            await _until(lambda: any("doesn't answer" in r for r in heart.reasons))
        finally:
            for one in pids:
                os.kill(one, signal.SIGCONT)
        async with asyncio.timeout(WAIT_S):
            await heart.ready.wait()
        assert postgres.pid == pid


async def test_data_of_another_major_version_is_refused_with_the_cure(folder: Path) -> None:
    await _new(folder).prepare()
    (folder / "postgres" / "data" / "PG_VERSION").write_text("14\n")
    with pytest.raises(Misconfigured, match=r"written by PostgreSQL 14.*SEAWALL_PG_BIN"):
        await _new(folder).prepare()


async def test_lost_data_is_never_replaced_by_an_empty_store(folder: Path) -> None:
    await _new(folder).prepare()
    shutil.rmtree(folder / "postgres")
    with pytest.raises(Misconfigured, match="gone"):
        await _new(folder).prepare()


async def test_a_crash_in_the_midst_of_initdb_costs_nothing(folder: Path) -> None:
    half = folder / "postgres" / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    postgres = _new(folder)
    async with _running(postgres):
        assert await _ask(postgres, "select 1") == 1


async def test_a_path_too_long_for_a_socket_gets_a_short_one(folder: Path) -> None:
    deep = folder / ("x" * 100) / 'it\'s a "quoted", path'
    deep.mkdir(parents=True)
    postgres = _new(deep)
    async with _running(postgres):
        assert await _ask(postgres, "select 1") == 1
        socket = await _ask(postgres, "show unix_socket_directories")
    assert len(str(socket)) < 60
    shutil.rmtree(str(socket).strip('"'))


async def test_two_folders_have_two_servers(folder: Path) -> None:
    other = folder.parent / "E"
    other.mkdir()
    first, second = _new(folder), _new(other)
    async with _running(first), _running(second):
        assert first.pid != second.pid
        assert await _ask(first, "show data_directory") != await _ask(second, "show data_directory")


async def test_any_postgresql_from_15_on_will_do(folder: Path) -> None:
    others = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not others:
        pytest.skip("no PostgreSQL but the wheel's is installed here")
    settings = Settings(bin=str(others[0].parent), shared_buffers_mb=16)
    postgres = EmbeddedPostgres(settings, folder, LocalFilesystem(), elsewhere=folder.parent / "elsewhere")
    async with _running(postgres):
        dsn, _ = await postgres.prepare()
        assert await migrate.apply(pool.Settings(dsn=dsn, statement_timeout_s=30))
        async with pool.Store(pool.Settings(dsn=dsn), role="test") as store:
            await partition.Housekeeping(store, partition.Settings(), SystemClock(), Metrics()).round()
            assert await store.value("select count(*) from pg_inherits where inhparent = 'event'::regclass") == 6


async def test_local_settings_win(folder: Path) -> None:
    await _new(folder).prepare()
    (folder / "postgres" / "data" / "local.conf").write_text("work_mem = '7MB'\n")
    postgres = _new(folder)
    async with _running(postgres):
        assert await _ask(postgres, "show work_mem") == "7MB"


@pytest.mark.skipif(not ROOT, reason="root only: another user runs the server")
class TestAsRoot:
    async def test_a_closed_folder_puts_the_data_elsewhere_and_stays_closed(
        self, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "seawall")
        folder.chmod(0o700)
        postgres = _new(folder)
        async with _running(postgres):
            assert await _ask(postgres, "select 1") == 1
            assert postgres.place.parent == folder.parent / "elsewhere"
            assert not (folder / "postgres").exists()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert [r.message for r in caplog.records if "lies elsewhere" in r.message]
        again = _new(folder)
        async with _running(again):
            assert again.place == postgres.place
        assert place.forget(folder) == postgres.place
        assert not postgres.place.exists()

    def test_a_normal_user_runs_the_server_as_himself(self, folder: Path) -> None:
        user = server_user()
        same = f"python{sys.version_info.major}.{sys.version_info.minor}"
        pythons = [p for p in (sys.executable, f"/usr/bin/{same}") if binary.can(user, "test -x", Path(p))]
        if not pythons:
            pytest.skip(f"user {user.name} can run no {same}")
        shutil.chown(folder, user.uid, user.gid)
        with subprocess.Popen(
            [pythons[0], "-c", CHILD, str(folder)], stdout=subprocess.PIPE, text=True, cwd="/",
            env={"PYTHONPATH": os.pathsep.join(sys.path)}, **user.popen(),
        ) as owner:  # fmt: skip
            assert owner.stdout is not None
            pid = int(owner.stdout.readline().split()[1])
            assert (folder / "postgres").stat().st_uid == user.uid
            os.kill(pid, signal.SIGQUIT)
            owner.kill()

    async def test_a_moved_folder_takes_its_place_along_and_a_copy_is_refused(self, folder: Path) -> None:
        folder.chmod(0o700)
        await _new(folder).prepare()
        copy = folder.parent / "copy"
        shutil.copytree(folder, copy)
        with pytest.raises(Misconfigured, match="is a copy of"):
            await _new(copy).prepare()
        shutil.rmtree(folder)
        await _new(copy).prepare()

    async def test_programs_in_a_closed_folder_are_copied_and_the_folder_stays_closed(
        self, folder: Path, tmp_path: Path
    ) -> None:
        programs = binary.find()
        closed = tmp_path / "venv" / programs.root.parent.name / "programs"
        shutil.copytree(programs.root, closed)
        bundled = programs.root.parent.with_name(f"{programs.root.parent.name}.libs")
        if bundled.is_dir():
            shutil.copytree(bundled, tmp_path / "venv" / bundled.name)
        tmp_path.chmod(0o700)
        postgres = EmbeddedPostgres(
            Settings(bin=str(closed / "bin"), shared_buffers_mb=16), folder, LocalFilesystem(),
            elsewhere=folder.parent / "elsewhere",
        )  # fmt: skip
        async with _running(postgres):
            assert await _ask(postgres, "select 1") == 1
            assert postgres.find_programs().folder.is_relative_to(folder.parent / "elsewhere")
        assert tmp_path.stat().st_mode & 0o777 == 0o700
