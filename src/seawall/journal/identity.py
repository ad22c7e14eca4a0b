"""A log's own name: 16 random bytes, made with its folder and never changed: so a position names one event only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from seawall.journal.frame import HEADER_BYTES, decode_header
from seawall.journal.segment import segment_ids, segment_path
from seawall.kernel.error import Corrupt
from seawall.kernel.log import fields, logger
from seawall.kernel.seam.filesystem import Filesystem

log = logger("journal")

ID_NAME = "log.id"


def read_log_id(folder: Path, filesystem: Filesystem) -> bytes | None:
    """The id of the log in ``folder``; None when there is none.

    Raises:
        Corrupt: The file is there and no id is in it.
    """
    if ID_NAME not in filesystem.names(folder):
        return None
    file = filesystem.open(folder / ID_NAME, writable=False)
    try:
        text = file.read_at(0, 64)
    finally:
        file.close()
    try:
        return _parse_id(text)
    except ValueError as error:
        raise Corrupt(str(folder / ID_NAME), "it must hold 32 hexadecimal digits") from error


def claim_log_id(folder: Path, filesystem: Filesystem, entropy: Callable[[int], bytes]) -> bytes:
    """The id of the log in ``folder``; made, with the folder, when there is no log yet.

    Durability: on return, the id and the names that lead to it are on stable storage.
    """
    filesystem.make_folder(folder)
    filesystem.sync_folder(folder.parent)
    filesystem.sync_folder(folder.parent.parent)
    found = read_log_id(folder, filesystem)
    if found is not None:
        return found
    log_id = _id_of_segments(folder, filesystem) or entropy(16)
    temporary = folder / f"{ID_NAME}.tmp"
    if temporary.name in filesystem.names(folder):
        filesystem.remove(temporary)
    file = filesystem.create(temporary)
    try:
        file.write_at(0, log_id.hex().encode() + b"\n")
        file.sync_data()
    finally:
        file.close()
    filesystem.rename(temporary, folder / ID_NAME)
    filesystem.sync_folder(folder)
    return log_id


def _id_of_segments(folder: Path, filesystem: Filesystem) -> bytes | None:
    """What the segments say when the id's file is gone; None when there is no segment."""
    ids = segment_ids(filesystem, folder)
    said: set[bytes] = set()
    for id in ids:
        file = filesystem.open(segment_path(folder, id), writable=False)
        try:
            header = decode_header(file.read_at(0, HEADER_BYTES))
        finally:
            file.close()
        if header is not None:
            said.add(header.log_id)
    if ids and len(said) != 1:
        raise Corrupt(str(folder), f"{ID_NAME} is missing, and its segments name {len(said)} logs instead of one")
    if ids:
        log.error("the log's id was missing; taken from its segments", extra=fields(folder=str(folder)))
    return said.pop() if said else None


def _parse_id(text: bytes) -> bytes:
    log_id = bytes.fromhex(text.decode("ascii").strip())
    if len(log_id) != 16:
        raise ValueError("an id has 16 bytes")
    return log_id
