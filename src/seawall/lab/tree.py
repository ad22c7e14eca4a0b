"""A platform that the lab starts, kills and stops: `seawall up` on one data folder, and every process below it.

Only processes that are proven to belong to the folder are ever signalled: a role's lock file names its pid and start
time, and PostgreSQL works in the folder that the data folder records. A number alone may be somebody else's by now.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

from seawall.kernel.error import Unavailable
from seawall.lab.platform import Place
from seawall.lab.weak import mark, program
from seawall.settings import environment_apart

ROLES = ("collector", "router", "worker", "console")
PARTS = (*ROLES, "postgres", "up")
POLL_S = 0.05
PAGE_BYTES_MAX = 1024 * 1024
STOP_S = 40.0
"""How long an orderly stop may take: the sum of the roles' own budgets, and some."""


class Tree:
    """One platform of the lab's own.

    Args:
        data: Its folder; made by `seawall up` when it is missing.
        app: The file with its workflows.
        log: Where its standard error goes, appended.
        options: More arguments of `seawall up`.
        weak: Parts of it that are weak ones (lab/weak), for which the folder must be the lab's own.
        environment: Variables for it. Of ours it inherits none: one that names somebody's own database, which counts
            more than any file, would have the lab break a platform on that.
    """

    def __init__(
        self, data: Path, *, app: Path, log: Path, options: Sequence[str] = (), weak: Sequence[str] = (),
        environment: Mapping[str, str] = {},
    ) -> None:  # fmt: skip
        self.data = data
        self.log = log
        self._environment = environment
        self._command = [
            *program(weak), "up", "--data", str(data), "--app", str(app),
            "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", *options,
        ]  # fmt: skip
        self._weak = bool(weak)
        self._up: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Tree:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start `seawall up`; a session of its own, so that a Ctrl-C in the terminal reaches only us.

        Raises:
            Misconfigured: It would have weak parts in a folder that the lab didn't make.
        """
        if self._weak:
            mark(self.data)
        with self.log.open("ab") as log:
            self._up = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**environment_apart(), **self._environment},
            )  # fmt: skip

    def place(self) -> Place:
        """Where it is now.

        Raises:
            Unavailable: It isn't running, or not far enough.
        """
        try:
            found = json.loads((self.data / "run" / "admin.json").read_text())
            return Place(admin=found["address"], listen=found["listen"], token=found["token"])
        except (OSError, ValueError, KeyError) as error:
            raise Unavailable("the platform", f"{self.data} doesn't say where it is: {error}") from error

    def unready(self) -> str:
        """Why it can't take and run events now; "" when it can."""
        try:
            parts = urlsplit(self.place().admin)
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=2.0)
            with contextlib.closing(connection):
                connection.request("GET", "/readyz")
                answer = connection.getresponse()
                said = json.loads(answer.read(PAGE_BYTES_MAX))["reason"]
        except (Unavailable, OSError, http.client.HTTPException, ValueError, KeyError) as error:
            return str(error)
        return "" if answer.status == 200 else f"readyz answers {answer.status}: {said}"

    def wait_ready(self, timeout_s: float) -> float:
        """Wait until it is ready; the seconds that it took.

        Raises:
            Unavailable: It ended, or wasn't ready in time; with the end of its log.
        """
        began = time.monotonic()
        while why := self.unready():
            if self._up is not None and self._up.poll() is not None:
                raise Unavailable("the platform", f"seawall up ended with {self._up.returncode}: {self.log_tail()}")
            if time.monotonic() - began > timeout_s:
                raise Unavailable("the platform", f"not ready after {timeout_s:g} s: {why}\n{self.log_tail()}")
            time.sleep(POLL_S)
        return time.monotonic() - began

    def pid(self, part: str) -> int | None:
        """A part's process (one of PARTS), None while there is none."""
        if part == "postgres":
            return _postgres_pid(self.data)
        return _named_pid(self.data / "lock" if part == "up" else self.data / "run" / f"{part}.lock", part)

    def kill(self, part: str) -> int:
        """``kill -9`` one part, and wait until it is gone; its pid.

        Raises:
            Unavailable: There is no such process at the moment.
        """
        pid = self.pid(part)
        if pid is None:
            raise Unavailable(part, "it isn't running")
        os.kill(pid, signal.SIGKILL)
        if part == "up" and self._up is not None:
            self._up.wait()
        return pid

    def wait_replaced(self, part: str, old: int, timeout_s: float) -> float:
        """Wait until a part has another process than ``old`` and all is ready; the seconds that it took.

        Raises:
            Unavailable: Not in time.
        """
        began = time.monotonic()
        while self.pid(part) in (None, old):
            if time.monotonic() - began > timeout_s:
                raise Unavailable(part, f"not started again after {timeout_s:g} s: {self.log_tail()}")
            time.sleep(POLL_S)
        self.wait_ready(timeout_s)
        return time.monotonic() - began

    def stop(self) -> None:
        """Stop it in order; what doesn't stop in time is killed. Harmless when it isn't running."""
        if self._up is not None:
            with contextlib.suppress(ProcessLookupError):
                self._up.terminate()
            # A second Ctrl-C means: now. What it would leave behind is killed below.
            with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                self._up.wait(STOP_S)
            if self._up.poll() is None:
                self._up.kill()
                self._up.wait()
            self._up = None
        for part in PARTS:
            pid = self.pid(part)
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def log_tail(self, lines: int = 15) -> str:
        """The end of its log."""
        try:
            return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-lines:])
        except OSError:
            return ""


def _named_pid(lock: Path, word: str) -> int | None:
    """The process that a lock file names: it began when the file says, and was told to be what ``word`` says.

    The word matters, since a starting `up` holds each role's lock for a moment, to see that an earlier one has left.
    The lock itself isn't tried: for a moment we would hold it, and whoever starts just then would be refused.
    """
    try:
        found = json.loads(lock.read_text("ascii"))
        pid, start = int(found["pid"]), str(found["start"])
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return pid if pid > 1 and word.encode() in words and _start(pid) == start else None


def _start(pid: int) -> str:
    """When a living process began; "" when it is gone, or where the system doesn't tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _postgres_pid(data: Path) -> int | None:
    """The postmaster, when the process of its pid file works in the folder where the file lies."""
    try:
        place = data / json.loads((data / "postgres.where").read_text())["place"] / "data"
        pid = int((place / "postmaster.pid").read_text().splitlines()[0])
        works_there = Path(f"/proc/{pid}/cwd").readlink() == place.resolve()
    except (OSError, ValueError, KeyError, IndexError):
        return None
    return pid if works_there and _start(pid) else None
