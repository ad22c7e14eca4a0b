"""Where an embedded server's data lies: in the data folder, or where the server's user can get to.

::

    DIR/postgres.where      JSON: the instance, its place, and whether its data was ever complete
    PLACE/                  DIR/postgres, or /var/lib/seawall/INSTANCE; 0700, the server user's own
          data/             PostgreSQL's own folder; appears in one piece, by rename
          log               FIFO of the server's standard error
          .s.PGSQL.5432     its socket, unless the path is too long for one
          of                DIR, so that an orphaned place can be told from a living one

Root can't run PostgreSQL, and root's folders are often closed to everybody else. Opening them would change what others
rely on, so no mode of a folder that we didn't make is ever touched.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from seawall.kernel.error import Misconfigured
from seawall.kernel.log import fields, logger
from seawall.kernel.seam.filesystem import Filesystem
from seawall.store import cluster
from seawall.store.binary import ELSEWHERE, ServerUser, can
from seawall.store.cluster import Cluster

log = logger("store")

WHERE = "postgres.where"
SOCKET_NAME = ".s.PGSQL.5432"
SOCKET_BYTES_MAX = 100
"""A socket's path may have 107 bytes on Linux, 103 on macOS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """What ``postgres.where`` says."""

    instance: str  # 32 hex digits
    place: str  # absolute, or relative to DIR so that DIR may be moved
    made: bool = False  # its data was complete once: if it is missing now, it was lost


def find(folder: Path, user: ServerUser, filesystem: Filesystem, *, elsewhere: Path = ELSEWHERE) -> Where:
    """The place that ``folder`` has, chosen and recorded now when it has none.

    Args:
        folder: The data folder of the platform, which exists.
        elsewhere: Root of places for folders that ``user`` can't enter.

    Raises:
        Misconfigured: The record can't be read, the data is gone, or the folder is a copy of a living one.

    Durability: the record is on stable storage before the place is made.
    """
    record = folder / WHERE
    if not record.exists():
        instance = cluster.new_instance()
        inside = can(user, "cd", folder)
        _write(filesystem, record, Where(instance=instance, place="postgres" if inside else str(elsewhere / instance)))
    where = _read(record)
    place = folder / where.place
    if where.made and not (place / "data").is_dir():
        raise Misconfigured([f"{place} is gone, with the store of {folder} in it: bring it back, or restore a backup"])
    if Path(where.place).is_absolute():
        _open_elsewhere(folder, place, user)
    cluster.own_folder(place, user)
    if Path(where.place).is_absolute():
        _claim(folder, where)
    filesystem.sync_folder(place.parent)
    return where


def _open_elsewhere(folder: Path, place: Path, user: ServerUser) -> None:
    root = place.parent
    if not root.exists():
        root.mkdir(mode=0o755, parents=True)
        root.chmod(0o755)  # the mask may have taken what the server's user needs
    if not can(user, "cd", root):
        raise Misconfigured([f"user {user.name}, who runs PostgreSQL, can enter neither {folder} nor {root}"])
    if not place.exists():
        log.info(
            "the database server's user can't enter the data folder, so its data lies elsewhere",
            extra=fields(user=user.name, folder=str(folder), place=str(place)),
        )


def _claim(folder: Path, where: Where) -> None:
    """Mark whose place it is. A data folder that was moved takes its place along; a copy must not share it."""
    mark = Path(where.place) / "of"
    if mark.exists():
        of = Path(os.fsdecode(mark.read_bytes()))
        if (of / WHERE).exists() and not of.samefile(folder) and _read(of / WHERE).instance == where.instance:
            raise Misconfigured(
                [f"{folder} is a copy of {of}, and their one store lies in {where.place}: copy with seawall backup"]
            )
    if not mark.exists() or mark.read_bytes() != os.fsencode(folder):  # on a full disk, writing would only lose it
        mark.write_bytes(os.fsencode(folder))


def made(folder: Path, where: Where, filesystem: Filesystem) -> None:
    """Record that the data is complete, durably."""
    if not where.made:
        _write(filesystem, folder / WHERE, replace(where, made=True))


def layout(folder: Path, where: Where, user: ServerUser) -> Cluster:
    """The cluster's folders; the socket's is made here when it lies elsewhere.

    Raises:
        Misconfigured: The short folder for the socket belongs to somebody else.
    """
    place = folder / where.place
    if len(os.fsencode(place / SOCKET_NAME)) <= SOCKET_BYTES_MAX:
        return Cluster(data=place / "data", socket=place, instance=where.instance)
    root = Path("/run") if os.geteuid() == 0 and Path("/run").is_dir() else Path("/tmp")  # noqa: S108 - owned, below
    short = root / f"seawall-{where.instance[:16]}"
    with contextlib.suppress(FileExistsError):
        short.mkdir(mode=0o700)
        cluster.own_folder(short, user)
    found = short.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != user.uid or found.st_mode & 0o077:
        raise Misconfigured([f"{short} should hold PostgreSQL's socket, but isn't user {user.name}'s alone"])
    return Cluster(data=place / "data", socket=short, instance=where.instance)


def has_data(folder: Path) -> bool:
    """Whether a data folder has a store, wherever its data lies."""
    record = folder / WHERE
    return record.exists() and (folder / _read(record).place / "data").exists()


def recorded(folder: Path) -> Path | None:
    """Where a data folder's store lies, as far as it says; nothing is made. None: no record, or a damaged one."""
    try:
        return folder / _read(folder / WHERE).place
    except Misconfigured:
        return None


def clear(folder: Path) -> None:
    """Forget a store whose data is gone, so that a new one may be made; for whoever restores it."""
    if not has_data(folder):
        (folder / WHERE).unlink(missing_ok=True)


def forget(folder: Path) -> Path | None:
    """Remove a place that lies outside ``folder``, with all data in it; its path, or None when there was none. The
    server must be stopped. For whoever deletes a data folder."""
    with contextlib.suppress(Misconfigured):
        place = Path(_read(folder / WHERE).place)
        if place.is_absolute() and place.is_dir() and (place / "of").exists():
            shutil.rmtree(place)
            (folder / WHERE).unlink()
            return place
    return None


def _read(record: Path) -> Where:
    try:
        values = json.loads(record.read_text("utf-8"))
        return Where(instance=str(values["instance"]), place=str(values["place"]), made=bool(values["made"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Misconfigured([f"{record} can't be read: {error}"]) from error


def _write(filesystem: Filesystem, record: Path, where: Where) -> None:
    draft = record.with_name(f".{record.name}.new")
    draft.unlink(missing_ok=True)
    file = filesystem.create(draft)
    try:
        file.write_at(0, json.dumps(asdict(where)).encode() + b"\n")
        file.sync_data()
    finally:
        file.close()
    filesystem.rename(draft, record)
    filesystem.sync_folder(record.parent)
