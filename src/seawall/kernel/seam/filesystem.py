"""The filesystem seam: the few calls through which the journal touches a disk, so that a test can own the disk.

Every call may raise OSError, unchanged: the journal decides what each errno means.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class File(Protocol):
    """One open file, written by position: there is no shared offset to get wrong."""

    def write_at(self, offset_bytes: int, data: bytes) -> None:
        """Write all of ``data``; a short write is continued. Not durable."""

    def read_at(self, offset_bytes: int, count_bytes: int) -> bytes:
        """Up to ``count_bytes``; fewer only at the end of the file."""

    def sync_data(self) -> None:
        """fdatasync: contents, and the size when it grew, are on stable storage."""

    def truncate(self, size_bytes: int) -> None:
        """Cut the file. Not durable."""

    def drop_cached(self) -> None:
        """Read from the disk itself from now on, as far as the system can: after a failed sync its cache may lie."""

    def size_bytes(self) -> int: ...

    def close(self) -> None:
        """Harmless when called twice."""


class Filesystem(Protocol):
    """One folder tree."""

    def create(self, path: Path) -> File:
        """Make a new file, mode 0600; FileExistsError when there is one. The name isn't durable before sync_folder."""

    def open(self, path: Path, *, writable: bool) -> File: ...

    def make_folder(self, path: Path) -> None:
        """Make it and its parents, mode 0700; harmless when it is there. Durable after sync_folder of the parent."""

    def sync_folder(self, path: Path) -> None:
        """Names created, renamed and removed in it are on stable storage."""

    def rename(self, old: Path, new: Path) -> None: ...

    def remove(self, path: Path) -> None: ...

    def names(self, path: Path) -> list[str]:
        """File names in the folder, sorted."""

    def free_bytes(self, path: Path) -> int:
        """What an unprivileged writer may still use."""
