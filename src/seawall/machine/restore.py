"""``seawall restore``: a data folder from a backup. Only while nothing runs on it.

A log of the backup comes back under a new name and without a writer (``journal/restored-TIME-ID``): were it written
on, a place in it could come to mean another event than before. The router finds it by its id, and reads on from where
the restored store stands. A log that is still in the folder is the same log and longer: it stays as it is, so nothing
that was accepted after the backup is lost with the store; what is read twice collapses. Only its oldest segments may be
gone, forgotten since the store that is lost had routed them: those come back from the backup. What was forgotten and
isn't in the backup either is a missing segment between others, which the router says and passes.

Spooled logs come back alike (``spool/restored-TIME-ID``), and the collector forwards them from where their checkpoint
says. What Kafka had already is its own: a restored store reads it again from its older position, as long as the topic's
retention reaches back so far.
"""

from __future__ import annotations

import asyncio
import shutil
from datetime import UTC, datetime
from pathlib import Path

from seawall.journal import discover
from seawall.journal.identity import read_log_id
from seawall.journal.segment import segment_ids, segment_path
from seawall.kernel.clock import Clock, SystemClock
from seawall.kernel.error import Misconfigured, Unavailable
from seawall.kernel.seam.filesystem import Filesystem
from seawall.machine.backup import (
    ALONE,
    DUMP,
    DUMP_TIMEOUT_S,
    LOGS,
    check,
    read_manifest,
    serving,
    sync_tree,
)
from seawall.machine.folder import Folder, Lock, copy_private
from seawall.machine.program import Progress, run_program
from seawall.store import place, pool
from seawall.store.embedded import EmbeddedPostgres
from seawall.store.pool import Store
from seawall.store.statement import statements

RUN_NUMBERS_SKIPPED = 1_000_000_000
"""Of 2^44. Events accepted after the backup may have had runs already, whose ids others were told (as idempotency keys
of steps): a new run must not get one of them. It covers eleven days at a thousand runs a second."""

SOURCE_VERSIONS_SKIPPED = 1_000_000
FLAG_VERSIONS_SKIPPED = 1_000_000
_SQL = statements("restore")


def _quietly(_: str) -> None:
    """Tell nobody."""


async def restore(
    source: Path,
    folder: Folder,
    postgres: EmbeddedPostgres,
    *,
    filesystem: Filesystem,
    dsn: str = "",
    clock: Clock | None = None,
    progress: Progress = _quietly,
) -> list[str]:
    """Restore a backup.

    Args:
        source: What `backup` made.
        folder: The data folder: absent, empty, or one that lost its store.
        postgres: The embedded server of ``folder``, not prepared yet; it is started for this, and stopped.
        dsn: A PostgreSQL of yours with an empty database to restore into instead.

    Returns:
        Names of the logs that came back, to be read again.

    Raises:
        Misconfigured: It is no backup, ``folder`` is in use or has a store already, or its key is another one.
        Corrupt: The backup's bytes aren't what was backed up.
        Unavailable: pg_restore failed, or the disk. Nothing counts as restored: remove the store and begin again.

    Durability: on return, all of it is on stable storage.
    Cancelled: as Unavailable.
    """
    manifest = read_manifest(source)
    await asyncio.to_thread(check, source, manifest, progress)
    lock = Lock(folder.path / "lock")
    try:
        folder.make()
        lock.acquire()
        try:
            _check_target(source, folder, embedded=not dsn)
            names = await asyncio.to_thread(_files, source, folder, filesystem, clock or SystemClock())
            folder.prepare()
            await _store(source, postgres, dsn, progress)
            return names
        finally:
            lock.release()
    except OSError as error:
        raise Unavailable("disk", f"{error.strerror or error} ({error.filename})") from error


def _check_target(source: Path, folder: Folder, *, embedded: bool) -> None:
    if embedded and place.has_data(folder.path):
        raise Misconfigured([f"{folder.path} has a store: move the folder away, or restore into another one"])
    if folder.key_file.exists() and folder.key_file.read_bytes() != (source / "key").read_bytes():
        raise Misconfigured([f"{folder.key_file} isn't the key of {source}: what the store seals couldn't be opened"])


def _files(source: Path, folder: Folder, filesystem: Filesystem, clock: Clock) -> list[str]:
    """Key, snapshot and journal; what the folder has already stays."""
    for name in ALONE:
        if (source / name).exists() and not (folder.path / name).exists():
            copy_private(source / name, folder.path / name)
    time = datetime.fromtimestamp(clock.wall_us() / 1e6, UTC).strftime("%Y%m%dT%H%M%S")
    names = [name for part in LOGS for name in _logs(source / part, folder.path / part, filesystem, time)]
    filesystem.sync_folder(folder.path)
    return names


def _logs(source: Path, target: Path, filesystem: Filesystem, time: str) -> list[str]:
    """The logs of one kind; names of those that weren't there."""
    target.mkdir(mode=0o700, exist_ok=True)
    there = {read_log_id(log, filesystem): log for log in discover(target)}
    names = []
    for log in discover(source):
        log_id = read_log_id(log, filesystem)
        if log_id is None:
            continue
        if log_id in there:
            _bring_back(log, there[log_id], filesystem)
            continue
        names.append(f"restored-{time}-{log_id.hex()[:8]}")
        # In one piece: half a log would look like one whose segments are missing.
        draft = target.parent / f".{names[-1]}"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        shutil.copytree(log, draft, copy_function=copy_private, dirs_exist_ok=True)
        draft.chmod(0o700)
        sync_tree(draft, filesystem)
        filesystem.rename(draft, target / names[-1])
    sync_tree(target, filesystem)
    return names


def _bring_back(log: Path, to: Path, filesystem: Filesystem) -> None:
    """Segments of the backup's log that its longer self has no more; each in one piece, so it may be repeated."""
    there = segment_ids(filesystem, to)
    for id in segment_ids(filesystem, log):
        if id in there or (there and id > there[-1]):
            continue
        draft = segment_path(to, id).with_suffix(".tmp")
        draft.unlink(missing_ok=True)
        copy_private(segment_path(log, id), draft)
        file = filesystem.open(draft, writable=True)
        try:
            file.sync_data()
        finally:
            file.close()
        filesystem.rename(draft, segment_path(to, id))


async def _store(source: Path, postgres: EmbeddedPostgres, dsn: str, progress: Progress) -> None:
    if dsn:
        # Its programs are needed even where its server isn't.
        await _load(source, postgres, dsn, progress)
        return
    place.clear(postgres.folder)
    async with serving(postgres) as own:
        await _load(source, postgres, own, progress)


async def _load(source: Path, postgres: EmbeddedPostgres, dsn: str, progress: Progress) -> None:
    async with Store(pool.Settings(dsn=dsn, connections_max=1), role="restore") as store:
        if await store.value(_SQL["tables"]):
            raise Misconfigured(["the database to restore into isn't empty"])
        # One transaction: a restore that fails leaves an empty database, not half a store.
        command = [
            postgres.find_programs().program("pg_restore"), "--no-owner", "--no-acl", "--exit-on-error",
            "--single-transaction", str(source / DUMP),
        ]  # fmt: skip
        await run_program(command, dsn, progress, lambda: "store: restoring", timeout_s=DUMP_TIMEOUT_S)
        await store.value(_SQL["skip_run_numbers"], RUN_NUMBERS_SKIPPED)
        if await store.value(_SQL["has_lives"]):
            await store.execute(_SQL["end_life"])
        await store.execute(_SQL["skip_source_versions"], SOURCE_VERSIONS_SKIPPED)
        if await store.value(_SQL["has_flags"]):
            await store.execute(_SQL["skip_flag_versions"], FLAG_VERSIONS_SKIPPED)
