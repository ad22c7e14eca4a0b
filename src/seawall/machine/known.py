"""The last known flags on disk, by which a restart while the store is away knows what people have set.

``DIR/flags/ROLE`` is one line ``seawall-flags 1 CRC32``, then JSON. Each role keeps its own and reads those of all: of
each flag the newest version counts, since a role that was down has missed what its neighbours heard. A file is replaced
by rename, so a crash leaves the old copy or the new one; one that is torn all the same says nothing.
"""

from __future__ import annotations

import threading
import zlib
from pathlib import Path

import msgspec

from seawall.guard.flag import Setting
from seawall.guard.switchboard import Known
from seawall.kernel.log import fields, logger
from seawall.kernel.seam.filesystem import Filesystem

log = logger("machine")

HEAD = b"seawall-flags 1 "
COPY_BYTES_MAX = 4 * 1024 * 1024
COPIES_MAX = 64


class _Body(msgspec.Struct, frozen=True):
    """What a copy says."""

    schema: int
    settings: list[Setting]


class KnownFlags:
    """The copies of one data folder. Blocking: call it on a thread.

    Args:
        folder: DIR/flags.
    """

    def __init__(self, folder: Path, role: str, filesystem: Filesystem) -> None:
        self.file = folder / role
        self._filesystem = filesystem
        self._writing = threading.Lock()  # a cancelled write leaves its thread behind for a moment

    def write(self, known: Known) -> None:
        """Replace this role's copy.

        Raises:
            OSError: The old copy is still there.

        Durability: the new copy and its name are on stable storage on return.
        """
        body = msgspec.json.encode(_Body(known.schema, list(known.settings.values())))
        folder, new = self.file.parent, self.file.with_name(f".{self.file.name}.new")
        with self._writing:
            self._filesystem.make_folder(folder)
            if new.name in self._filesystem.names(folder):
                self._filesystem.remove(new)
            file = self._filesystem.create(new)
            try:
                file.write_at(0, HEAD + b"%08x\n" % zlib.crc32(body) + body)
                file.sync_data()
            finally:
                file.close()
            self._filesystem.rename(new, self.file)
            self._filesystem.sync_folder(folder)
            self._filesystem.sync_folder(folder.parent)

    def read(self) -> Known | None:
        """Of all copies, each flag's newest version; None: there is no copy that can be read. Never raises OSError:
        what can't be read is said in the log and left out."""
        found: list[_Body] = []
        try:
            names = self._filesystem.names(self.file.parent)
        except OSError:
            return None  # no folder: nothing was ever kept
        for name in [name for name in names if not name.startswith(".")][:COPIES_MAX]:
            try:
                found.append(self._body(self.file.with_name(name)))
            except (OSError, ValueError) as error:
                log.error("a copy of the flags can't be read", extra=fields(file=name, cause=str(error)))
        if not found:
            return None
        newest: dict[str, Setting] = {}
        for setting in (setting for body in found for setting in body.settings):
            if setting.flag not in newest or setting.version > newest[setting.flag].version:
                newest[setting.flag] = setting
        return Known(settings=newest, schema=max(body.schema for body in found))

    def _body(self, path: Path) -> _Body:
        file = self._filesystem.open(path, writable=False)
        try:
            data = file.read_at(0, COPY_BYTES_MAX + 1)
        finally:
            file.close()
        head, newline, body = data.partition(b"\n")
        if len(data) > COPY_BYTES_MAX or not newline or head != HEAD + b"%08x" % zlib.crc32(body):
            raise ValueError("it is torn, or of another kind")
        return msgspec.json.decode(body, type=_Body)
