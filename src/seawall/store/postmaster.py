"""PostgreSQL's main process: started by us, or found running and proven to be the one of a data folder."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from seawall.kernel.error import Unavailable
from seawall.kernel.log import fields, logger
from seawall.store import process
from seawall.store.binary import Binaries, ServerUser
from seawall.store.process import Identity, Watched

log = logger("store")

PROGRAM = "postgres"
PID_FILE = "postmaster.pid"
LEFTOVER_S = 15.0
"""How long backends may outlive their postmaster before they are killed: they hold its shared memory."""

CLEAR_POLL_S = 0.05
REAP_S = 0.5


class Postmaster:
    """A running server, our child or adopted. ``close`` stops watching it, not the server."""

    def __init__(self, watched: Watched, child: subprocess.Popen[bytes] | None) -> None:
        self._watched = watched
        self._child = child
        self.adopted = child is None

    @property
    def pid(self) -> int:
        return self._watched.who.pid

    @property
    def alive(self) -> bool:
        return self._watched.alive

    async def gone(self, timeout_s: float) -> bool:
        """Wait for its end; False when ``timeout_s`` passed first. Cancelled: nothing happened."""
        return await self._watched.gone(timeout_s)

    async def stop(self, timeout_s: float) -> None:
        """Stop it in order; then, for the last third of the budget, at once, which costs a recovery later. One that is
        still there after that is left to the next start."""
        self._watched.signal(signal.SIGINT)
        if await self.gone(timeout_s * 2 / 3):
            return
        log.warning("PostgreSQL doesn't stop in order; stopping it at once", extra=fields(pid=self.pid))
        self._watched.signal(signal.SIGQUIT)
        if not await self.gone(timeout_s / 3):
            log.error("PostgreSQL doesn't stop; the next start will find it", extra=fields(pid=self.pid))

    def cause(self) -> str:
        """How it ended, when it did; an adopted one isn't ours to ask."""
        return "unknown, since it wasn't our child" if self._child is None else _cause(self._child)

    def close(self) -> None:
        """Harmless when called twice."""
        self._watched.close()
        if self._child is not None:
            self._child.poll()


def start(binaries: Binaries, user: ServerUser, data: Path, errors: int) -> Postmaster:
    """Start a server; it isn't ready yet.

    Args:
        errors: Descriptor for what it says; closed here.

    Raises:
        Unavailable: It can't be started, or ended at once.
    """
    try:
        # A session of its own: Ctrl-C in a terminal is for us, and we stop it last.
        child = subprocess.Popen(
            [binaries.program(PROGRAM), "-D", str(data)], stdin=subprocess.DEVNULL, stdout=errors, stderr=errors,
            start_new_session=True, cwd="/", **user.popen(),
        )  # fmt: skip
    except OSError as error:
        raise Unavailable("PostgreSQL", f"it can't be started: {error}") from error
    finally:
        os.close(errors)
    who = process.identity(child.pid)
    with contextlib.suppress(ProcessLookupError):
        if who is not None:
            return Postmaster(Watched(who), child)
    raise Unavailable("PostgreSQL", f"it ended at once ({_cause(child)})")


def adopt(data: Path) -> Postmaster | None:
    """The running server of a data folder, or None."""
    who = find(data)
    with contextlib.suppress(ProcessLookupError):
        if who is not None:
            return Postmaster(Watched(who), None)
    return None


def find(data: Path) -> Identity | None:
    """The server of a data folder: named in its pid file, a PostgreSQL, and at work in this very folder."""
    pid = _pid_in(data / PID_FILE)
    who = process.identity(pid) if pid is not None else None
    return who if who is not None and _is_postgres(who) and process.works_in(who, data) else None


async def clear(data: Path, tell: Callable[[str], None]) -> None:
    """Wait for what a dead postmaster left, then remove a pid file that PostgreSQL would respect for ever: backends
    hold its memory, and its number may be another process's by now.

    Args:
        tell: Called at least ten times a second with what is waited for.
    """
    until = time.monotonic() + LEFTOVER_S
    while left := [who for who in process.working_in(data) if _is_postgres(who)]:
        if time.monotonic() > until:
            log.error("killing what outlived its PostgreSQL", extra=fields(pids=[who.pid for who in left]))
            for who in left:
                _kill(who)
        tell("waiting for the end of an earlier PostgreSQL's processes")
        await asyncio.sleep(CLEAR_POLL_S)
    pid = _pid_in(data / PID_FILE)
    # The file of a process that is gone stays: with it, PostgreSQL itself checks that its memory is free.
    if pid is not None and process.identity(pid) is not None:
        log.warning("removing a stale pid file: its number is another process's now", extra=fields(pid=pid))
        (data / PID_FILE).unlink()


def _kill(who: Identity) -> None:
    with contextlib.suppress(ProcessLookupError), contextlib.closing(Watched(who)) as watched:
        watched.signal(signal.SIGKILL)


def _is_postgres(who: Identity) -> bool:
    """A postmaster keeps the command that started it; a backend calls itself ``postgres: …``."""
    words = process.command_line(who.pid)
    return bool(words) and Path(words[0]).name.partition(":")[0] == PROGRAM


def _pid_in(file: Path) -> int | None:
    try:
        first = file.read_text("ascii", "replace").split("\n", 1)[0].strip()
    except OSError:
        return None
    return int(first) if first.isdigit() else None


def _cause(child: subprocess.Popen[bytes]) -> str:
    try:
        status = child.wait(REAP_S)
    except subprocess.TimeoutExpired:
        return "it didn't end"
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
