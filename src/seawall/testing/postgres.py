"""A real PostgreSQL for tests: started in a moment, ended with the test process however that ends.

Unlike the embedded store of the product this one belongs to one process: its kernel kills the server with us.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from seawall.store import binary, cluster, process
from seawall.store.binary import Binaries, ServerUser
from seawall.store.cluster import Cluster

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
POLL_S = 0.005
PREFIX = "seawall-pg-"
OWNER_FILE = "owner"
_PR_SET_PDEATHSIG = 1

FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "32MB"}
"""For tests that don't kill the server."""


@dataclass(frozen=True, slots=True)
class Database:
    """A database with our schema, of one test alone."""

    name: str
    dsn: str  # as the owner
    worker_dsn: str  # as seawall_worker


def programs(bin: str = "") -> tuple[Binaries, ServerUser]:
    """The PostgreSQL to start, where the user who will run it can reach it, and that user: root may not.

    Raises:
        Misconfigured: There is none, or no user who may run it.
    """
    user = binary.server_user()
    return binary.runnable(binary.find(bin), user), user


def _mark(pid: int) -> str:
    """A process, so that a later one with its number isn't taken for it; "" when it is gone."""
    who = process.identity(pid)
    return f"{who.pid} {who.started}" if who is not None else ""


def _sweep() -> None:
    """Remove what test processes left that were killed: their servers died with them, their folders didn't."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            said = (folder / OWNER_FILE).read_text()
        except OSError:
            continue  # being made, somebody else's, or none of ours
        pid = said.partition(" ")[0]
        if pid.isdigit() and _mark(int(pid)) != said:
            shutil.rmtree(folder, ignore_errors=True)


def _die_with_parent() -> None:
    """In the child, before exec: an orphan stops at once (Linux only). The kernel means the thread that started it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


class PostgresServer:
    """One server in a temporary folder of its own; a context manager that starts and, at the end, removes it.

    Args:
        durable: False switches fsync off: only where nothing is killed.
        prepared: A stopped server whose data is copied, which is quicker than initdb and brings its databases along.
        settings: Further server settings.
    """

    def __init__(
        self,
        *,
        durable: bool = True,
        prepared: PostgresServer | None = None,
        settings: Mapping[str, str] | None = None,
        bin: str = "",
    ) -> None:
        self._user = binary.server_user()
        found = prepared.binaries if prepared is not None else binary.find(bin)
        self.binaries: Binaries = binary.runnable(found, self._user)
        self._prepared = prepared
        self._settings = {**({} if durable else FAST), **(settings or {})}
        self._folder = Path()
        self._process: subprocess.Popen[bytes] | None = None
        self.cluster = Cluster(data=Path(), socket=Path(), instance=cluster.new_instance())

    def __enter__(self) -> PostgresServer:
        self.prepare()
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def dsn(self, *, database: str = "postgres", role: str = cluster.OWNER) -> str:
        return self.cluster.dsn(role=role, database=database)

    @property
    def pid(self) -> int:
        """Of the postmaster."""
        assert self._process is not None
        return self._process.pid

    def prepare(self) -> None:
        """Make the data folder without starting."""
        # Not below pytest's own folder: that has mode 0700, and the server may be another user.
        _sweep()
        self._folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        (self._folder / OWNER_FILE).write_text(_mark(os.getpid()))
        cluster.own_folder(self._folder, self._user)
        data = self._folder / "data"
        self.cluster = Cluster(data=data, socket=self._folder, instance=self.cluster.instance)
        if self._prepared is None:
            cluster.create(self.binaries, self._user, data, sync=False)
        else:
            self._copy(self._prepared.cluster.data, data)
        cluster.configure(self.cluster, self._user, self._settings)

    def _copy(self, source: Path, target: Path) -> None:
        shutil.copytree(source, target, symlinks=True)
        if self._user.other:
            for path in (target, *target.rglob("*")):
                os.chown(path, self._user.uid, self._user.gid, follow_symlinks=False)

    def start(self) -> None:
        """Start, and wait until it takes connections. Also after `kill`."""
        log = (self._folder / "log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [self.binaries.program("postgres"), "-D", str(self.cluster.data)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
                preexec_fn=_die_with_parent, **self._user.popen(),
            )  # fmt: skip
        until = time.monotonic() + START_TIMEOUT_S
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"PostgreSQL didn't start:\n{self.said()}")
            time.sleep(POLL_S)

    def _ready(self) -> bool:
        """The postmaster itself writes into its pid file when it takes connections."""
        try:
            lines = (self.cluster.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def said(self) -> str:
        """What it logged so far."""
        return (self._folder / "log").read_text(errors="replace")

    def stop(self) -> None:
        """Stop in order, connections notwithstanding."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """kill -9 of the postmaster; returns when its backends are gone too."""
        pids = self._pids()
        self._end(signal.SIGKILL)
        until = time.monotonic() + STOP_TIMEOUT_S
        while any(process.identity(pid) for pid in pids):
            assert time.monotonic() < until, "backends outlive their postmaster"
            time.sleep(POLL_S)

    def hang(self) -> None:
        """SIGSTOP to the postmaster and every child: connects and queries get no answer."""
        # The postmaster first, or it would replace children that we stop.
        for pid in self._pids():
            os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        for pid in reversed(self._pids()):
            with contextlib.suppress(ProcessLookupError):  # a backend may end between the look and the signal
                os.kill(pid, signal.SIGCONT)

    def close(self) -> None:
        """Stop whatever runs, and remove the folder. Harmless when called twice."""
        if self._process is not None and self._process.poll() is None:
            self.resume()
            self._end(signal.SIGQUIT)
        if self._folder != Path():
            shutil.rmtree(self._folder, ignore_errors=True)

    def _end(self, how: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(STOP_TIMEOUT_S)

    def _pids(self) -> list[int]:
        """The postmaster, then its children."""
        return [self.pid, *process.children_of(self.pid)]
