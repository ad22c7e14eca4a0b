"""What a process doesn't hand on to those that user code forks from it (``multiprocessing``, ``ProcessPoolExecutor``).

A forked process shares every open file, and with it the flock on it and the other end of a socket: it would keep a
killed worker's lock, so that no successor could begin. And when its parent is killed it waits for work for ever.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable

from seawall.kernel.log import fields, logger

log = logger("guard")

PR_SET_PDEATHSIG = 1

_kept: set[int] = set()
_prctl: Callable[..., int] | None = None
_parent = 0  # of what is being forked now, when it is to end with its parent


def keep(descriptor: int) -> None:
    """Don't share this descriptor with forked processes. Say ``let`` before it is closed: its number is used again."""
    _kept.add(descriptor)


def let(descriptor: int) -> None:
    """It is about to be closed. Harmless when it wasn't kept."""
    _kept.discard(descriptor)


def end_orphans() -> None:
    """From now on, whatever the main thread forks is killed when this process ends, however that comes. Linux only.

    Not what other threads fork: the kernel counts a thread's end as the parent's.
    """
    global _prctl
    if sys.platform == "linux":
        import ctypes  # 4 ms, which only a process with user code needs to pay

        _prctl = ctypes.CDLL(None).prctl


def end_group(pid: int) -> None:
    """Kill what a process left in its group. It led the group, and has just ended: nobody has its number yet."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
        log.warning("processes that a child had started were left over; they were ended", extra=fields(child_pid=pid))


def _before() -> None:
    global _parent
    _parent = os.getpid() if _prctl is not None and threading.current_thread() is threading.main_thread() else 0


def _after_in_child() -> None:
    global _prctl
    if _parent and _prctl is not None:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != _parent:  # it died before we said so
            os._exit(1)
    _prctl = None  # what our child forks is its own affair: a daemon is made that way
    if not _kept:
        return
    # Not closed but replaced: objects in this process still hold the numbers, and would close what came later.
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in _kept:
        os.dup2(nothing, descriptor, inheritable=False)
    os.close(nothing)
    _kept.clear()


os.register_at_fork(before=_before, after_in_child=_after_in_child)
