"""Runs that are ended in the store, by no flush: what has to be known of one then."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from seawall.store.pool import Row


class Ended(NamedTuple):
    """A run that was ended."""

    id: int
    event_id: UUID
    ticket: bool  # somebody waits for its reply
    kin: bool  # another run may wait for its end

    @classmethod
    def of(cls, row: Row) -> Ended:
        """By the row that the statement gives which ended it."""
        return cls(row["id"], row["event_id"], row["ticket"], row["kin"])
