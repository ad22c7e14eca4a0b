"""A disk in memory that crashes the way real ones do.

What was written and not synced is at the mercy of ``power_loss``: each 512-byte sector lands, is zeroed, or never came,
in any order, and so do names. A failed sync may drop what it should have written, while reads still show it and the
next sync reports success (fsyncgate), until ``drop_cached``.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

SECTOR_BYTES = 512

Plan = Callable[[str, int], BaseException | None]
"""Asked before each call with its name and its number, from 1; what it returns is raised."""


class Crashed(BaseException):
    """The machine stopped in the middle of a call. Not an Exception: nothing may handle it but the test."""


@dataclass(slots=True)
class _Inode:
    """A file: what the disk has, what it was told since, and what the cache shows."""

    durable: bytearray = field(default_factory=bytearray)
    cached: bytearray = field(default_factory=bytearray)
    unsynced: list[tuple[int, bytes | None]] = field(default_factory=list)  # (offset, data), or (size, None): a cut

    def dropped(self) -> bytearray:
        """What reads show once the cache is gone: dirty pages are written back, lost ones aren't there."""
        content = bytearray(self.durable)
        for at, data in self.unsynced:
            _apply(content, at, data)
        return content


@dataclass(slots=True)
class _Name:
    """An unsynced change of a folder: ``path`` leads to ``inode`` (None: to nothing), and ``old`` no longer does."""

    path: Path
    inode: _Inode | None
    old: Path | None = None


class CrashDisk:
    """Implements ``Filesystem``.

    Args:
        seed: Decides what a crash leaves; the same calls with the same seed give the same disk.
        capacity_bytes: All files together; beyond it writes fail with ENOSPC.
    """

    def __init__(self, seed: int = 0, *, capacity_bytes: int = 1 << 40) -> None:
        self.random = random.Random(seed)
        self.capacity_bytes = capacity_bytes
        self.plan: Plan | None = None
        self.calls = 0
        self._names: dict[Path, _Inode] = {}
        self._durable: dict[Path, _Inode] = {}
        self._unsynced: list[_Name] = []

    def create(self, path: Path) -> CrashFile:
        self._step("create")
        if path in self._names:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        inode = _Inode()
        self._change(_Name(path, inode))
        return CrashFile(self, inode)

    def open(self, path: Path, *, writable: bool) -> CrashFile:
        self._step("open")
        return CrashFile(self, self._inode(path))

    def make_folder(self, path: Path) -> None:
        self._step("make_folder")

    def sync_folder(self, path: Path) -> None:
        self._step("sync_folder")
        for change in [change for change in self._unsynced if change.path.parent == path]:
            self._unsynced.remove(change)
            _rename(self._durable, change)

    def rename(self, old: Path, new: Path) -> None:
        self._step("rename")
        self._change(_Name(new, self._inode(old), old))

    def remove(self, path: Path) -> None:
        self._step("remove")
        self._inode(path)
        self._change(_Name(path, None))

    def names(self, path: Path) -> list[str]:
        self._step("names")
        return sorted(name.name for name in self._names if name.parent == path)

    def free_bytes(self, path: Path) -> int:
        self._step("free_bytes")
        return max(0, self.capacity_bytes - self.used_bytes)

    @property
    def used_bytes(self) -> int:
        return sum(len(inode.cached) for inode in self._names.values())

    def power_loss(self) -> None:
        """Only what was synced is certain. What wasn't: by chance, sector by sector and name by name."""
        for change in self._unsynced:
            if self.random.random() < 0.5:
                _rename(self._durable, change)
        self._unsynced.clear()
        self._names = dict(self._durable)
        for inode in self._names.values():
            for at, data in inode.unsynced:
                self._land(inode.durable, at, data)
            inode.unsynced.clear()
            inode.cached = bytearray(inode.durable)

    def flip(self, path: Path, offset_bytes: int, bit: int) -> None:
        """Rot: one bit of what is stored changes."""
        inode = self._inode(path)
        for content in (inode.durable, inode.cached):
            if offset_bytes < len(content):
                content[offset_bytes] ^= 1 << bit

    def content(self, path: Path) -> bytes:
        """A file's bytes as reads show them."""
        return bytes(self._inode(path).cached)

    def replace(self, path: Path, content: bytes) -> None:
        """Put a file there, as if by hand; durable."""
        self._names[path] = self._durable[path] = _Inode(bytearray(content), bytearray(content))

    def erase(self, folder: Path) -> None:
        """All files of a folder are gone, durably."""
        for names in (self._names, self._durable):
            for path in [path for path in names if path.parent == folder]:
                del names[path]
        self._unsynced = [change for change in self._unsynced if change.path.parent != folder]

    def _step(self, call: str) -> None:
        self.calls += 1
        error = self.plan(call, self.calls) if self.plan is not None else None
        if error is not None:
            raise error

    def _inode(self, path: Path) -> _Inode:
        if path not in self._names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return self._names[path]

    def _change(self, change: _Name) -> None:
        self._unsynced.append(change)
        _rename(self._names, change)

    def _land(self, content: bytearray, at: int, data: bytes | None) -> None:
        if data is None:
            if self.random.random() < 0.5:
                _apply(content, at, None)
            return
        start = at
        while start < at + len(data):
            end = min(at + len(data), (start // SECTOR_BYTES + 1) * SECTOR_BYTES)
            luck = self.random.random()
            if luck < 0.45:
                _apply(content, start, data[start - at : end - at])
            elif luck < 0.55:
                _apply(content, start, bytes(end - start))
            start = end


class CrashFile:
    """Implements ``File``."""

    def __init__(self, disk: CrashDisk, inode: _Inode) -> None:
        self._disk = disk
        self._inode = inode

    def write_at(self, offset_bytes: int, data: bytes) -> None:
        try:
            self._disk._step("write_at")
        except (OSError, Crashed):
            # Whatever stopped it, a part of the bytes may have been taken.
            self._take(offset_bytes, data[: self._disk.random.randint(0, len(data))])
            raise
        grown = offset_bytes + len(data) - len(self._inode.cached)
        room = self._disk.capacity_bytes - self._disk.used_bytes
        if grown > max(0, room):
            self._take(offset_bytes, data[: max(0, len(data) - grown + max(0, room))])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._take(offset_bytes, data)

    def read_at(self, offset_bytes: int, count_bytes: int) -> bytes:
        self._disk._step("read_at")
        return bytes(self._inode.cached[offset_bytes : offset_bytes + count_bytes])

    def sync_data(self) -> None:
        inode = self._inode
        try:
            self._disk._step("sync_data")
        except OSError:
            inode.unsynced = [write for write in inode.unsynced if self._disk.random.random() < 0.5]
            raise
        inode.durable = inode.dropped()
        inode.unsynced.clear()

    def truncate(self, size_bytes: int) -> None:
        self._disk._step("truncate")
        self._inode.unsynced.append((size_bytes, None))
        _apply(self._inode.cached, size_bytes, None)

    def drop_cached(self) -> None:
        self._disk._step("drop_cached")
        self._inode.cached = self._inode.dropped()

    def size_bytes(self) -> int:
        self._disk._step("size_bytes")
        return len(self._inode.cached)

    def close(self) -> None:
        """Nothing to close; never fails."""

    def _take(self, at: int, data: bytes) -> None:
        if data:
            self._inode.unsynced.append((at, bytes(data)))
            _apply(self._inode.cached, at, data)


def _apply(content: bytearray, at: int, data: bytes | None) -> None:
    if data is None:
        del content[at:]
        return
    if len(content) < at:
        content.extend(bytes(at - len(content)))
    content[at : at + len(data)] = data


def _rename(names: dict[Path, _Inode], change: _Name) -> None:
    if change.old is not None:
        names.pop(change.old, None)
    if change.inode is None:
        names.pop(change.path, None)
    else:
        names[change.path] = change.inode
