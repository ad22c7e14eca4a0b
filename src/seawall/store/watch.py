"""What watch reads of the store, and where it keeps what it found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from seawall.store.change import ID_MAX, US_MAX, time_of
from seawall.store.pool import Row, Store, text_array
from seawall.store.statement import statements

_SQL = statements("watch")

WAITING_MAX: Final = 20_000
"""So many waiting runs of a queue are counted."""

NEXT_MAX: Final = 2000
QUEUES_MAX: Final = 1000
LAPSED_MAX: Final = 500
OPEN_MAX: Final = 5000
HISTORY_MAX: Final = 500
KEPT_DAYS: Final = 90
"""Alerts that are over are kept for so long."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A time of some runs: how many, its middle, and what a hundredth of them exceeds."""

    count: int
    p50_s: float
    p99_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueState:
    """One queue as it stands."""

    name: str
    paused: bool
    latency_s: float | None  # None: nobody said
    waiting: int  # at most ``WAITING_MAX``
    oldest_s: float | None
    starts: Drawn | None
    ends: Drawn | None


async def lead(store: Store, owner: UUID, *, ttl_s: float, timeout_s: float) -> bool:
    """Be the one who looks at what all machines share, for ``ttl_s``; False: somebody else is.

    Raises:
        Unavailable, Uncertain: Nothing is known; safe to repeat.
    """
    return bool(await store.value(_SQL["watch_lease"], owner, ttl_s, timeout_s=timeout_s))


async def leave(store: Store, owner: UUID, *, timeout_s: float) -> None:
    """Let somebody else lead at once. Raises Unavailable, Uncertain: they do when it has expired."""
    await store.execute(_SQL["leave_watch"], owner, timeout_s=timeout_s)


async def queues(store: Store, *, window_s: float, timeout_s: float) -> list[QueueState]:
    """All queues, by name.

    Args:
        window_s: Of what was drawn, the newest so many seconds.

    Raises:
        Unavailable: The store is away, or takes longer.
    """
    spreads: dict[tuple[int, bool], Drawn] = {}
    for row in await store.fetch(_SQL["spreads"], window_s, timeout_s=timeout_s):
        p50, p99 = row["ms"]
        spreads[row["queue_id"], row["began"]] = Drawn(row["count"], p50 / 1000, p99 / 1000)
    rows = await store.fetch(_SQL["queues"], WAITING_MAX, NEXT_MAX, QUEUES_MAX, timeout_s=timeout_s)
    return [
        QueueState(
            name=row["name"], paused=row["paused"],
            latency_s=row["latency_ms"] / 1000 if row["latency_ms"] is not None else None, waiting=row["waiting"],
            oldest_s=row["oldest_s"], starts=spreads.get((row["id"], True)), ends=spreads.get((row["id"], False)),
        )
        for row in rows
    ]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Lapsed:
    """A workflow that takes no new runs, since no worker was seen with it for ``store.workflow.FORGET_S``."""

    name: str
    pattern: str  # "": no event begins it
    since: datetime


async def lapsed(store: Store, *, timeout_s: float) -> list[Lapsed]:
    """By name, at most ``LAPSED_MAX``. Not those that an app has left out, nor those that somebody has frozen since.

    Raises:
        Unavailable: The store is away, or takes longer.
    """
    rows = await store.fetch(_SQL["lapsed"], LAPSED_MAX, timeout_s=timeout_s)
    return [Lapsed(name=row["name"], pattern=row["pattern"], since=row["lapsed_at"]) for row in rows]


class AlertRow(msgspec.Struct, frozen=True, kw_only=True):
    """An alert that was raised, and may be over."""

    machine: str
    role: str
    name: str
    labels: dict[str, str]
    summary: str
    unaffected: str
    cure: str
    raised_at: datetime
    cleared_at: datetime | None  # null: it isn't over


async def open_alerts(store: Store, machine: str, *, timeout_s: float) -> list[AlertRow]:
    """What a machine had raised and not cleared, the oldest first; at most ``OPEN_MAX``.

    Raises:
        Unavailable: The store is away.
    """
    rows = await store.fetch(_SQL["open_alerts"], machine, OPEN_MAX, timeout_s=timeout_s)
    return [_alert(row, machine, None) for row in rows]


async def keep(store: Store, row: AlertRow, *, timeout_s: float) -> None:
    """Write that an alert was raised, or, with ``cleared_at``, that it is over. Safe to repeat.

    Raises:
        Unavailable, Uncertain: Repeat it.

    Durability: committed before return.
    """
    texts = text_array([row.machine, row.role, row.name, labels_text(row.labels)])
    if row.cleared_at is not None:
        await store.execute(_SQL["clear_alert"], *texts, row.cleared_at, timeout_s=timeout_s)
        return
    said = text_array([row.summary, row.unaffected, row.cure])
    await store.execute(_SQL["raise_alert"], *texts, *said, row.raised_at, timeout_s=timeout_s)


async def history(store: Store, *, since_us: int, limit: int, timeout_s: float) -> list[AlertRow]:
    """Alerts that were raised since, the newest first; at most ``HISTORY_MAX``.

    Raises:
        Unavailable: The store is away, or takes longer.
    """
    values = (time_of(since_us), time_of(US_MAX), ID_MAX, min(limit, HISTORY_MAX))
    rows = await store.fetch(_SQL["page_alerts"], *values, timeout_s=timeout_s)
    return [_alert(row, row["machine"], row["cleared_at"]) for row in rows]


async def prune(store: Store, *, now: datetime, rows_max: int) -> int:
    """Forget what has been over for long; how many."""
    return await store.execute(_SQL["prune_alerts"], now - timedelta(days=KEPT_DAYS), rows_max)


def labels_text(labels: Mapping[str, str]) -> str:
    """Labels as one text, the same for the same labels."""
    return msgspec.json.encode(dict(sorted(labels.items()))).decode()


def _alert(row: Row, machine: str, cleared_at: datetime | None) -> AlertRow:
    return AlertRow(
        machine=machine, role=row["role"], name=row["name"],
        labels=msgspec.json.decode(row["labels"], type=dict[str, str]), summary=row["summary"],
        unaffected=row["unaffected"], cure=row["cure"], raised_at=row["raised_at"], cleared_at=cleared_at,
    )  # fmt: skip


def key_of(row: AlertRow) -> tuple[str, str, str]:
    """What tells an open alert of one machine from another."""
    return row.role, row.name, labels_text(row.labels)
