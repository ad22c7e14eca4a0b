"""``seawall backup``: store, journal, spool and key of one data folder, in a folder of its own, also while `up` runs.

::

    TO/  BACKUP             JSON: when, of what, and each file's size and SHA-256; written last, so it says "complete"
         FORMAT  key        as in the data folder; the key opens what the store seals, so keep the backup as safe
         snapshot           the collector's, when there is one
         store.dump         pg_dump's custom format
         journal/NAME/      each log: its id, its segments up to what was synced, and what was put aside
         spool/NAME/        as there, with how far it was forwarded: what Kafka didn't have yet

The journal is held open before the store's moment is chosen, and copied after it was dumped: so it reaches from the
store's positions to a later moment, however long the dump takes, and what is routed twice after a restore collapses.
Copied first, events would be missing between the two; only looked at afterwards, those would be that the router deleted
meanwhile. What was spooled is held and copied alike: an event is in the copy, or Kafka has it, which is no part of
the backup. At the end the positions of the dump are compared with the segments copied. A dump restores into the same
major version of PostgreSQL or a newer one, ours or a foreign one; a copy of the server's files would be quicker to
restore, but bound to one version and to servers whose files we can reach.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from seawall.guard import Supervisor
from seawall.journal import LogReader
from seawall.journal.segment import SEGMENT_SUFFIX, segment_path
from seawall.journal.spool.checkpoint import Checkpoint
from seawall.kernel.clock import Clock, SystemClock
from seawall.kernel.error import Corrupt, Misconfigured, Unavailable
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.filesystem import File, Filesystem
from seawall.kernel.seam.journal import Position
from seawall.machine.check import raise_open_files
from seawall.machine.folder import COPY_BYTES, FORMAT, Folder, copy_private, create_private
from seawall.machine.hold import HeldLog, Hold
from seawall.machine.program import Progress, run_program
from seawall.store.binary import Binaries
from seawall.store.embedded import EmbeddedPostgres
from seawall.store.export import moment

MANIFEST = "BACKUP"
VERSION = 2
"""2: with spooled logs, which an older Seawall would leave out without a word."""

DUMP = "store.dump"
LOGS = ("journal", "spool")
"""Where logs lie, in a data folder and in a backup of it."""

ALONE = ("FORMAT", "key", "snapshot")
DUMP_TIMEOUT_S = 24 * 3600.0
LOCK_WAIT = "60s"
STOP_S = 60.0
READY_S = 600.0
CERTAIN_S = 10.0
"""Longest wait for a log's writer to say how far it is synced, or for somebody who looks at one without a writer."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One file of a backup."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a backup says of itself."""

    version: int
    format: int  # of the data folder
    made_us: int  # wall clock
    postgres: str  # version of the programs that dumped
    files: Mapping[str, Kept]  # by path inside the backup


def _quietly(_: str) -> None:
    """Tell nobody."""


async def backup(
    folder: Folder,
    to: Path,
    *,
    dsn: str,
    programs: Binaries,
    filesystem: Filesystem,
    clock: Clock | None = None,
    progress: Progress = _quietly,
) -> Manifest:
    """Back a data folder up. `up` may run, and goes on undisturbed.

    Args:
        to: A folder that doesn't exist yet, or is empty.
        dsn: The store, as its owner; it must run (see `serving` for one that doesn't).
        programs: PostgreSQL's, at least as new as the store's server.

    Raises:
        Misconfigured: ``to`` isn't empty, or ``folder`` is no data folder.
        Unavailable: pg_dump failed, or the disk did, or part of the journal was deleted meanwhile. Without its file
            ``BACKUP``, what is in ``to`` is no backup.
        Corrupt: A log can't be read.

    Durability: on return, all of it is on stable storage.
    Cancelled: pg_dump is stopped; what is in ``to`` is no backup.
    """
    try:
        _make_empty(to)
        for name in ALONE:
            if (folder.path / name).exists():
                await asyncio.to_thread(copy_private, folder.path / name, to / name)
        raise_open_files()
        hold = Hold([folder.path / part for part in LOGS], filesystem)
        try:
            async with hold.watching(), moment(dsn, timeout_s=DUMP_TIMEOUT_S) as found:
                await _dump(dsn, found.snapshot, programs, to / DUMP, progress)
            for log in hold.logs.values():
                place = log.folder.relative_to(folder.path)
                progress(f"{place.parent} {place.name}")
                await _copy_log(log, folder.published(log.folder), to / place)
            await asyncio.to_thread(_check_cover, hold, found.positions, filesystem)
        finally:
            hold.close()
        made_us = (clock or SystemClock()).wall_us()
        return await asyncio.to_thread(_finish, to, filesystem, made_us, programs.version)
    except OSError as error:
        raise Unavailable("disk", f"{error.strerror or error} ({error.filename})") from error


@contextlib.asynccontextmanager
async def serving(postgres: EmbeddedPostgres, *, metrics: Metrics | None = None) -> AsyncIterator[str]:
    """The embedded store, started for a while for somebody who holds the data folder's lock; its owner's DSN.

    Raises:
        Misconfigured, Unavailable: It can't be started.
    """
    dsn, _ = await postgres.prepare()
    supervisor = Supervisor(metrics or Metrics())
    supervisor.add("postgres", postgres.run)
    async with supervisor:
        try:
            async with asyncio.timeout(READY_S):
                while not supervisor.health()[0].ready:  # noqa: ASYNC110 - a supervisor tells by being asked
                    await asyncio.sleep(0.05)
        except TimeoutError as error:
            raise Unavailable("PostgreSQL", supervisor.health()[0].reason) from error
        try:
            yield dsn
        finally:
            await postgres.stop(timeout_s=STOP_S)


def read_manifest(source: Path) -> Manifest:
    """A backup's manifest.

    Raises:
        Misconfigured: It is no backup, an unfinished one, or of a newer Seawall.
    """
    try:
        values = json.loads((source / MANIFEST).read_text("utf-8"))
        files = {name: Kept(int(kept["bytes"]), str(kept["sha256"])) for name, kept in values["files"].items()}
        found = Manifest(
            version=int(values["version"]), format=int(values["format"]), made_us=int(values["made_us"]),
            postgres=str(values["postgres"]), files=files,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Misconfigured([f"{source} is no finished backup: {error}"]) from error
    if found.version > VERSION or found.format > FORMAT:
        raise Misconfigured([f"{source} was made by a newer Seawall (format {found.format}); use that one"])
    return found


def check(source: Path, manifest: Manifest, progress: Progress = _quietly) -> None:
    """Read every file of a backup, and compare.

    Raises:
        Corrupt: A file is missing or has other bytes; nothing was restored.
    """
    for name, kept in manifest.files.items():
        progress(f"checking {name}")
        path = source / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise Corrupt(str(source / MANIFEST), f"it names {name!r}, outside of itself")
        try:
            if _digest(path) != kept:
                raise Corrupt(str(path), "it isn't what was backed up")
        except OSError as error:
            raise Corrupt(str(path), f"it can't be read: {error.strerror}") from error


async def _dump(dsn: str, snapshot: str, programs: Binaries, to: Path, progress: Progress) -> None:
    # Neither owners nor rights: both are made anew by whoever restores (the runner of migrations grants them).
    command = [
        programs.program("pg_dump"), "--format=custom", "--no-owner", "--no-acl",
        f"--lock-wait-timeout={LOCK_WAIT}", f"--snapshot={snapshot}", f"--file={to}",
    ]  # fmt: skip
    create_private(to).close()  # pg_dump would make it for everybody to read, until it is done
    said = lambda: f"store: {_size(to) / 1e6:.0f} MB"  # noqa: E731
    await run_program(command, dsn, progress, said, timeout_s=DUMP_TIMEOUT_S)


@contextlib.asynccontextmanager
async def _surely(log: HeldLog, socket: Path) -> AsyncIterator[LogReader]:
    """A reader that knows the log's very end.

    Raises:
        Unavailable: Its writer doesn't say how far it is synced: the newest events would be left out.
    """
    latest = time.monotonic() + CERTAIN_S
    while True:
        async with LogReader(log.folder, socket) as reader:
            if reader.certain:
                yield reader
                return
        if time.monotonic() > latest:
            raise Unavailable(f"{log.folder.parent.name} {log.folder.name}", "its writer doesn't say where it ends")
        await asyncio.sleep(CERTAIN_S / 20)


async def _copy_log(log: HeldLog, socket: Path, to: Path) -> None:
    """Copy what is on stable storage of one log, while it may be written."""
    async with _surely(log, socket) as reader:
        # Before the end is looked at: how far a log was forwarded must not lie beyond what is copied of it.
        await asyncio.to_thread(_copy_beside, log, to)
        end = reader.synced_end()
        await asyncio.to_thread(_copy_segments, log, to, end)


def _copy_beside(log: HeldLog, to: Path) -> None:
    """All but the segments."""
    to.parent.mkdir(mode=0o700, exist_ok=True)
    to.mkdir(mode=0o700)
    for path in sorted(log.folder.iterdir()):
        if path.name == "LOCK" or path.suffix in (".tmp", SEGMENT_SUFFIX) or not path.is_file():
            continue
        with contextlib.suppress(FileNotFoundError):
            copy_private(path, to / path.name)


def _copy_segments(log: HeldLog, to: Path, end: Position) -> None:
    for id, file in sorted(log.files.items()):
        if id <= end.segment_id:
            _copy_held(file, segment_path(to, id), file.size_bytes() if id < end.segment_id else end.offset_bytes)


def _check_cover(hold: Hold, positions: Sequence[Position], filesystem: Filesystem) -> None:
    """Whether each log reaches, without a gap, from where the dump says that routing goes on, or Kafka has the rest.

    Raises:
        Unavailable: It doesn't: after a restore, what is missing would be lost.
    """
    for log in hold.logs.values():
        forwarded = Checkpoint(log.folder, filesystem).load()
        for at in positions:
            if at.log_id != log.log_id:
                continue
            if forwarded is not None and forwarded.log_id == log.log_id:
                at = max(at, forwarded)
            if gone := log.uncovered(at):
                raise Unavailable(
                    f"{log.folder.parent.name} {log.folder.name}",
                    f"segments {gone[:10]} were deleted while the store was dumped: set router.journal_keep_s higher "
                    "than the dump takes, and begin again",
                )


def _make_empty(to: Path) -> None:
    to.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(to.iterdir()):
        raise Misconfigured([f"{to} isn't empty: each backup has a folder of its own"])


def _copy_held(source: File, target: Path, bytes_max: int) -> None:
    with create_private(target) as write:
        at = 0
        while at < bytes_max and (data := source.read_at(at, min(COPY_BYTES, bytes_max - at))):
            write.write(data)
            at += len(data)


def _digest(path: Path) -> Kept:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return Kept(file.tell(), digest.hexdigest())


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def sync_tree(folder: Path, filesystem: Filesystem) -> None:
    """Put every file below a folder, and their names, on stable storage."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            filesystem.sync_folder(path)
            continue
        file = filesystem.open(path, writable=True)
        try:
            file.sync_data()
        finally:
            file.close()
    filesystem.sync_folder(folder)
    filesystem.sync_folder(folder.parent)


def _finish(to: Path, filesystem: Filesystem, made_us: int, postgres: str) -> Manifest:
    files = {str(p.relative_to(to)): _digest(p) for p in sorted(to.rglob("*")) if p.is_file()}
    sync_tree(to, filesystem)
    manifest = Manifest(version=VERSION, format=FORMAT, made_us=made_us, postgres=postgres, files=files)
    text = json.dumps(asdict(manifest), indent=1).encode() + b"\n"
    file = filesystem.create(to / f"{MANIFEST}.new")
    try:
        file.write_at(0, text)
        file.sync_data()
    finally:
        file.close()
    filesystem.rename(to / f"{MANIFEST}.new", to / MANIFEST)
    filesystem.sync_folder(to)
    return manifest
