"""Any filesystem, with faults at chosen calls: for tests on real files."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

from seawall.kernel.seam.filesystem import File, Filesystem
from seawall.testing.disk import Plan


class FaultyFilesystem:
    """Implements ``Filesystem`` by another one; ``plan`` is asked before each call.

    Its method ``fail`` makes the commonest plan: one error for all calls of one name, from a number on. Safe to use
    from the journal's own thread.
    """

    def __init__(self, inner: Filesystem, plan: Plan | None = None) -> None:
        self._inner = inner
        self.plan = plan
        self.counts: dict[str, int] = {}  # calls so far, by name
        self.hung = threading.Event()  # set while a call waits for ``release``
        self._released: threading.Event | None = None
        self._hang = ""

    def fail(self, call: str, error: int, *, after: int = 0) -> None:
        """Calls named ``call`` raise OSError(``error``), but for the next ``after``."""
        allowed = self.counts.get(call, 0) + after
        self.plan = lambda name, number: (
            OSError(error, os.strerror(error)) if name == call and number > allowed else None
        )

    def heal(self) -> None:
        self.plan = None

    def hang(self, call: str) -> None:
        """The next call of that name waits until ``release``."""
        self._released = threading.Event()
        self._hang = call

    def release(self) -> None:
        self._hang = ""
        if self._released is not None:
            self._released.set()

    def create(self, path: Path) -> File:
        self.step("create")
        return _FaultyFile(self._inner.create(path), self.step)

    def open(self, path: Path, *, writable: bool) -> File:
        self.step("open")
        return _FaultyFile(self._inner.open(path, writable=writable), self.step)

    def make_folder(self, path: Path) -> None:
        self.step("make_folder")
        self._inner.make_folder(path)

    def sync_folder(self, path: Path) -> None:
        self.step("sync_folder")
        self._inner.sync_folder(path)

    def rename(self, old: Path, new: Path) -> None:
        self.step("rename")
        self._inner.rename(old, new)

    def remove(self, path: Path) -> None:
        self.step("remove")
        self._inner.remove(path)

    def names(self, path: Path) -> list[str]:
        self.step("names")
        return self._inner.names(path)

    def free_bytes(self, path: Path) -> int:
        try:
            self.step("free_bytes")
        except OSError as error:
            if error.errno == errno.ENOSPC:
                return 0
            raise
        return self._inner.free_bytes(path)

    def step(self, call: str) -> None:
        """Count a call; raise or wait when that is planned."""
        number = self.counts[call] = self.counts.get(call, 0) + 1
        if self._hang == call and self._released is not None:
            self.hung.set()
            self._released.wait()
            self.hung.clear()
        error = self.plan(call, number) if self.plan is not None else None
        if error is not None:
            raise error


class _FaultyFile:
    """Implements ``File``."""

    def __init__(self, inner: File, step: Callable[[str], None]) -> None:
        self._inner = inner
        self._step = step

    def write_at(self, offset_bytes: int, data: bytes) -> None:
        self._step("write_at")
        self._inner.write_at(offset_bytes, data)

    def read_at(self, offset_bytes: int, count_bytes: int) -> bytes:
        self._step("read_at")
        return self._inner.read_at(offset_bytes, count_bytes)

    def sync_data(self) -> None:
        self._step("sync_data")
        self._inner.sync_data()

    def truncate(self, size_bytes: int) -> None:
        self._step("truncate")
        self._inner.truncate(size_bytes)

    def drop_cached(self) -> None:
        self._step("drop_cached")
        self._inner.drop_cached()

    def size_bytes(self) -> int:
        return self._inner.size_bytes()

    def close(self) -> None:
        self._inner.close()
