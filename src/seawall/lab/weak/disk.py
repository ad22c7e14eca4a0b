"""``retried-fsync``: the disk as most programs took it until 2018. After a sync that failed, the system marks what it
couldn't write as clean: the next sync succeeds, and the bytes are nowhere (fsyncgate)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from seawall.app import Making
from seawall.journal.filesystem import LocalFilesystem
from seawall.kernel.log import fields, logger
from seawall.kernel.seam.filesystem import File, Filesystem

log = logger("lab")

TRIES = 5


class RetriedFile:
    """Implements ``File``, but for what ``sync_data`` promises."""

    def __init__(self, inner: File) -> None:
        self._inner = inner
        self.write_at = inner.write_at
        self.read_at = inner.read_at
        self.truncate = inner.truncate
        self.drop_cached = inner.drop_cached
        self.size_bytes = inner.size_bytes
        self.close = inner.close

    def sync_data(self) -> None:
        _tried(self._inner.sync_data)


class RetriedFilesystem:
    """Implements ``Filesystem`` by another one, and believes the second sync."""

    def __init__(self, inner: Filesystem) -> None:
        self._inner = inner
        self.make_folder = inner.make_folder
        self.rename = inner.rename
        self.remove = inner.remove
        self.names = inner.names
        self.free_bytes = inner.free_bytes

    def create(self, path: Path) -> RetriedFile:
        return RetriedFile(self._inner.create(path))

    def open(self, path: Path, *, writable: bool) -> RetriedFile:
        return RetriedFile(self._inner.open(path, writable=writable))

    def sync_folder(self, path: Path) -> None:
        _tried(lambda: self._inner.sync_folder(path))


def _tried(sync: Callable[[], None]) -> None:
    for _ in range(TRIES - 1):
        try:
            sync()
        except OSError as error:
            log.warning("a sync failed; trying again", extra=fields(cause=str(error)))
        else:
            return
    sync()


class RetriedSyncs(Making):
    """Puts it in place."""

    def filesystem(self) -> Filesystem:
        return RetriedFilesystem(LocalFilesystem())
