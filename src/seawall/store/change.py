"""The timeline in the store: what was changed, by whom, from what to what (kernel/seam/change.py)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from seawall.kernel.clock import Clock
from seawall.kernel.seam.change import Change, Kind, tidy
from seawall.store.pool import Row, Session, Settings, Store
from seawall.store.statement import statements

_SQL = statements("change")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

MERGE_MAX = 200
"""Changes in one transaction."""

PAGE_MAX = 500
ID_MAX = 2**63 - 1
US_MAX = 253_402_300_799_999_999
"""The last microsecond of the year 9999."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A change as the store has it."""

    id: int
    key: bytes
    at: datetime
    kind: str  # a word of ``Kind``, or one of a newer Seawall
    what: str
    by: str
    before: str | None
    after: str | None
    why: str

    @property
    def at_us(self) -> int:
        return us_of(self.at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Which part of the timeline."""

    since_us: int = 0
    before: tuple[int, int] = (US_MAX, ID_MAX)  # (time, id): only what is older
    kind: Kind | None = None
    what: str = ""  # only with a kind; "": any
    limit: int = PAGE_MAX


@dataclass(frozen=True, slots=True)
class Author:
    """Who changes something, when a change is made out of what they ask."""

    by: str
    clock: Clock
    why: str = ""

    def change(self, kind: Kind, what: str, before: str | None, after: str | None) -> Change:
        """A change that they make now."""
        return Change(
            key=os.urandom(16), at_us=self.clock.wall_us(), kind=kind, what=what, by=self.by, before=before,
            after=after, why=self.why,
        )  # fmt: skip


async def record(session: Session, change: Change) -> None:
    """Record a change in the transaction that makes it. Recording it twice keeps it once."""
    change = tidy(change)
    await session.execute(
        _SQL["insert_change"], UUID(bytes=change.key), time_of(change.at_us), change.kind.value, change.what, change.by,
        change.before, change.after, change.why,
    )  # fmt: skip


async def merge(store: Store, changes: Sequence[Change], *, timeout_s: float) -> None:
    """Bring changes that were noted elsewhere into the store, at most ``MERGE_MAX``. May be repeated.

    Raises:
        Unavailable, Uncertain: The store is away, or its schema is older than the timeline.

    Durability: on return all of them are in the store.
    """
    assert len(changes) <= MERGE_MAX, len(changes)
    async with store.transaction(timeout_s=timeout_s) as session:
        for change in changes:
            await record(session, change)


async def bring(settings: Settings, changes: Sequence[Change], *, timeout_s: float) -> None:
    """As ``merge``, over a connection of its own: they come seldom, and keep none open meanwhile."""
    bounded = replace(settings, connections_max=1, connect_timeout_s=min(timeout_s, settings.connect_timeout_s))
    async with Store(bounded, role="changes") as store:
        await merge(store, changes, timeout_s=timeout_s)


async def page(store: Store, asked: Asked, *, timeout_s: float) -> list[Recorded]:
    """A page of the timeline, newest first; at most ``PAGE_MAX``."""
    at_us, id = asked.before
    values = (time_of(asked.since_us), time_of(at_us), id, min(asked.limit, PAGE_MAX))
    if asked.kind is None:
        rows = await store.fetch(_SQL["page_changes"], *values, timeout_s=timeout_s)
    else:
        rows = await store.fetch(
            _SQL["page_changes_of"], *values, asked.kind.value, asked.what, timeout_s=timeout_s
        )  # fmt: skip
    return [_recorded(row) for row in rows]


async def is_recording(session: Session) -> bool:
    """Whether the schema has a timeline yet."""
    return bool(await session.value(_SQL["is_recording"]))


def us_of(at: datetime) -> int:
    """Microseconds since 1970, exactly."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def time_of(us: int) -> datetime:
    """The moment; one that no store keeps becomes the nearest that it does."""
    return _EPOCH + timedelta(microseconds=min(max(us, 0), US_MAX))


def _recorded(row: Row) -> Recorded:
    return Recorded(
        id=row["id"], key=row["key"].bytes, at=row["at"], kind=row["kind"], what=row["what"], by=row["by"],
        before=row["before"], after=row["after"], why=row["why"],
    )  # fmt: skip
