"""PostgreSQL's programs, the user who runs them, and the folder that this user can reach."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from seawall.kernel.error import Misconfigured, Unavailable
from seawall.testing.postgres import programs

ROLE = "postgres"
QUICK_S = 5.0
INITDB_S = 90.0


class Server:
    """What both servers of a pair have alike.

    Args:
        folder: The part's.

    Raises:
        Misconfigured: There is no PostgreSQL, or no user who may run it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.binaries, self.user = programs()

    def home(self) -> Path:
        """Where both data folders lie."""
        beside = self._folder / "data"
        if not self.user.other or self._reaches(self._folder):
            return beside
        name = hashlib.sha256(str(self._folder).encode()).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"seawall-parts-{name}"

    def make_home(self) -> None:
        """Make that folder, for the server's user alone.

        Raises:
            Misconfigured: It is there, and somebody else's.
        """
        home = self.home()
        home.mkdir(mode=0o700, exist_ok=True)
        # Its name in /tmp can be foretold: what somebody else put there, a link too, isn't touched.
        if self.user.other and home.lstat().st_uid == os.geteuid() and not home.is_symlink():
            os.chown(home, self.user.uid, self.user.gid, follow_symlinks=False)
        if home.is_symlink() or home.lstat().st_uid != self.user.uid:
            raise Misconfigured([f"{home} belongs to somebody else; remove it, or choose another folder for the parts"])

    def make_data(self, settings: Mapping[str, str]) -> None:
        """Two folders that are equal, the second told to follow: right after initdb, a copy of a server that never ran
        is as good as a base backup, and needs no server to run."""
        draft, copy = self.home() / "a.new", self.home() / "b"
        for each in (draft, copy):
            shutil.rmtree(each, ignore_errors=True)
        # The control file keeps these, and a replica refuses to start with less. (PostgreSQL 15 can't be told.)
        said = {key: settings[key] for key in ("max_connections", "max_wal_senders") if key in settings}
        options = [word for key, value in said.items() for word in ("-c", f"{key}={value}")]
        self.run("initdb", "-D", str(draft), "-U", ROLE, "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync",
                 *(options if self.binaries.major >= 16 else ()), timeout_s=INITDB_S)  # fmt: skip
        shutil.copytree(draft, copy)
        self.follow(copy)
        draft.replace(self.home() / "a")

    def follow(self, data: Path) -> None:
        """Tell a server, at its next start, to follow the other one."""
        (data / "standby.signal").touch()
        if self.user.other:
            for path in (data, *data.rglob("*")):
                os.chown(path, self.user.uid, self.user.gid, follow_symlinks=False)

    def ask(self, conninfo: str, query: str, **values: str) -> str:
        """The answer to the statements of a file in ``query/``. psql puts values in only where it reads a file.

        Raises:
            Unavailable: No answer in ``QUICK_S``, or an error.
        """
        text = resources.files(__package__).joinpath("query", query).read_text("utf-8")
        said = [word for key, value in values.items() for word in ("-v", f"{key}={value}")]
        return self.run("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", *said, "-d", conninfo, "-f", "-",
                        timeout_s=QUICK_S, given=text)  # fmt: skip

    def run(self, program: str, *arguments: str, timeout_s: float, given: str = "") -> str:
        """Run one of PostgreSQL's programs as the server's user; what it said.

        Raises:
            Unavailable: It failed, or ``timeout_s`` passed.
        """
        command: Sequence[str] = [self.binaries.program(program), *arguments]
        try:
            done = subprocess.run(
                command, input=given, capture_output=True, text=True, timeout=timeout_s, check=False,
                cwd="/", env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"}, **self.user.popen(),
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(program, str(error)) from error
        if done.returncode != 0:
            raise Unavailable(program, (done.stdout + done.stderr).strip()[-2000:] or f"it ended {done.returncode}")
        return str(done.stdout).strip()

    def _reaches(self, folder: Path) -> bool:
        """Whether the server's user can get there: tried, since access lists and mounts have a say too."""
        command = ["/bin/sh", "-c", 'cd "$1"', "sh", str(folder)]
        done = subprocess.run(command, cwd="/", capture_output=True, timeout=QUICK_S, check=False, **self.user.popen())
        return done.returncode == 0
