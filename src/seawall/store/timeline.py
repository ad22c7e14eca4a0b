"""A run from its beginning on: queued, steps, waits, its end, and who had it in hand.

Nothing is written for it while a run goes on: a step has the epoch that it was kept under, and takeovers say whose that
was.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import msgspec

from seawall.kernel.placement import shard_of
from seawall.kernel.seam.run import step_parts
from seawall.kernel.status import RunStatus
from seawall.store.pool import Row, Store
from seawall.store.statement import statements

_SQL = statements("timeline")

MOMENTS_MAX: Final = 1000
WAITS_MAX: Final = 100
CONTEXT: Final = "ctx."
"""How the names begin of what the context keeps of itself, unless they were given others."""

LAST_US: Final = 253_402_300_799_000_000


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a run did, or that was done with it."""

    at: datetime
    what: str  # queued, began, step, heartbeat (a step's last one), wait, began again, in hand, or how it ended
    name: str = ""  # of the step or wait
    until: datetime | None = None  # its end; of a wait that isn't over, its deadline
    took_s: float | None = None
    open: bool = False  # it goes on
    attempt: int = 1  # tries of a step
    failed: bool = False
    worker: str = ""  # who had the run in hand: eight digits of what its leases say; "": nobody, or nobody knows


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """A run's moments, in order of time."""

    first_started_at: datetime | None  # null: it hasn't begun, or has kept nothing yet
    moments: tuple[Moment, ...]


class _Rest(msgspec.Struct):
    until_us: int


async def timeline(store: Store, run_id: int, *, timeout_s: float) -> Timeline | None:
    """A run's timeline; None: there is no such run.

    Raises:
        Unavailable: The store is away, or takes longer.
    """
    run = await store.row(_SQL["run"], run_id, timeout_s=timeout_s)
    if run is None:
        return None
    shard = shard_of(run["event_id"].bytes, run["tenant"].encode("utf-8", "replace"), run["shards"] or 1)
    queue_id = run["queue_id"] if run["queue_id"] is not None else run["declared_id"]
    steps = await store.fetch(_SQL["steps"], run_id, queue_id, shard, MOMENTS_MAX, timeout_s=timeout_s)
    waits = await store.fetch(_SQL["waits"], run_id, WAITS_MAX, timeout_s=timeout_s)
    beats = await store.fetch(_SQL["beats"], run_id, WAITS_MAX, timeout_s=timeout_s)
    return _drawn(run, steps, waits, beats)


def _drawn(run: Row, steps: Sequence[Row], waits: Sequence[Row], beats: Sequence[Row]) -> Timeline:
    first: datetime | None = run["began_at"] or run["started_at"] or (steps[0]["started_at"] if steps else None)
    queued = Moment(
        at=run["created_at"], what="queued", until=first, took_s=_took(run["created_at"], first), open=first is None
    )
    found = [queued]
    if first is not None:
        found.append(Moment(at=first, what="began", worker=_worker(steps[0]["owner"]) if steps else ""))
    if run["began_at"] is not None and run["started_at"] is not None and run["started_at"] > run["began_at"]:
        found.append(Moment(at=run["started_at"], what="began again"))
    under_way = run["finished_at"] is None
    found += [*map(_step, steps), *map(_wait, waits), *(_beat(row, under_way=under_way) for row in beats)]
    found.sort(key=lambda moment: moment.at)
    if run["owner"] is not None:
        found.append(Moment(at=found[-1].at, what="in hand", open=True, worker=_worker(run["owner"])))
    if run["finished_at"] is not None:
        found.append(Moment(at=run["finished_at"], what=RunStatus(run["status"]).word))
    return Timeline(first_started_at=first, moments=tuple(found))


def _step(row: Row) -> Moment:
    name = step_parts(row["name"])[0]
    of_context = name.startswith(CONTEXT)
    until = (_slept(row["result"]) if of_context and row["result"] is not None else None) or row["finished_at"]
    return Moment(
        at=row["started_at"], what="wait" if of_context else "step", name=name, until=until,
        took_s=_took(row["started_at"], until), attempt=row["attempt"], failed=row["failed"],
        worker=_worker(row["owner"]),
    )  # fmt: skip


def _wait(row: Row) -> Moment:
    until = None if row["until_us"] is None else _moment(row["until_us"])
    return Moment(at=_moment(row["since_us"]), what="wait", name=step_parts(row["name"])[0], until=until, open=True)


def _beat(row: Row, *, under_way: bool) -> Moment:
    return Moment(at=row["at"], what="heartbeat", name=step_parts(row["name"])[0], open=under_way)


def _slept(result: bytes) -> datetime | None:
    """Until when a sleep is; None: it is none."""
    try:
        return _moment(msgspec.json.decode(result, type=_Rest).until_us)
    except msgspec.MsgspecError:
        return None


def _took(began: datetime, ended: datetime | None) -> float | None:
    return None if ended is None else round((ended - began).total_seconds(), 6)


def _worker(owner: UUID | None) -> str:
    return "" if owner is None else owner.hex[:8]


def _moment(us: int) -> datetime:
    return datetime.fromtimestamp(max(0, min(us, LAST_US)) / 1_000_000, tz=UTC)
