"""The real disk. The only os calls and the only syncs of the journal are in this file."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from pathlib import Path


class LocalFile:
    """One open file; see ``kernel.seam.filesystem.File``."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write_at(self, offset_bytes: int, data: bytes) -> None:
        written = os.pwrite(self._fd, data, offset_bytes)
        if written != len(data):
            rest = memoryview(data)
            while written < len(rest):
                written += os.pwrite(self._fd, rest[written:], offset_bytes + written)

    def read_at(self, offset_bytes: int, count_bytes: int) -> bytes:
        data = os.pread(self._fd, count_bytes, offset_bytes)
        if len(data) == count_bytes or not data:
            return data
        parts = [data]
        got = len(data)
        while got < count_bytes and (data := os.pread(self._fd, count_bytes - got, offset_bytes + got)):
            parts.append(data)
            got += len(data)
        return b"".join(parts)

    def sync_data(self) -> None:
        _sync(self._fd)

    def truncate(self, size_bytes: int) -> None:
        os.ftruncate(self._fd, size_bytes)

    def drop_cached(self) -> None:
        # A failed sync may have left pages that look written and aren't (0001): they must not prove anything.
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def size_bytes(self) -> int:
        return os.fstat(self._fd).st_size

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            self.close()


class LocalFilesystem:
    """Folders of this machine; see ``kernel.seam.filesystem.Filesystem``."""

    def create(self, path: Path) -> LocalFile:
        return LocalFile(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))

    def open(self, path: Path, *, writable: bool) -> LocalFile:
        return LocalFile(os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC))

    def make_folder(self, path: Path) -> None:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def sync_folder(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _sync(fd, whole=True)
        finally:
            os.close(fd)

    def rename(self, old: Path, new: Path) -> None:
        old.rename(new)

    def remove(self, path: Path) -> None:
        path.unlink()

    def names(self, path: Path) -> list[str]:
        return sorted(entry.name for entry in path.iterdir())

    def free_bytes(self, path: Path) -> int:
        status = os.statvfs(path)
        return status.f_bavail * status.f_frsize


def _sync(fd: int, *, whole: bool = False) -> None:
    """fdatasync (fsync when ``whole``). macOS answers both from the drive's cache unless asked with F_FULLFSYNC."""
    if sys.platform == "darwin":
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    elif whole:
        os.fsync(fd)
    else:
        os.fdatasync(fd)
