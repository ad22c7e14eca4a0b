"""Where the router stands in each log: a small set of ranges, each moved only by compare-and-set.

The compare-and-set alone fences a second router: whoever finds the position moved writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from asyncpg.pgproto.pgproto import UUID

from seawall.kernel.error import Fenced
from seawall.kernel.seam.journal import Position
from seawall.store.pool import Store
from seawall.store.statement import statements

_SQL = statements("router")


@dataclass(frozen=True, slots=True)
class Range:
    """A stretch of one log that is still to be read: from ``at`` up to ``end``."""

    part: int  # a higher one begins later in the log
    at: Position
    end: Position | None  # None: the newest range, which follows the log
    starts: int = 0  # loops that began with it since it last moved

    def place(self) -> tuple[object, int, int, int]:
        """What every compare-and-set compares; that of a batch looks at ``end`` as well."""
        return UUID(self.at.log_id), self.part, self.at.segment_id, self.at.offset_bytes


async def ranges(store: Store, log_id: bytes) -> list[Range]:
    """What is left of a log, oldest first; empty when the log is unknown.

    Raises:
        Unavailable: The store is away.
    """
    rows = await store.fetch(_SQL["ranges"], UUID(log_id))
    return [
        Range(
            row["part"],
            Position(log_id, row["segment"], row["offset"], row["salt"]),
            None if row["end_segment"] is None else Position(log_id, row["end_segment"], row["end_offset"]),
            row["starts"],
        )
        for row in rows
    ]


async def begin(store: Store, at: Position) -> None:
    """Make a log known, to be read from ``at`` on. Harmless when it is known already.

    Raises:
        Unavailable, Uncertain: Safe to repeat.
    """
    await store.execute(_SQL["begin_log"], UUID(at.log_id), at.segment_id, at.offset_bytes, at.salt)


async def begin_anew(store: Store, at: Position, displaced: Callable[[Position], bool]) -> bool:
    """Read a whole log again, from ``at`` on, if what its ranges say isn't true of it; returns whether that was so.

    Args:
        displaced: Whether a position isn't a place in the log. Asked while the ranges are locked, so that the answer is
            about what they say now.

    Raises:
        Unavailable, Uncertain: Read the ranges again.

    Durability: the old ranges are gone and the new one is there on return, or neither.
    """
    async with store.transaction() as session:
        rows = await session.fetch(_SQL["lock_ranges"], UUID(at.log_id))
        if not any(displaced(Position(at.log_id, row["segment"], row["offset"], row["salt"])) for row in rows):
            return False
        await session.execute(_SQL["begin_anew"], UUID(at.log_id), at.segment_id, at.offset_bytes, at.salt)
    return True


async def count_start(store: Store, range: Range) -> int:
    """Note that a loop is about to work on a range; returns how many did since it last moved, this one included.

    Raises:
        Fenced: The range moved or is gone.
        Unavailable, Uncertain: It may have been counted.
    """
    async with store.transaction() as session:
        starts: int | None = await session.value(_SQL["count_start"], *range.place())
    if starts is None:
        raise Fenced(f"part {range.part} of log {range.at.log_id.hex()}")
    return starts


async def clear_starts(store: Store, range: Range) -> None:
    """Say that a failed attempt left its loop alive, so the record at the position is no killer.

    Raises:
        Unavailable, Uncertain: Safe to repeat.
    """
    await store.execute(_SQL["clear_starts"], *range.place())


async def split(store: Store, range: Range, at: Position) -> None:
    """End the newest range at ``at``, beyond its position, and begin a newer one there.

    Raises:
        Fenced: The range moved, or has an end already. Nothing was changed.
        Unavailable, Uncertain: Read the ranges again.

    Durability: both are committed on return, or neither.
    """
    assert range.at < at, "there is nothing to split off"
    async with store.transaction() as session:
        part = await session.value(_SQL["split_range"], *range.place(), at.segment_id, at.offset_bytes, at.salt)
    if part is None:
        raise Fenced(f"part {range.part} of log {range.at.log_id.hex()}")
