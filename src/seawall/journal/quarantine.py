"""Keeps a copy of bytes that aren't frames, for a person to look at."""

from __future__ import annotations

from pathlib import Path

from seawall.journal.segment import read_around, segment_path
from seawall.kernel.seam.filesystem import Filesystem

_COPY_BYTES = 1024 * 1024


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
