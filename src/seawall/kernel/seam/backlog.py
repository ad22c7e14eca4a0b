"""The backlog seam: what of a collector's own disk still waits to be routed (or forwarded), and how much more fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from seawall.kernel.seam.journal import Position


class Stretch(Protocol):
    """A part of a log that waits."""

    @property
    def at(self) -> Position:
        """Where it begins."""

    @property
    def end(self) -> Position | None:
        """None: it goes on to the log's end."""


class Backlog(Protocol):
    """One log on this collector's disk."""

    @property
    def log_id(self) -> bytes: ...

    async def unread(self) -> Sequence[Stretch]:
        """What waits now. Nobody who looks is told of less than there is.

        Raises:
            Unavailable: It can't be known now.
        """

    async def room_bytes(self) -> int:
        """Bytes that the log may still take, 0 when its disk is full.

        Raises:
            Unavailable: The disk doesn't say.
        """
