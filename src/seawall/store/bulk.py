"""Acts on many runs at once: which runs is fixed in one transaction, and done piece by piece in many.

A piece is one transaction, with how far it has come in it: whoever goes on after a crash begins where the last commit
was. No piece waits for a row that a worker is flushing; it is put off, and looked at again when all others are through.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Final
from uuid import UUID

import msgspec

from seawall.kernel.cause import word_of
from seawall.kernel.error import Rejected
from seawall.kernel.seam.change import Kind
from seawall.kernel.selection import ENDED, UNFINISHED, Selection
from seawall.kernel.status import EventStatus, RunStatus
from seawall.store.change import Author, record
from seawall.store.narrow import queue_ids, texts, workflow_ids
from seawall.store.pool import Row, Store
from seawall.store.statement import statements

_SQL = statements("bulk")

RUNS_MAX: Final = 2_000_000
"""Runs of one bulk."""

OPEN_MAX: Final = 20
"""Bulks that may be under way."""

GROUPS_MAX: Final = 200
UNDO_S: Final = 86_400.0
KEEP_S: Final = 90 * 86_400.0


class Act(Enum):
    """What is done to runs."""

    HOLD = "hold"
    RELEASE = "release"
    CANCEL = "cancel"
    RETRY = "retry"

    @property
    def states(self) -> frozenset[RunStatus]:
        """Of runs that it can be done to."""
        return _STATES[self]


_STATES: Final[Mapping[Act, frozenset[RunStatus]]] = {
    Act.HOLD: UNFINISHED - {RunStatus.HELD, RunStatus.CANCELLING},
    Act.CANCEL: UNFINISHED - {RunStatus.CANCELLING},
    Act.RELEASE: frozenset({RunStatus.HELD}),
    Act.RETRY: frozenset({RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.DEAD}),
}
_UNDO: Final[Mapping[Act, Act]] = {
    Act.HOLD: Act.RELEASE,
    Act.RELEASE: Act.HOLD,
    Act.CANCEL: Act.RETRY,
}


class RunGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Runs that are alike."""

    workflow: str
    version: str
    queue: str
    status: str
    cause: str | None
    count: int


class EventGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Events that are alike."""

    source: str
    type: str
    day: str  # on which they were accepted, UTC
    status: str
    cause: str | None
    count: int


class BulkLine(msgspec.Struct, frozen=True, kw_only=True):
    """One bulk, and how far it has come."""

    id: str
    act: str
    where: str
    by: str
    why: str
    state: str  # working, done
    chosen: int
    done: int
    missed: int  # had ended, or stood elsewhere, when their turn came
    at: datetime
    ended_at: datetime | None
    undoes: str | None
    undone_by: str | None
    undo_until: datetime | None  # null: it can't be undone, or not any more


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A bulk to make."""

    act: Act
    narrow: Selection  # its states are said
    text: str  # as it was written
    expected: int


async def counts(store: Store, narrow: Selection, *, timeout_s: float) -> tuple[int, list[Row]]:
    """How many runs are meant, and the largest groups of them, at most GROUPS_MAX.

    Raises:
        Unavailable: The store is away, or it takes longer: narrow it.
    """
    values = await _values(store, narrow, timeout_s=timeout_s)
    async with store.transaction(timeout_s=timeout_s) as session:
        rows = await session.fetch(f"{_SQL['meant']}\n{_SQL['counts']}", *values, GROUPS_MAX)
    return rows[0]["total"] if rows else 0, rows


async def event_counts(
    store: Store, narrow: Selection, *, timeout_s: float, sent: bool = False
) -> tuple[int, list[Row]]:  # fmt: skip
    """The same of events; ``sent``: without those that Seawall made itself."""
    async with store.transaction(timeout_s=timeout_s) as session:
        rows = await session.fetch(_SQL["event_counts"], *event_values(narrow), GROUPS_MAX, sent)
    return rows[0]["total"] if rows else 0, rows


def event_values(narrow: Selection) -> list[object]:
    """A selection of events as parameters: sources, types, tenants, states, causes, first id, id behind the last."""
    return [
        texts(narrow.source), narrow.likes, texts(narrow.tenant), narrow.statuses, narrow.cause_numbers,
        *(UUID(bytes=id) for id in narrow.event_ids),
    ]  # fmt: skip


async def make(store: Store, wish: Wish, author: Author, *, timeout_s: float) -> int:
    """Fix which runs are meant, and have it done to them; returns the bulk's id.

    Raises:
        Rejected: 412: they are not as many as was expected; 409: too many bulks are under way. Nothing was done.
        Unavailable: Nothing was done.
        Uncertain: It may be under way: look before you repeat it.

    Durability: which runs are meant is committed before return.
    """
    values = await _values(store, wish.narrow, timeout_s=timeout_s)
    async with store.transaction(timeout_s=timeout_s) as session:
        if await session.value(_SQL["open_count"]) >= OPEN_MAX:
            raise Rejected(409, "Too many bulks", f"{OPEN_MAX} are under way; see seawall bulk list")
        id: int = await session.value(_SQL["make"], wish.act.value, wish.text, author.by, author.why)
        count: int = await session.value(f"{_SQL['meant']}\n{_SQL['choose']}", *values, id, RUNS_MAX + 1)
        if count > RUNS_MAX:
            raise Rejected(412, "Too many runs", f"more than {RUNS_MAX}; narrow it, and do it in parts")
        if count != wish.expected:
            raise Rejected(
                412, "Another count", f"there are {count} runs now, not {wish.expected}; nothing was done"
            )  # fmt: skip
        await session.execute(_SQL["chosen"], id, count)
        change = author.change(Kind.BULK, str(id), None, f"{wish.act.value} {count} runs: {wish.text}")
        await record(session, change)
    return id


async def undo(store: Store, id: int, author: Author, *, timeout_s: float) -> int:
    """Undo what a bulk has done, by a bulk of its own; returns the id of that one.

    Raises:
        Rejected: 404 or 409, with the reason. Nothing was done.
        Unavailable, Uncertain: As make.
    """
    found = await one(store, id, timeout_s=timeout_s)
    if found is None:
        raise Rejected(404, "No such bulk", "seawall bulk list shows them")
    act = _UNDO.get(Act(found.act))
    if act is None or found.undoes is not None:
        raise Rejected(
            409, "Not undoable", f"a {found.act} can't be undone: {_WHY_NOT.get(found.act, 'hold or release')}"
        )
    async with store.transaction(timeout_s=timeout_s) as session:
        row = await session.row(_SQL["undo"], id, act.value, author.by, author.why, UNDO_S)
        if row is None:
            what = "it isn't over yet, was undone already, or ended more than a day ago"
            raise Rejected(409, "Not undoable", what)
        await session.execute(_SQL["chosen"], row["id"], row["count"])
        await record(
            session, author.change(Kind.BULK, str(row["id"]), None, f"{act.value} {row['count']} runs: undoes {id}")
        )
    return int(row["id"])


_WHY_NOT: Final = {
    "retry": "its runs may have begun; hold or cancel those that haven't",
}


async def page(store: Store, *, before: int, limit: int, timeout_s: float) -> list[BulkLine]:
    """Bulks, newest first. Raises Unavailable."""
    return [_line(row) for row in await store.fetch(_SQL["page"], before, limit, timeout_s=timeout_s)]


async def one(store: Store, id: int, *, timeout_s: float) -> BulkLine | None:
    """One bulk; None: there is none. Raises Unavailable."""
    row = await store.row(_SQL["one"], id, timeout_s=timeout_s)
    return None if row is None else _line(row)


async def _values(store: Store, narrow: Selection, *, timeout_s: float) -> list[object]:
    """In the order of statement ``meant``."""
    assert narrow.states is not None, "whoever selects runs here says of which states"
    return [
        narrow.statuses, await workflow_ids(store, narrow, timeout_s=timeout_s),
        await queue_ids(store, narrow.queue, timeout_s=timeout_s), texts(narrow.tenant), texts(narrow.source),
        narrow.likes, narrow.cause_numbers, *(UUID(bytes=id) for id in narrow.event_ids), *narrow.run_ids,
        bool(narrow.states & UNFINISHED), bool(narrow.states & ENDED),
    ]  # fmt: skip


def group_of(row: Row) -> RunGroup:
    """A row of ``counts``."""
    return RunGroup(
        workflow=row["workflow"] or "", version=row["version"] or "", queue=row["queue"] or "",
        status=RunStatus(row["status"]).word, cause=word_of(row["cause"]), count=row["count"],
    )  # fmt: skip


def event_group_of(row: Row) -> EventGroup:
    """A row of ``event_counts``."""
    return EventGroup(
        source=row["source"], type=row["type"], day=row["day"], status=EventStatus(row["status"]).name.lower(),
        cause=word_of(row["cause"]), count=row["count"],
    )  # fmt: skip


def _line(row: Row) -> BulkLine:
    act = Act(row["act"])
    undoable = act in _UNDO and row["undoes"] is None and row["undone_by"] is None and row["ended_at"] is not None
    return BulkLine(
        id=str(row["id"]), act=row["act"], where=row["selection"], by=row["by"], why=row["why"],
        state="working" if row["ended_at"] is None else "done", chosen=row["chosen"], done=row["done"],
        missed=row["missed"], at=row["at"], ended_at=row["ended_at"],
        undoes=None if row["undoes"] is None else str(row["undoes"]),
        undone_by=None if row["undone_by"] is None else str(row["undone_by"]),
        undo_until=row["ended_at"] + timedelta(seconds=UNDO_S) if undoable else None,
    )  # fmt: skip
