"""Who holds slots: what workers counted in memory comes here every few seconds, and is read in windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from seawall.store.pool import Row, Store, text_array
from seawall.store.statement import statements

_SQL = statements("usage")

USE_KEPT_S: Final = 86_400.0
SAMPLES_KEPT_S: Final = 3600.0
"""For so long it is kept."""

WINDOW_MIN_S: Final = 60.0
WINDOW_MAX_S: Final = 6 * 3600.0
"""Windows that may be asked for: there is one before it to compare with."""

HOUR_S: Final = 3600.0
LINES_MAX: Final = 100
BY: Final = ("queue", "workflow", "tenant")
REST: Final = ""
"""Stands for all tenants beyond a worker's largest cells."""


class Cell(NamedTuple):
    """Slot time of one queue, workflow and tenant. The order of the fields is the order of the statement's arrays."""

    queue_id: int
    workflow_id: int
    tenant: str
    slot_us: int
    turns: int


class Began(NamedTuple):
    """A run that was drawn when it began for the first time."""

    queue_id: int
    run_id: int
    at_us: int  # the store's clock


class Left(NamedTuple):
    """A run that was drawn when it gave its slot back; if it ended."""

    queue_id: int
    run_id: int


async def add(store: Store, owner: UUID, cells: Sequence[Cell], began: Sequence[Began], left: Sequence[Left]) -> None:
    """Add what a worker counted since it did so last.

    Raises:
        Unavailable: Nothing was added; add it to the next ones.
        Uncertain: It may have been; forget it, or it would count twice.
    """
    async with store.transaction() as session:
        await session.execute(_SQL["index_plans"])
        await session.execute(_SQL["add_usage"], owner, *_columns(cells, 5), *_columns(began, 3), *_columns(left, 2))


def _columns(rows: Sequence[tuple[object, ...]], count: int) -> list[list[object]]:
    columns = [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(count)]
    return [text_array(column) if column and isinstance(column[0], str) else column for column in columns]  # type: ignore[misc]


class UseLine(msgspec.Struct, frozen=True, kw_only=True):
    """Who held slots in a window, and the same thing in an earlier one."""

    name: str  # of the queue, workflow or tenant; "": all tenants beyond the largest
    slots: float  # held on average
    share: float  # of all slot time, 0 to 1
    slot_seconds: float
    turns: int  # times that a run gave its slot back: ended, failed, or put away
    seconds_per_turn: float | None  # null: none did
    then_slots: float
    then_turns: int
    then_seconds_per_turn: float | None
    slower: float | None  # seconds per turn, now to then; null: nothing to compare


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """Who eats the capacity, the largest first."""

    by: str
    window_s: float
    then_s: float  # the window compared with ended so many seconds ago
    items: list[UseLine]


async def top(store: Store, *, by: str, window_s: float, timeout_s: float) -> Use:
    """Slot time of the last ``window_s`` seconds, compared with that of an hour before; where there was none, with that
    of the window before.

    Args:
        by: One of ``BY``.

    Raises:
        Unavailable: The store is away, or takes longer.
    """
    assert by in BY and WINDOW_MIN_S <= window_s <= WINDOW_MAX_S, (by, window_s)
    rows = await store.fetch(_SQL["top"], window_s, by, LINES_MAX, timeout_s=timeout_s)
    hourly = window_s <= HOUR_S and any(row["hour_us"] for row in rows)
    whole_us = sum(int(row["slot_us"] or 0) for row in rows)
    return Use(
        by=by, window_s=window_s, then_s=HOUR_S if hourly else window_s,
        items=[_line(row, "hour" if hourly else "before", window_s, whole_us) for row in rows if row["slot_us"]],
    )  # fmt: skip


def _line(row: Row, then: str, window_s: float, whole_us: int) -> UseLine:
    slot_us, turns = int(row["slot_us"]), int(row["turns"])
    then_us, then_turns = int(row[f"{then}_us"] or 0), int(row[f"{then}_turns"] or 0)
    mean_s, then_mean_s = _mean_s(slot_us, turns), _mean_s(then_us, then_turns)
    return UseLine(
        name=row["name"] if row["name"] is not None else "?", slots=round(slot_us / 1e6 / window_s, 3),
        share=round(slot_us / whole_us, 4), slot_seconds=round(slot_us / 1e6, 3), turns=turns, seconds_per_turn=mean_s,
        then_slots=round(then_us / 1e6 / window_s, 3), then_turns=then_turns, then_seconds_per_turn=then_mean_s,
        slower=round(mean_s / then_mean_s, 2) if mean_s is not None and then_mean_s else None,
    )  # fmt: skip


def _mean_s(slot_us: int, turns: int) -> float | None:
    return round(slot_us / 1e6 / turns, 6) if turns else None
