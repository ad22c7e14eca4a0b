"""Runs a target's commands: no shell, no terminal, a bound on time, and the end of what they said when they fail."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from pathlib import Path

from seawall.kernel.error import Unavailable
from seawall.lab.part.node import whole
from seawall.lab.part.process import identity, kill_group
from seawall.lab.target.file import Command

OUTPUT_BYTES_MAX = 2000
THERE, GONE = 0, 1
KILLED_S = 5.0

GATE = ("sh", "-c", 'read -r go && exec "$@" </dev/null', "sh")
"""Begins only when told to, and not at all when whoever is to tell is gone: a process that nobody can name yet must not
break anything."""


def apply(command: Command, folder: Path, pid: Path) -> None:
    """Do it. Who it is stands in ``pid`` before it begins, so that a watchdog can end it in the middle.

    Raises:
        Unavailable: It failed, or didn't end in time. It may be done all the same; nothing of it runs on.
    """
    with tempfile.TemporaryFile() as told:
        child = _begin([*GATE, *command.argv], folder, told.fileno(), stdin=subprocess.PIPE)
        who = identity(child.pid)
        try:
            whole(pid, f"{child.pid} {who.started if who is not None else 0}\n")
            assert child.stdin is not None
            with contextlib.suppress(BrokenPipeError), child.stdin:
                child.stdin.write(b"go\n")
            code = child.wait(command.timeout_s)
        except subprocess.TimeoutExpired:
            raise Unavailable(command.argv[0], f"{_said(command)} didn't end within {command.timeout_s:g} s") from None
        finally:
            _end(child)
        if code != 0:
            if who is not None:
                # What it has started might break something after it was reverted.
                kill_group(who)
            raise Unavailable(command.argv[0], f"{_said(command)} ended with {code}: {_tail(told.fileno())}")


def ask(command: Command, folder: Path) -> int:
    """Its exit code.

    Raises:
        Unavailable: It can't be run, or didn't end in time: nobody knows.
    """
    with tempfile.TemporaryFile() as told:
        child = _begin(command.argv, folder, told.fileno(), stdin=subprocess.DEVNULL)
        try:
            code = child.wait(command.timeout_s)
        except subprocess.TimeoutExpired:
            raise Unavailable(command.argv[0], f"{_said(command)} didn't end within {command.timeout_s:g} s") from None
        finally:
            _end(child)
        if code not in (THERE, GONE):
            raise Unavailable(command.argv[0], f"{_said(command)} ended with {code}: {_tail(told.fileno())}")
        return code


def _begin(argv: list[str], folder: Path, told: int, *, stdin: int) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(argv, cwd=folder, stdin=stdin, stdout=told, stderr=told, start_new_session=True)
    except OSError as error:
        raise Unavailable(argv[0], str(error)) from error


def _end(child: subprocess.Popen[bytes]) -> None:
    """Nothing of it runs on, also what it has started itself."""
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(KILLED_S)


def _said(command: Command) -> str:
    return " ".join(command.argv)


def _tail(file: int) -> str:
    size = os.fstat(file).st_size
    return os.pread(file, OUTPUT_BYTES_MAX, max(0, size - OUTPUT_BYTES_MAX)).decode("utf-8", "replace").strip()
