"""What is backed up while the platform runs comes back: store, journal and key; and nothing takes another's place."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from seawall import migrate
from seawall.guard import Supervisor
from seawall.journal import LocalFilesystem, Log, LogReader, Settings, SyncedPublisher, discover
from seawall.journal.segment import segment_path
from seawall.kernel.error import Corrupt, Misconfigured, Unavailable
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.journal import Outcome, Position
from seawall.machine import backup as room
from seawall.machine import hold
from seawall.machine.backup import backup, serving
from seawall.machine.folder import Folder, Lock
from seawall.machine.restore import RUN_NUMBERS_SKIPPED, restore
from seawall.store import embedded, lease, place, pool, position
from seawall.store.binary import Binaries
from seawall.store.embedded import EmbeddedPostgres
from seawall.testing.postgres import Database

FILES = LocalFilesystem()
ME = UUID(int=7)
SLOW = pytest.mark.slow


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="seawall-test-", ignore_cleanup_errors=True) as made:
        Path(made).chmod(0o755)
        yield Path(made)


def _postgres(folder: Folder) -> EmbeddedPostgres:
    settings = embedded.Settings(shared_buffers_mb=16)
    return EmbeddedPostgres(settings, folder.path, FILES, elsewhere=folder.path.parent / "elsewhere")


@contextlib.asynccontextmanager
async def _log(folder: Folder) -> AsyncIterator[Log]:
    log = Log(folder.journal("c1"), Settings(reserve_bytes=0), metrics=Metrics(), on_failure=pytest.fail)
    async with log:
        yield log


async def _write(log: Log, payload: bytes) -> Position:
    done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    log.submit(payload, done.set_result)
    outcome = await done
    assert isinstance(outcome, Position)
    return outcome


async def _payloads(folder: Folder, at: Position) -> list[bytes]:
    """What a router would read from a position on, in whichever folder that log is now."""
    for log in discover(folder.journals):
        async with LogReader(log, folder.synced_socket(log.name)) as reader:
            if reader.log_id == at.log_id:
                return [f.payload for f in reader.read(at, records_max=100, bytes_max=10**6).frames]
    raise AssertionError("the log isn't there")


@pytest.fixture
async def made(home: Path) -> Folder:
    folder = Folder(home / "D", FILES)
    folder.prepare()
    folder.path.chmod(0o755)
    return folder


async def _fill(folder: Folder, to: Path) -> Position:
    """Routed: one, two. Backed up in the midst of writing: three. Never backed up: four. The store's position."""
    async with serving(_postgres(folder)) as dsn, _log(folder) as log:
        await migrate.apply(pool.Settings(dsn=dsn, statement_timeout_s=30))
        await _write(log, b"one")
        at = await _write(log, b"two")
        await _write(log, b"three")
        async with pool.Store(pool.Settings(dsn=dsn), role="test") as store:
            await position.begin(store, at)
            await store.execute("insert into queue (name) values ('kept')")
            await store.execute("insert into shard_lease values (1, 0, $1, 7, now(), store_timeline())", ME)
            await store.value("select store_history()")
            await store.value("select nextval('run_number')")
        progress: list[str] = []
        async with _published(folder, log):
            manifest = await backup(
                folder, to, dsn=dsn, programs=_postgres(folder).find_programs(), filesystem=FILES,
                progress=progress.append,
            )  # fmt: skip
        assert {"FORMAT", "key", "store.dump", "journal/c1/log.id"} <= set(manifest.files)
        assert any("journal c1" in line for line in progress)
        await _write(log, b"four")
    return at


async def test_a_running_writer_that_doesnt_say_where_it_ends_fails_the_backup(
    made: Folder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files alone don't prove the newest batch: a backup without that must not pass for one."""
    monkeypatch.setattr(room, "CERTAIN_S", 0.1)
    async with serving(_postgres(made)) as dsn, _log(made) as log:
        await migrate.apply(pool.Settings(dsn=dsn, statement_timeout_s=30))
        await _write(log, b"newest")
        with pytest.raises(Unavailable, match=r"journal c1.*where it ends"):
            await backup(made, home / "B", dsn=dsn, programs=_postgres(made).find_programs(), filesystem=FILES)


@contextlib.asynccontextmanager
async def _published(folder: Folder, log: Log) -> AsyncIterator[None]:
    """A reader beside a living writer asks it how far it is synced."""
    async with SyncedPublisher(log, folder.synced_socket("c1")) as publisher:
        supervisor = Supervisor(Metrics())
        publisher.register(supervisor)
        async with supervisor:
            yield


async def _value(dsn: str, sql: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def test_a_backup_of_a_running_platform_comes_back_in_a_new_folder(made: Folder, home: Path) -> None:
    at = await _fill(made, home / "B")
    new = Folder(home / "E", FILES)
    names = await restore(home / "B", new, _postgres(new), filesystem=FILES)
    assert (new.path / "key").read_bytes() == (made.path / "key").read_bytes()
    assert (new.path / "key").stat().st_mode & 0o777 == 0o600
    # The router reads on from where the restored store stands, in a log that nobody will write.
    assert [log.name for log in discover(new.journals)] == names
    assert names[0].startswith("restored-")
    assert await _payloads(new, at) == [b"three"]
    async with serving(_postgres(new)) as dsn:
        assert await _value(dsn, "select name from queue") == "kept"
        assert await _value(dsn, "select log_id from log_position") == UUID(bytes=at.log_id)
        assert await _value(dsn, "select nextval('run_number')") == 2 + RUN_NUMBERS_SKIPPED
        # Rights are the runner's to give, at the next start.
        assert await migrate.apply(pool.Settings(dsn=dsn)) == []
        worker = dsn.replace("seawall@", "seawall_worker@")
        assert await _value(worker, "select count(*) from run") == 0
    async with _log(new) as log:
        assert (await _write(log, b"new")).log_id != at.log_id


async def test_a_folder_that_lost_its_store_keeps_its_journal_and_what_came_after_the_backup(
    made: Folder, home: Path
) -> None:
    at = await _fill(made, home / "B")
    where = json.loads((made.path / place.WHERE).read_text())
    (made.path / where["place"]).rename(home / "lost")
    assert await restore(home / "B", made, _postgres(made), filesystem=FILES) == []
    assert await _payloads(made, at) == [b"three", b"four"]
    async with serving(_postgres(made)) as dsn:
        assert await _value(dsn, "select name from queue") == "kept"


async def test_segments_that_the_folder_has_forgotten_come_back_from_the_backup(made: Folder, home: Path) -> None:
    """The restored store stands before what is left of the log: without them, all that came after waits for ever."""
    at = await _fill(made, home / "B")
    async with _log(made) as log:  # a second segment
        await _write(log, b"five")
    async with _log(made) as log:
        end = await _write(log, b"six")
    async with LogReader(made.journal("c1"), made.synced_socket("c1")) as reader:
        assert reader.forget(end) == 2  # routed long ago, by the store that is lost now
    where = json.loads((made.path / place.WHERE).read_text())
    (made.path / where["place"]).rename(home / "lost")
    assert await restore(home / "B", made, _postgres(made), filesystem=FILES) == []
    assert await _payloads(made, at) == [b"three", b"six"]
    assert {p.stat().st_mode & 0o777 for p in made.journal("c1").glob("*.seg")} == {0o600}


async def test_a_folder_with_a_store_is_never_restored_over(made: Folder, home: Path) -> None:
    await _fill(made, home / "B")
    with pytest.raises(Misconfigured, match="has a store"):
        await restore(home / "B", made, _postgres(made), filesystem=FILES)


async def test_a_folder_in_use_and_one_with_another_key_are_refused(made: Folder, home: Path) -> None:
    await _fill(made, home / "B")
    other = Folder(home / "E", FILES)
    other.prepare()
    with pytest.raises(Misconfigured, match="isn't the key"):
        await restore(home / "B", other, _postgres(other), filesystem=FILES)
    lock = Lock(other.path / "lock")
    lock.acquire()
    with pytest.raises(Misconfigured, match="in use"):
        await restore(home / "B", other, _postgres(other), filesystem=FILES)
    lock.release()


@pytest.mark.parametrize("name", ["store.dump", *(pytest.param(it, marks=SLOW) for it in ("key", "journal/c1/log.id"))])
async def test_a_backup_whose_bytes_changed_restores_nothing(made: Folder, home: Path, name: str) -> None:
    await _fill(made, home / "B")
    path = home / "B" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    new = Folder(home / "E", FILES)
    with pytest.raises(Corrupt, match="isn't what was backed up"):
        await restore(home / "B", new, _postgres(new), filesystem=FILES)
    assert not new.path.exists()


async def test_an_unfinished_backup_is_none(made: Folder, home: Path) -> None:
    await _fill(made, home / "B")
    (home / "B" / "BACKUP").unlink()
    with pytest.raises(Misconfigured, match="no finished backup"):
        await restore(home / "B", Folder(home / "E", FILES), _postgres(made), filesystem=FILES)


async def test_a_store_that_is_away_fails_the_backup_in_words(made: Folder, home: Path) -> None:
    with pytest.raises(Unavailable, match=r"PostgreSQL is unavailable") as raised:
        await backup(
            made, home / "B", dsn="postgresql://seawall:secret@/x?host=/nonexistent",
            programs=_postgres(made).find_programs(), filesystem=FILES,
        )  # fmt: skip
    assert "secret" not in str(raised.value)
    assert not (home / "B" / "BACKUP").exists()
    with pytest.raises(Misconfigured, match="isn't empty"):
        await backup(made, home / "B", dsn="", programs=_postgres(made).find_programs(), filesystem=FILES)


def _slow_dump(home: Path, programs: Binaries) -> Binaries:
    """PostgreSQL's programs, of which pg_dump, once done, makes a file ``dumped`` and waits for ``go``."""
    folder = home / "slow" / "bin"
    folder.mkdir(parents=True)
    for program in programs.folder.iterdir():
        (folder / program.name).symlink_to(program)
    (folder / "pg_dump").unlink()
    (folder / "pg_dump").write_text(
        f'#!/bin/sh\n"{programs.program("pg_dump")}" "$@" || exit 1\ntouch {home}/dumped\n'
        f"while [ ! -e {home}/go ]; do sleep 0.05; done\n"
    )
    (folder / "pg_dump").chmod(0o755)
    return Binaries(folder, programs.version)


async def _there(path: Path) -> None:
    async with asyncio.timeout(30):
        while not path.exists():
            await asyncio.sleep(0.02)


async def _route_and_forget(folder: Folder, end: Position) -> None:
    """What the router does while a dump takes longer than `router.journal_keep_s`."""
    async with LogReader(folder.journal("c1"), folder.synced_socket("c1")) as reader:
        reader.forget(end)


@pytest.mark.slow
async def test_a_dump_that_takes_longer_than_segments_are_kept_leaves_no_hole(made: Folder, home: Path) -> None:
    programs = _slow_dump(home, _postgres(made).find_programs())
    async with serving(_postgres(made)) as dsn:
        await migrate.apply(pool.Settings(dsn=dsn, statement_timeout_s=30))
        async with _log(made) as log:
            at = await _write(log, b"routed before")
            await _write(log, b"first")
        async with pool.Store(pool.Settings(dsn=dsn), role="test") as store:
            await position.begin(store, at)
            backing = asyncio.create_task(backup(made, home / "B", dsn=dsn, programs=programs, filesystem=FILES))
            await _there(home / "dumped")
            for payload in (b"second", b"third", b"fourth"):
                # A collector's start begins a segment; long after it was routed it is forgotten.
                async with _log(made) as log:
                    end = await _write(log, payload)
                await asyncio.sleep(2 * hold.LOOK_S)
                await _route_and_forget(made, end)
        (home / "go").touch()
        manifest = await backing
    assert sorted(n for n in manifest.files if n.endswith(".seg")) == [
        f"journal/c1/{id:020d}.seg" for id in (1, 2, 3, 4)
    ]
    new = Folder(home / "E", FILES)
    await restore(home / "B", new, _postgres(new), filesystem=FILES)
    assert await _payloads(new, at) == [b"first", b"second", b"third", b"fourth"]


async def test_a_hole_that_came_while_the_store_was_dumped_fails_the_backup(
    made: Folder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Segments that come and go between two looks can't be held; a backup without them must not pass for one."""
    monkeypatch.setattr(hold, "LOOK_S", 3600.0)
    programs = _slow_dump(home, _postgres(made).find_programs())
    async with serving(_postgres(made)) as dsn:
        await migrate.apply(pool.Settings(dsn=dsn, statement_timeout_s=30))
        async with _log(made) as log:
            at = await _write(log, b"first")
        async with pool.Store(pool.Settings(dsn=dsn), role="test") as store:
            await position.begin(store, at)
        backing = asyncio.create_task(backup(made, home / "B", dsn=dsn, programs=programs, filesystem=FILES))
        await _there(home / "dumped")
        for payload in (b"second", b"third"):
            async with _log(made) as log:
                end = await _write(log, payload)
        await _route_and_forget(made, end)
        (home / "go").touch()
        with pytest.raises(Unavailable, match=r"journal c1.*segments \[2\] were deleted"):
            await backing
    assert not (home / "B" / "BACKUP").exists()


async def test_what_was_missing_before_the_backup_is_no_reason_to_have_none(made: Folder, home: Path) -> None:
    async with serving(_postgres(made)) as dsn:
        await migrate.apply(pool.Settings(dsn=dsn, statement_timeout_s=30))
        for payload in (b"first", b"second", b"third"):
            async with _log(made) as log:
                end = await _write(log, payload)
        segment_path(made.journal("c1"), 2).unlink()
        async with pool.Store(pool.Settings(dsn=dsn), role="test") as store:
            await position.begin(store, replace(end, segment_id=1))
        await backup(made, home / "B", dsn=dsn, programs=_postgres(made).find_programs(), filesystem=FILES)


@pytest.fixture
async def empty(database: Database) -> AsyncIterator[str]:
    """The DSN of an empty database on a server of somebody's own."""
    admin = await asyncpg.connect(database.dsn)
    await admin.execute('create database "foreign"')
    try:
        yield database.dsn.replace(f"/{database.name}?", "/foreign?")
    finally:
        await admin.execute('drop database "foreign" with (force)')
        await admin.close()


async def test_a_backup_comes_back_in_a_postgresql_of_ones_own(made: Folder, home: Path, empty: str) -> None:
    at = await _fill(made, home / "B")
    new = Folder(home / "E", FILES)
    await restore(home / "B", new, _postgres(new), filesystem=FILES, dsn=empty)
    assert not place.has_data(new.path), "no server of ours was made"
    assert await _value(empty, "select name from queue") == "kept"
    assert await _value(empty, "select salt from log_position") == at.salt
    assert await migrate.apply(pool.Settings(dsn=empty, statement_timeout_s=30)) == []
    assert await _payloads(new, at) == [b"three"]
    # A worker of another machine that lived through it knows what came after the backup.
    async with pool.Store(pool.Settings(dsn=empty), role="test") as store:
        before = await store.value("select history from store_life")
        assert await lease.renew(store, [lease.Lease(1, 0, 7)], owner=ME, ttl_s=5) == set()
        assert await lease.look(store) != before
    # And from there again: a store that isn't ours is backed up as well.
    await backup(new, home / "C", dsn=empty, programs=_postgres(new).find_programs(), filesystem=FILES)
    with pytest.raises(Misconfigured, match="isn't empty"):
        await restore(home / "C", Folder(home / "F", FILES), _postgres(new), filesystem=FILES, dsn=empty)


async def test_a_foreign_server_that_is_away_is_said_and_the_restore_can_be_repeated(
    made: Folder, home: Path, empty: str
) -> None:
    at = await _fill(made, home / "B")
    new = Folder(home / "E", FILES)
    with pytest.raises(Unavailable, match="PostgreSQL") as raised:
        await restore(
            home / "B", new, _postgres(new), filesystem=FILES, dsn="postgresql://me:secret@127.0.0.1:1/nowhere"
        )
    assert "secret" not in str(raised.value)
    await restore(home / "B", new, _postgres(new), filesystem=FILES, dsn=empty)
    assert await _payloads(new, at) == [b"three"]
