"""A process of a part, known by its pid file: which holds its start time too, so that a reused number is never taken
for it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seawall.kernel.error import Unavailable

LOG_BYTES_MAX = 16 * 1024 * 1024
"""A node's log that is larger is set aside at its next start; one older log is kept."""

ENDED = ("", "Z", "X")
KILLED_S = 10.0
"""How long a process may take to vanish after SIGKILL: it may be busy writing to a slow disk."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells a process from a later one with its number."""

    pid: int
    started: str  # kernel's ticks since boot


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How a node is started."""

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)  # on top of a PATH and a locale
    extra: Mapping[str, Any] = field(default_factory=dict)  # more for Popen: user, group


def identity(pid: int) -> Identity | None:
    """The process that has this number now; None when there is none, or it has ended and isn't reaped yet."""
    state, started = _state(pid)
    return None if state in ENDED else Identity(pid, started)


def _state(pid: int) -> tuple[str, str]:
    """(state, start); ("", "") when there is none."""
    try:
        # The name, in parentheses, may hold anything; what follows it are numbers. Field 3 is the state, 22 the start.
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        return fields[0], fields[19]
    except (OSError, IndexError):
        return "", ""


def working_in(folder: Path) -> list[Identity]:
    """Every process whose working folder this is: PostgreSQL's postmaster and backends are in their data folder."""
    found = []
    resolved = folder.resolve()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "cwd").readlink() == resolved and (who := identity(int(entry.name))) is not None:
                found.append(who)
    return found


def send(who: Identity, number: signal.Signals) -> bool:
    """Signal exactly this process; False when it is gone."""
    try:
        descriptor = os.pidfd_open(who.pid)
    except (ProcessLookupError, OSError):
        return False
    try:
        # After opening: from here on the descriptor means the process that is looked at.
        if identity(who.pid) != who:
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def kill_group(who: Identity) -> bool:
    """SIGKILL to the leader of a group of its own, and to all that it has started there, also when it is gone itself:
    nobody else has its number while one of them lives. False: nobody was left."""
    state, started = _state(who.pid)
    if state and started != who.started:
        return False
    try:
        os.killpg(who.pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user, as what sudo has started is
        pass
    return True


def gone(who: Identity, timeout_s: float) -> bool:
    """Wait for its end; False when ``timeout_s`` passed first."""
    try:
        descriptor = os.pidfd_open(who.pid)
    except (ProcessLookupError, OSError):
        return True
    try:
        if identity(who.pid) != who:
            return True
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(max(0.0, timeout_s) * 1000))
    finally:
        os.close(descriptor)


class Node:
    """One process of a part. Its pid file and log lie in the part's folder under its name."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._file = folder / f"{name}.pid"

    def was(self) -> Identity | None:
        """The process that was started last, whether it lives or not; None when nobody has written that down."""
        try:
            pid, started = self._file.read_text("ascii").split()
            return Identity(int(pid), started)
        except (OSError, ValueError):
            return None

    def who(self) -> Identity | None:
        """The process, when it lives and is the one that was started."""
        found = self.was()
        if found is None:
            return None
        _reap(found)
        return found if identity(found.pid) == found else None

    def start(self, launch: Launch) -> None:
        """Start it, in a session of its own (a Ctrl-C in the terminal isn't for it). Harmless when it runs.

        Raises:
            Unavailable: It can't be started.
        """
        if self.who() is not None:
            return
        with contextlib.suppress(FileNotFoundError):
            if self.log.stat().st_size > LOG_BYTES_MAX:
                self.log.replace(self.log.with_suffix(".log.1"))
        environment = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", **launch.environment}
        try:
            with self.log.open("ab") as log:
                child = subprocess.Popen(
                    launch.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                    env=environment, **launch.extra,
                )  # fmt: skip
        except OSError as error:
            raise Unavailable(self.name, f"it can't be started: {error}") from error
        _write(self._file, f"{child.pid} {_state(child.pid)[1]}\n")
        # From here on it is known by number and start time alone, as by any later process. It may outlive us: Popen,
        # which would complain of that, is told that it ended.
        child.returncode = 0

    def end(self, number: signal.Signals, timeout_s: float) -> bool:
        """Signal it and wait for its end, then kill it. True: it ended by itself, or didn't run.

        A stopped process (SIGSTOP) is continued, or it would never see the signal.

        Raises:
            Unavailable: It is still there ``KILLED_S`` after SIGKILL.
        """
        who = self.who()
        orderly = True
        if who is not None:
            send(who, number)
            send(who, signal.SIGCONT)
            orderly = gone(who, timeout_s)
            if not orderly:
                send(who, signal.SIGKILL)
                if not gone(who, KILLED_S):
                    raise Unavailable(self.name, f"process {who.pid} doesn't end, even by SIGKILL")
            _reap(who)
        self._file.unlink(missing_ok=True)
        return orderly

    def tail(self, lines: int = 12) -> str:
        """The end of its log."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - 16_384))
                return "\n".join(log.read().decode("utf-8", "replace").splitlines()[-lines:])
        except OSError:
            return ""


def memory_mb(who: Identity) -> float:
    """What it holds in memory (RSS), in MiB; 0 when it is gone."""
    try:
        for line in Path(f"/proc/{who.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


def stopped(who: Identity) -> bool:
    """Whether SIGSTOP holds it."""
    return _state(who.pid) == ("T", who.started)


def _reap(who: Identity) -> None:
    """Take away what is left of a child of ours that has ended. Nobody else can have its number before that."""
    if _state(who.pid) == ("Z", who.started):
        with contextlib.suppress(ChildProcessError):  # another one's child
            os.waitpid(who.pid, os.WNOHANG)


def until(deadline: float) -> float:
    """Seconds left until a moment of ``time.monotonic``, never below 0."""
    return max(0.0, deadline - time.monotonic())


def _write(path: Path, text: str) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(text, "ascii")
    beside.replace(path)
