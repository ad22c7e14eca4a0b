"""Other processes, identified so that a reused number is never taken for them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_PS_TIMEOUT_S = 10.0
POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells a process from a later one with its number."""

    pid: int
    started: str  # kernel's ticks since boot, or what ps says


def identity(pid: int) -> Identity | None:
    """The process that has this number now, or None; one that has ended but isn't reaped yet counts as gone."""
    if not _PROC.is_dir():
        said = _ps(pid, "stat=,lstart=").split(maxsplit=1)
        return None if len(said) < 2 or said[0].startswith("Z") else Identity(pid, said[1])
    try:
        # The name, in parentheses, may hold anything; what follows it are numbers. Field 3 is the state, 22 the start.
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return None
    return None if fields[0] in "ZX" else Identity(pid, fields[19])


def command_line(pid: int) -> list[str]:
    """Its arguments as it was started with; empty when it is gone."""
    if not _PROC.is_dir():
        return _ps(pid, "command=").split()
    try:
        return [os.fsdecode(part) for part in (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")[:-1]]
    except OSError:
        return []


def working_in(folder: Path) -> list[Identity]:
    """Processes whose working folder this is: PostgreSQL's postmaster and backends are there. Empty where the system
    doesn't tell (macOS)."""
    found = []
    resolved = folder.resolve()
    for entry in _PROC.glob("[0-9]*") if _PROC.is_dir() else ():
        with contextlib.suppress(OSError):
            if (entry / "cwd").readlink() == resolved and (process := identity(int(entry.name))) is not None:
                found.append(process)
    return found


def works_in(who: Identity, folder: Path) -> bool:
    """Whether this is its working folder; where the system doesn't tell, whether it was started with its name."""
    if not _PROC.is_dir():
        return str(folder) in command_line(who.pid)
    try:
        return (_PROC / str(who.pid) / "cwd").readlink() == folder.resolve()
    except OSError:
        return False


def children_of(pid: int) -> list[int]:
    """Its children's numbers."""
    if not _PROC.is_dir():
        said = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, timeout=_PS_TIMEOUT_S, check=False
        ).stdout
        return [int(child) for child, parent in map(str.split, said.splitlines()) if int(parent) == pid]
    found = []
    for entry in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(entry.name))
    return found


def _ps(pid: int, what: str) -> str:
    return subprocess.run(
        ["ps", "-p", str(pid), "-o", what], capture_output=True, text=True, timeout=_PS_TIMEOUT_S, check=False
    ).stdout.strip()


class Watched:
    """A process that we watch and signal, our child or not. ``close`` when done.

    Raises:
        ProcessLookupError: It is gone already.
    """

    def __init__(self, who: Identity) -> None:
        self.who = who
        self._descriptor: int | None = None
        self._ended: asyncio.Future[None] | None = None
        if sys.platform == "linux":
            with contextlib.suppress(OSError):  # an old kernel, or a sandbox: then we poll
                self._descriptor = os.pidfd_open(who.pid)
        # After opening: from here on the descriptor means the process that was just identified.
        if identity(who.pid) != who:
            self.close()
            raise ProcessLookupError(f"process {who.pid} is gone")

    @property
    def alive(self) -> bool:
        return identity(self.who.pid) == self.who

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing when it is gone."""
        with contextlib.suppress(ProcessLookupError):
            if self._descriptor is not None and sys.platform == "linux":
                signal.pidfd_send_signal(self._descriptor, number)
            elif self.alive:
                os.kill(self.who.pid, number)

    async def gone(self, timeout_s: float) -> bool:
        """Wait for its end; False when ``timeout_s`` passed first.

        Cancelled: nothing happened.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        if self._descriptor is not None:
            if self._ended is None:
                # One for all who wait: a descriptor can have only one reader.
                self._ended = loop.create_future()
                loop.add_reader(self._descriptor, self._end)
            await asyncio.wait([self._ended], timeout=timeout_s)
            return self._ended.done()
        while self.alive:
            if loop.time() >= until:
                return False
            await asyncio.sleep(min(POLL_S, timeout_s))
        return True

    def _end(self) -> None:
        assert self._ended is not None and self._descriptor is not None
        self._ended.get_loop().remove_reader(self._descriptor)
        if not self._ended.done():
            self._ended.set_result(None)

    def close(self) -> None:
        """Stop watching. Harmless when called twice."""
        if self._descriptor is not None:
            if self._ended is not None:
                self._ended.get_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None
