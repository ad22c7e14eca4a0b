"""How far a log was forwarded, kept in a small file beside it. Losing it means sending again, which collapses by event
id; so it is written after the fact, and its failing stops nothing."""

from __future__ import annotations

from pathlib import Path

from seawall.kernel.log import fields, logger
from seawall.kernel.seam.filesystem import Filesystem
from seawall.kernel.seam.journal import Position

log = logger("journal")

FILE_NAME = "forwarded"
FILE_BYTES_MAX = 256


class Checkpoint:
    """The position in one log's folder before which everything was forwarded."""

    def __init__(self, folder: Path, filesystem: Filesystem) -> None:
        self._folder = folder
        self._filesystem = filesystem

    def load(self) -> Position | None:
        """As kept; None when there is none, or it can't be read."""
        try:
            file = self._filesystem.open(self._folder / FILE_NAME, writable=False)
            try:
                text = file.read_at(0, FILE_BYTES_MAX).decode("ascii")
            finally:
                file.close()
            log_id, segment, offset, salt, end = text.split(" ")
            if end != "end\n":
                return None
            return Position(bytes.fromhex(log_id), int(segment), int(offset), bytes.fromhex(salt))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("a checkpoint can't be read: all is sent again", extra=fields(cause=str(error)))
            return None

    def keep(self, at: Position) -> bool:
        """Write it; False when the disk didn't take it. In a thread: it syncs.

        Durability: the old one or the new one is there after a crash, whole.
        """
        text = f"{at.log_id.hex()} {at.segment_id} {at.offset_bytes} {at.salt.hex()} end\n"
        draft = self._folder / f"{FILE_NAME}.tmp"
        try:
            if draft.name in self._filesystem.names(self._folder):
                self._filesystem.remove(draft)
            file = self._filesystem.create(draft)
            try:
                file.write_at(0, text.encode("ascii"))
                file.sync_data()
            finally:
                file.close()
            self._filesystem.rename(draft, self._folder / FILE_NAME)
        except OSError as error:
            log.warning("a checkpoint can't be written", extra=fields(cause=str(error)))
            return False
        return True
