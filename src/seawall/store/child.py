"""Runs that other runs begin. Which one is meant is said by its event's id, so it begins once."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from seawall.kernel.event import headers_of, id_day
from seawall.kernel.seam.child import Child
from seawall.kernel.status import DAY_SHIFT
from seawall.store.pool import Store, text_array
from seawall.store.statement import statements

_SQL = statements("child")

SOURCE = ":run"
"""Of events by which runs begin others: no source may be called so."""

PARENT = "seawall-parent"
"""Header of such an event: the run that began it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A run that is to be there."""

    event_id: bytes
    workflow: str
    tenant: str
    parent: int
    payload: bytes


async def start(store: Store, wanted: Wanted) -> Child | None:
    """Have it begin, unless it has, and say how it stands; None: its workflow takes no new runs.

    Raises:
        Unavailable, Uncertain: Safe to repeat.

    Durability: committed before return.
    """
    values = (
        UUID(bytes=wanted.event_id), wanted.workflow, *text_array([wanted.tenant, f"run.{wanted.workflow}"]),
        f"{PARENT}\0{wanted.parent}".encode(), wanted.payload, id_day(wanted.event_id) << DAY_SHIFT,
    )  # fmt: skip
    # A second time: another execution, whose lease is gone, may have begun it behind this statement's snapshot.
    row = await store.row(_SQL["start"], *values) or await store.row(_SQL["start"], *values)
    if row is None:
        return None
    return Child(
        run=row["id"], status=row["status"], result=row["result"], error=row["error"],
        began_us=_us(row["created_at"]), now_us=_us(row["now"]),
    )  # fmt: skip


def parent_of(source: str, headers: bytes) -> int | None:
    """The run that began a run, by its event; None: an event from outside did, or a schedule."""
    if source != SOURCE:
        return None
    told = dict(headers_of(headers)).get(PARENT, "")
    return int(told) if told.isascii() and told.isdigit() else None


async def tell_parents(store: Store, run_ids: Collection[int]) -> None:
    """Wake runs that wait for the end of one that they began.

    Raises:
        Unavailable, Uncertain: Safe to repeat.
    """
    await store.fetch(statements("wait")["wake_heard"], [*run_ids])


def _us(moment: datetime | Any) -> int:
    return int(moment.timestamp() * 1_000_000)
