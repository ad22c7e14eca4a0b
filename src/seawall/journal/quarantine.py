"""Keeps a copy of bytes that aren't frames, for a person to look at."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from seawall.journal.segment import read_around, segment_path
from seawall.kernel.log import fields, logger
from seawall.kernel.seam.filesystem import Filesystem
from seawall.kernel.seam.journal import Damage

log = logger("journal")

_COPY_BYTES = 1024 * 1024
KEPT_MAX = 1000
"""Damaged ranges that one reader copies aside: a bound, not a number that is ever met."""


class Quarantine:
    """What one reader of a log found damaged, each range once: its segment will be deleted when it was read."""

    def __init__(self, folder: Path, filesystem: Filesystem) -> None:
        self._folder = folder
        self._filesystem = filesystem
        self._kept: set[Damage] = set()

    def keep(self, found: Iterable[Damage]) -> None:
        """Copy them aside. Without success they are still in their segment, for as long as that stays."""
        for damage in found:
            if damage in self._kept or damage.end_bytes == damage.start_bytes or len(self._kept) >= KEPT_MAX:
                continue
            self._kept.add(damage)
            try:
                quarantine(
                    self._filesystem, self._folder, damage.segment_id, damage.start_bytes, damage.end_bytes, "bad"
                )
            except OSError as error:
                said = fields(journal=self._folder.name, cause=str(error))
                log.warning("damaged bytes can't be copied", extra=said)


def quarantine(filesystem: Filesystem, folder: Path, segment_id: int, start: int, end: int, suffix: str) -> None:
    """Copy a range of a segment to ``<segment>.<start>.<suffix>``, durably, unless a copy is there already.

    Raises:
        OSError: The disk failed, or is full. The range is still in its place.
    """
    name = f"{segment_path(folder, segment_id).stem}.{start}.{suffix}"
    names = filesystem.names(folder)
    if name in names:
        return
    if f"{name}.tmp" in names:
        filesystem.remove(folder / f"{name}.tmp")
    source = filesystem.open(segment_path(folder, segment_id), writable=False)
    try:
        copy = filesystem.create(folder / f"{name}.tmp")
        try:
            for at in range(start, end, _COPY_BYTES):
                copy.write_at(at - start, read_around(source, at, min(_COPY_BYTES, end - at)))
            copy.sync_data()
        finally:
            copy.close()
    finally:
        source.close()
    filesystem.rename(folder / f"{name}.tmp", folder / name)
    filesystem.sync_folder(folder)
