"""The snapshot's copy on disk, by which a restart knows every source while the store is away.

``DIR/snapshot`` is MessagePack (version, sources) sealed under DIR/key (store/vault.py). It is replaced by rename, so a
crash leaves the old copy or the new one.
"""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import NamedTuple

import msgspec

from seawall.kernel.log import fields, logger
from seawall.kernel.seam.filesystem import Filesystem
from seawall.store.source import Loaded
from seawall.store.vault import Vault

log = logger("collector")

COPY_BYTES_MAX = 256 * 1024 * 1024
_OWNER = b"snapshot|1"


class SealedCopy:
    """Blocking: call it on a thread."""

    def __init__(self, file: Path, *, vault: Vault, filesystem: Filesystem) -> None:
        self.file = file
        self._vault = vault
        self._filesystem = filesystem
        self._writing = threading.Lock()  # a cancelled refresh leaves its thread behind for a moment

    def write(self, version: int, sources: list[Loaded]) -> None:
        """Replace the copy.

        Raises:
            OSError: The old copy is still there.

        Durability: the new copy and its name are on stable storage on return.
        """
        sealed = self._vault.seal(msgspec.msgpack.encode((version, sources)), belongs_to=_OWNER)
        new = self.file.with_name(self.file.name + ".new")
        with self._writing:
            if new.name in self._filesystem.names(new.parent):
                self._filesystem.remove(new)
            file = self._filesystem.create(new)
            try:
                file.write_at(0, sealed)
                file.sync_data()
            finally:
                file.close()
            self._filesystem.rename(new, self.file)
            self._filesystem.sync_folder(self.file.parent)

    def read(self) -> tuple[int, list[Loaded]]:
        """(version, sources) as they were written.

        Raises:
            FileNotFoundError: There is none.
            OSError: The disk failed.
            Corrupt, msgspec.DecodeError: Another key, damage, or another version's form.
        """
        file = self._filesystem.open(self.file, writable=False)
        try:
            sealed = file.read_at(0, min(file.size_bytes(), COPY_BYTES_MAX))
        finally:
            file.close()
        plain = self._vault.unseal(sealed, belongs_to=_OWNER)
        return msgspec.msgpack.decode(plain, type=tuple[int, list[Loaded]])


class _Writing(NamedTuple):
    version: int
    sources: list[Loaded]
    task: asyncio.Task[None]


class KeptCopy:
    """Brings the newest version to the disk, turn by turn, on the event loop. Failing is no reason not to serve: the
    next turn tries again. A disk that hangs has one thread that waits for it, however often it is tried."""

    def __init__(self, copy: SealedCopy) -> None:
        self._copy = copy
        self._version = 0  # on disk
        self._newest: tuple[int, list[Loaded]] | None = None  # what isn't there yet
        self._writing: _Writing | None = None
        self.trouble = ""
        """Why the disk doesn't have the newest version; "" when it has, or is about to."""

    @property
    def file(self) -> Path:
        return self._copy.file

    async def read(self) -> tuple[int, list[Loaded]]:
        """As ``SealedCopy.read``."""
        version, sources = await asyncio.to_thread(self._copy.read)
        self._version = version
        return version, sources

    def put(self, version: int, sources: list[Loaded]) -> None:
        """From now on this is the newest."""
        self._newest = version, sources

    async def kept(self, *, timeout_s: float) -> int:
        """Try to write what isn't on disk yet; returns the version that a restart would have, which is below the newest
        one when that isn't there. Cancelled: the next turn finds what came of it."""
        if self._newest is not None:
            await self._write(*self._newest, timeout_s=timeout_s)
        return self._version if self._newest is None else min(self._version, self._newest[0] - 1)

    def close(self) -> None:
        """Wait for nothing any more; what a thread has begun to write, it may still end."""
        if self._writing is not None:
            self._writing.task.cancel()

    async def _write(self, version: int, sources: list[Loaded], *, timeout_s: float) -> None:
        if self._writing is None:
            work = asyncio.to_thread(self._copy.write, version, sources)
            self._writing = _Writing(version, sources, asyncio.create_task(work, name="collector.snapshot.copy"))
        writing, cause = self._writing, "the disk took too long"
        if (await asyncio.wait([writing.task], timeout=timeout_s))[0]:
            self._writing = None
            try:
                writing.task.result()
            except OSError as error:
                cause = str(error)
            else:
                self._version, cause = writing.version, ""
                if writing.sources is sources:  # else newer ones came meanwhile: theirs is the next turn
                    self._newest = None
        if bool(cause) != bool(self.trouble):
            what = "can't be written" if cause else "is written again"
            log.warning(f"the snapshot's copy {what}", extra=fields(file=str(self.file), cause=cause))
        self.trouble = cause
