"""Runs as a worker meets them: what is ready is read, what waits is woken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from seawall.kernel.placement import AHEAD, STEP, Turns
from seawall.store.flush import numbers
from seawall.store.lease import Lease
from seawall.store.pool import Row, Session, Store
from seawall.store.statement import statements

BEGIN = (-(1 << 63), -(1 << 63))
"""Before the smallest (virtual time, id)."""

END = ((1 << 63) - 1, (1 << 63) - 1)
"""Not before the largest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What one refill may take of one shard."""

    lease: Lease
    number: int  # of the refill row, never used before under this lease
    after: tuple[int, int]  # (virtual time, id) of the last run that was read
    most: int  # runs of the shard
    kept: int  # runs of its queue, in all shards that are named together, in slots of its own
    room: int  # runs of its queue altogether
    until: tuple[int, int] = END  # (virtual time, id) of the last run that may be read


class Ready(NamedTuple):
    """A run that may be started, with its event; in the order of the statement's columns."""

    queue_id: int
    shard: int
    id: int
    event_id: UUID
    workflow_id: int
    attempt: int  # failed attempts so far
    ticket: bool  # somebody waits for the reply
    vt: int
    known: bool  # False: this worker doesn't have its workflow, and what follows is empty
    found: bool  # False: its event is gone, and what follows is empty
    type: str
    source: str
    tenant: str
    received_at: datetime
    headers: bytes
    body: bytes
    waits: int  # how often it was put away to wait
    wakes: int  # how often it was woken by what it waited for
    now_us: int  # the store's clock, when this was read


async def prepare(session: Session) -> None:
    """Make a connection's plans independent of tables and arrays; once for each connection."""
    await session.always(statements("worker")["steady_plans"])


async def refill(
    session: Session,
    wishes: Sequence[Wish],
    *,
    known: Sequence[int],
    keyed: Sequence[int] = (),
    without: Sequence[int],
    shared: int,
    bytes_max: int,
) -> list[Ready]:
    """Read what is ready, with its events, and commit one refill row for each shard that gave a run.

    Args:
        known: Ids of workflows that this worker has. Other rows come with ``known`` false and no event.
        keyed: Those of them whose runs must have been let in by their keys; runs without keys come like others.
        without: Ids of runs that are in hand already; needed when a wish reads before its shard's last run.
        shared: Runs of all queues together, beyond those in slots of their own.
        bytes_max: Bodies altogether; exceeded by one body at most.

    Returns:
        Runs in order of (vt, id); none of a shard whose lease is gone.

    Raises:
        Unavailable: Nothing was committed.
        Uncertain: The refill rows may have been; their numbers must not be used again, and have to be cleared.

    Durability: the refill rows are committed before return.
    """
    leases = [w.lease for w in wishes]
    rows = await session.fetch(
        statements("worker")["refill"],
        [x.queue_id for x in leases],
        [x.shard for x in leases],
        [x.epoch for x in leases],
        [w.number for w in wishes],
        [w.after[0] for w in wishes],
        [w.after[1] for w in wishes],
        numbers(without),
        known,
        [w.most for w in wishes],
        bytes_max,
        [w.kept for w in wishes],
        [w.room for w in wishes],
        shared,
        keyed,
        [w.until[0] for w in wishes],
        [w.until[1] for w in wishes],
    )
    return list(map(Ready._make, rows))


async def memos(session: Session, run_ids: Sequence[int]) -> list[Row]:
    """Steps that are kept of these runs: run_id, name, nth, result, failed. Then, without a result, waits."""
    return await session.fetch(statements("worker")["memos"], run_ids)


class Woken(NamedTuple):
    """Runs of one tenant in one queue that were woken together; in the order of the statement's columns."""

    queue_id: int
    tenant: str
    runs: int
    last: int  # virtual time of the last of them, without its priority
    now: int  # the queue's clock


async def wake(store: Store, queue_ids: Sequence[int], *, runs_max: int, turns: Turns) -> list[Woken]:
    """Make runs ready whose time has come, at most ``runs_max`` of each queue.

    Args:
        turns: Of those that were woken before: they go behind them.

    Raises:
        Unavailable, Uncertain: Safe to repeat.
    """
    rows = await store.fetch(statements("worker")["wake"], queue_ids, runs_max, STEP, AHEAD, *turns.columns())
    woken = list(map(Woken._make, rows))
    turns.saw((one.queue_id, one.tenant, one.last, one.now) for one in woken)
    return woken


async def lonely(store: Store, owners: Mapping[int, UUID], *, known: Sequence[int]) -> list[tuple[int, str]]:
    """(id, name) of queues with suspects that no process runs, of workflows in ``known``.

    Args:
        owners: By queue, a name in which nobody runs suspects now, whatever its lease says.
    """
    rows = await store.fetch(statements("worker")["suspects"], list(owners), list(owners.values()), list(known))
    return [(r["id"], r["name"]) for r in rows]
