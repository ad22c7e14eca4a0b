"""Runs that other runs begin. Which one is meant is said by its event's id, so it begins once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from seawall.kernel.cause import Cause
from seawall.kernel.error import Fenced
from seawall.kernel.event import headers_of, id_day
from seawall.kernel.placement import AHEAD, STEP, Turns
from seawall.kernel.seam.child import Child
from seawall.kernel.status import DAY_SHIFT
from seawall.store.lease import Lease
from seawall.store.pool import Row, Store, text_array
from seawall.store.statement import statements
from seawall.store.wait import places

_SQL = statements("child")
_WAKE = statements("wait")["wake_heard"]

SOURCE = ":run"
"""Of events by which runs begin others: no source may be called so."""

PARENT, NESTING = "seawall-parent", "seawall-nesting"
"""Headers of such an event: the run that began it, and how deep it is nested; 1: an event from outside began that."""

TOLD_MAX: Final = 1000
"""Runs that one statement wakes."""

CHAIN_MAX: Final = 20
"""Names that an error about nesting says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A run that is to be there."""

    event_id: bytes
    other_id: bytes  # its event's in place of that, when the run of another parent has it
    workflow: str
    tenant: str
    parent: int
    lease: Lease  # under which that one is in hand
    nesting: int  # its own, from 1
    payload: bytes
    turn: int  # how many turns it waits behind its queue's clock, from 1
    with_parent: bool  # it is to be cancelled when its parent ends before it


async def start(store: Store, wanted: Wanted) -> Child | None:
    """Have it begin, unless it has, and say how it stands; None: its workflow takes no new runs.

    Raises:
        Fenced: The lease is gone: whoever has the parent now begins it. Nothing was written.
        Unavailable, Uncertain: Safe to repeat.

    Durability: committed before return.
    """
    parent = f"{PARENT}\0{wanted.parent}\0".encode()
    headers = parent + f"{NESTING}\0{wanted.nesting}".encode()
    values = (
        UUID(bytes=wanted.event_id), wanted.workflow, *text_array([wanted.tenant, f"run.{wanted.workflow}"]),
        headers, wanted.payload, id_day(wanted.event_id) << DAY_SHIFT, wanted.parent if wanted.with_parent else None,
        *wanted.lease, UUID(bytes=wanted.other_id), parent, wanted.turn, STEP, AHEAD,
    )  # fmt: skip
    # A second time: another execution, whose lease is gone, may have begun it behind this statement's snapshot.
    row = await _standing(store, wanted, values) or await _standing(store, wanted, values)
    if row is None:
        return None
    if row["cause"] == Cause.PARENT_ENDED and await store.execute(
        _SQL["revive"], row["id"], wanted.parent, STEP, AHEAD
    ):  # fmt: skip
        row = await _standing(store, wanted, values) or row
    return Child(
        run=row["id"], status=row["status"], result=row["result"], error=row["error"],
        began_us=_us(row["created_at"]), now_us=_us(row["now"]),
    )  # fmt: skip


async def standing(store: Store, parent: int, *, most: int) -> dict[UUID, Child]:
    """Runs that a run has begun, that end with it and haven't ended, by their events; at most so many.

    Raises:
        Unavailable: Safe to repeat.
    """
    rows = await store.fetch(_SQL["standing"], parent, most)
    return {
        UUID(str(row["event_id"])): Child(
            run=row["id"], status=row["status"], began_us=_us(row["created_at"]), now_us=_us(row["now"])
        )
        for row in rows
    }


async def _standing(store: Store, wanted: Wanted, values: Sequence[object]) -> Row | None:
    row = await store.row(_SQL["start"], *values)
    assert row is not None
    if not row["held"]:
        raise Fenced(f"run {wanted.parent}")
    return None if row["id"] is None else row


def parent_of(source: str, headers: bytes) -> int | None:
    """The run that began a run, by its event; None: an event from outside did, or a schedule."""
    return _number(source, headers, PARENT)


def nesting_of(source: str, headers: bytes) -> int:
    """How deep a run is nested, by its event; 0: an event from outside began it, or a schedule."""
    return _number(source, headers, NESTING) or int(source == SOURCE)


def _number(source: str, headers: bytes, name: str) -> int | None:
    if source != SOURCE:
        return None
    told = dict(headers_of(headers)).get(name, "")
    return int(told) if told.isascii() and told.isdigit() else None


async def chain(store: Store, run_id: int) -> list[str]:
    """A run and those that it was begun by, the first one first, at most CHAIN_MAX: workflow and number of each.

    Raises:
        Unavailable: Safe to repeat.
    """
    found: list[str] = []
    here: int | None = run_id
    while here is not None and len(found) < CHAIN_MAX:
        row = await store.row(_SQL["ancestor"], here)
        if row is None:
            break
        found.insert(0, f"{row['name']} ({here})")
        here = None if row["headers"] is None else parent_of(row["source"], row["headers"])
    return found


async def tell_parents(
    store: Store, run_ids: Collection[int], *, turns: Turns | None = None, timeout_s: float | None = None
) -> None:
    """Wake runs that wait for the end of one that they began, some at a time: a statement's time is bounded.

    Args:
        turns: Of those that were woken before: they go behind them.

    Raises:
        Unavailable, Uncertain: Safe to repeat.
    """
    ids, turns = sorted(run_ids), turns or Turns()
    for start in range(0, len(ids), TOLD_MAX):
        part = ids[start : start + TOLD_MAX]
        rows = await store.fetch(_WAKE, part, STEP, AHEAD, *turns.columns(), timeout_s=timeout_s)
        turns.saw(places(rows))


async def who_began(store: Store, event_ids: Collection[UUID], *, timeout_s: float | None = None) -> set[int]:
    """Runs that may wait for those which began by these events, and have ended.

    Raises:
        Unavailable: Safe to repeat.
    """
    rows = await store.fetch(_SQL["parents"], [*event_ids], timeout_s=timeout_s)
    return {parent for row in rows if (parent := parent_of(row["source"], row["headers"])) is not None}


def _us(moment: datetime | Any) -> int:
    return int(moment.timestamp() * 1_000_000)
