"""Holds a data folder's logs together while a dump of the store takes its time.

The router deletes segments some time after they were routed, and a dump may take longer than that. What the dump says
is still to be routed, and all that came later, must be in the backup: so the segments are opened before the dump
begins, and new ones while it lasts. So are those of spooled logs, which are deleted once Kafka has them. An open file
outlives its name, needs no space of its own, and leaves nothing behind when we are killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from seawall.journal import discover
from seawall.journal.identity import read_log_id
from seawall.journal.segment import segment_ids, segment_path
from seawall.kernel.error import Unavailable
from seawall.kernel.seam.filesystem import File, Filesystem
from seawall.kernel.seam.journal import Position

LOOK_S = 0.5
"""How often new segments are looked for; a segment lives for `router.journal_keep_s` at least, a second or more."""


@dataclass(slots=True)
class HeldLog:
    """One log's open segments."""

    folder: Path
    log_id: bytes
    files: dict[int, File] = field(default_factory=dict)
    first_seen: int = 0  # the newest segment at the first look; later ones were watched from their beginning

    def uncovered(self, at: Position) -> list[int]:
        """Segments that whoever reads on from ``at`` would miss, though they were there after we began to look. What
        was missing before is the log's own damage, which a backup can't heal, and the router passes."""
        newest = max(self.files, default=0)
        return [id for id in range(max(at.segment_id, self.first_seen + 1), newest) if id not in self.files]


class Hold:
    """All logs below some folders, held until ``close``."""

    def __init__(self, folders: Sequence[Path], filesystem: Filesystem) -> None:
        self._folders = folders
        self._filesystem = filesystem
        self.logs: dict[Path, HeldLog] = {}

    def look(self) -> None:
        """Open what isn't held yet.

        Raises:
            Unavailable: So many files can't be open at once.
            Corrupt: A log's id can't be read.
            OSError: The disk failed.
        """
        for folder in [log for each in self._folders for log in discover(each)]:
            log = self.logs.get(folder)
            if log is None:
                log_id = read_log_id(folder, self._filesystem)
                if log_id is None:
                    continue
                log = self.logs[folder] = HeldLog(folder, log_id)
            self._open(log)

    def close(self) -> None:
        """Let go of all of them. Harmless when called twice."""
        for log in self.logs.values():
            for file in log.files.values():
                file.close()
            log.files.clear()

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Inside, new segments are held as they come."""
        await asyncio.to_thread(self.look)
        watch = asyncio.create_task(self._watch(), name="backup.hold")
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.wait([watch])
        if not watch.cancelled():
            watch.result()
        await asyncio.to_thread(self.look)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            await asyncio.to_thread(self.look)

    def _open(self, log: HeldLog) -> None:
        # The newest again: a blank one that a crash left is made anew under the same number.
        newest = max(log.files, default=0)
        for id in segment_ids(self._filesystem, log.folder):
            if id in log.files and id != newest:
                continue
            try:
                file = self._filesystem.open(segment_path(log.folder, id), writable=False)
            except FileNotFoundError:
                continue  # forgotten between the two: it was routed long before, and the dump isn't begun yet
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    raise
                held = sum(len(other.files) for other in self.logs.values())
                raise Unavailable(
                    "open files", f"{held} segments of the journal are held open, and more aren't allowed: "
                    "raise `ulimit -n`, or let the router work its backlog off first",
                ) from error  # fmt: skip
            if id in log.files:
                log.files[id].close()
            log.files[id] = file
        if not log.first_seen:
            log.first_seen = max(log.files, default=0)
