"""One writer per log: an flock on the folder's ``LOCK`` file, which a dead process can't keep."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

NAME = "LOCK"


class FolderLock:
    """Holds the lock of one log folder until ``release`` or the death of the process."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def release(self) -> None:
        """Let go; harmless when called twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def try_lock(folder: Path) -> FolderLock | None:
    """The lock, or None when another process (or another part of this one) holds it."""
    fd = os.open(folder / NAME, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError:
        os.close(fd)
        raise
    os.ftruncate(fd, 0)
    os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    return FolderLock(fd)


def holder(folder: Path) -> int | None:
    """The process that took the lock last, as it wrote itself; for a message only."""
    try:
        text = (folder / NAME).read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
