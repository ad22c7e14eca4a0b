"""``seawall backup``: store, journal and key of one data folder, in a folder of its own, also while `up` runs.

::

    TO/  BACKUP             JSON: when, of what, and each file's size and SHA-256; written last, so it says "complete"
         FORMAT  key        as in the data folder; the key opens what the store seals, so keep the backup as safe
         snapshot           the collector's, when there is one
         store.dump         pg_dump's custom format
         journal/NAME/      each log: its id, its segments up to what was synced, and what was put aside

The store comes first, the journal after it: so the journal reaches from the store's positions to a later moment, and
what is routed twice after a restore collapses. The other way round, events would be missing between the two. A dump
restores into the same major version of PostgreSQL or a newer one, ours or a foreign one; a copy of the server's files
would be quicker to restore, but bound to one version and to servers whose files we can reach.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from seawall.guard import Supervisor
from seawall.journal import LogReader, discover
from seawall.journal.segment import segment_ids, segment_path
from seawall.kernel.clock import Clock, SystemClock
from seawall.kernel.error import Corrupt, Misconfigured, Unavailable
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.filesystem import Filesystem
from seawall.kernel.seam.journal import Position
from seawall.machine.folder import FORMAT, Folder
from seawall.store.binary import Binaries
from seawall.store.embedded import EmbeddedPostgres

MANIFEST = "BACKUP"
VERSION = 1
DUMP = "store.dump"
JOURNAL = "journal"
ALONE = ("FORMAT", "key", "snapshot")
COPY_BYTES = 1024 * 1024
DUMP_TIMEOUT_S = 24 * 3600.0
LOCK_WAIT = "60s"
SAY_S = 1.0
STOP_S = 60.0
READY_S = 600.0

Progress = Callable[[str], None]
"""Called now and then with one sentence for a person."""


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
        Unavailable: pg_dump failed, or the disk did. Without its file ``BACKUP``, what is in ``to`` is no backup.
        Corrupt: A log can't be read.

    Durability: on return, all of it is on stable storage.
    Cancelled: pg_dump is stopped; what is in ``to`` is no backup.
    """
    try:
        _make_empty(to)
        for name in ALONE:
            if (folder.path / name).exists():
                await asyncio.to_thread(_copy, folder.path / name, to / name)
        await _dump(dsn, programs, to / DUMP, progress)
        for log in discover(folder.journals):
            progress(f"journal {log.name}")
            await _copy_log(log, folder.synced_socket(log.name), to / JOURNAL / log.name, filesystem)
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


async def run_program(
    command: list[str], dsn: str, progress: Progress, said: Callable[[], str], *, timeout_s: float = DUMP_TIMEOUT_S
) -> None:
    """Run pg_dump or pg_restore against ``dsn``; its password goes through the environment, which others can't read.

    Raises:
        Unavailable: It failed or took too long; what it said last is in the message.
    """
    address, password = _without_password(dsn)
    process = await asyncio.create_subprocess_exec(
        *command, "--dbname", address, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE, env={"PGPASSWORD": password} if password else {}, start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    reading = asyncio.create_task(_tail(process.stderr))
    try:
        async with asyncio.timeout(timeout_s):
            while not reading.done():
                await asyncio.wait([reading], timeout=SAY_S)
                progress(said())
            status = await process.wait()
    except TimeoutError as error:
        raise Unavailable(Path(command[0]).name, f"not done in {timeout_s:g} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        reading.cancel()
    if status != 0:
        raise Unavailable(Path(command[0]).name, f"exit status {status}: {reading.result()}")


async def _tail(stream: asyncio.StreamReader) -> str:
    """The last bytes of what a program says; all of it is read, so that it never waits for us."""
    last = b""
    while data := await stream.read(65536):
        last = (last + data)[-2000:]
    return last.decode("utf-8", "replace").strip()


def _without_password(dsn: str) -> tuple[str, str]:
    parts = urlsplit(dsn)
    if parts.password is None:
        return dsn, ""
    user, _, hosts = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}@{hosts}")), unquote(parts.password)


async def _dump(dsn: str, programs: Binaries, to: Path, progress: Progress) -> None:
    # Neither owners nor rights: both are made anew by whoever restores (the runner of migrations grants them).
    command = [
        programs.program("pg_dump"), "--format=custom", "--no-owner", "--no-acl",
        f"--lock-wait-timeout={LOCK_WAIT}", f"--file={to}",
    ]  # fmt: skip
    await run_program(command, dsn, progress, lambda: f"store: {_size(to) / 1e6:.0f} MB")


async def _copy_log(log: Path, socket: Path, to: Path, filesystem: Filesystem) -> None:
    """Copy what is on stable storage of one log, while it may be written."""
    async with LogReader(log, socket) as reader:
        end = reader.synced_end()
        await asyncio.to_thread(_copy_segments, log, to, end, filesystem)


def _copy_segments(log: Path, to: Path, end: Position, filesystem: Filesystem) -> None:
    to.mkdir(mode=0o700, parents=True)
    segments = {segment_path(log, id): id for id in segment_ids(filesystem, log)}
    for path in sorted(log.iterdir()):
        id = segments.get(path)
        if id is None and (path.name == "LOCK" or path.suffix == ".tmp" or not path.is_file()):
            continue
        if id is not None and id > end.segment_id:
            continue
        with contextlib.suppress(FileNotFoundError):  # forgotten meanwhile: it was routed long before the dump
            _copy(path, to / path.name, bytes_max=end.offset_bytes if id == end.segment_id else None)


def _make_empty(to: Path) -> None:
    to.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(to.iterdir()):
        raise Misconfigured([f"{to} isn't empty: each backup has a folder of its own"])


def _copy(source: Path, target: Path, *, bytes_max: int | None = None) -> None:
    with source.open("rb") as read, target.open("xb") as write:
        target.chmod(0o600)
        if bytes_max is None:
            shutil.copyfileobj(read, write, COPY_BYTES)
            return
        while bytes_max > 0 and (data := read.read(min(COPY_BYTES, bytes_max))):
            write.write(data)
            bytes_max -= len(data)


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
    (to / DUMP).chmod(0o600)
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
