"""The snapshot's copy on disk, by which a restart knows every source while the store is away.

``DIR/snapshot`` is MessagePack (version, sources) sealed under DIR/key (store/vault.py). It is replaced by rename, so a
crash leaves the old copy or the new one.
"""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec

from seawall.kernel.seam.filesystem import Filesystem
from seawall.store.source import Loaded
from seawall.store.vault import Vault

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
