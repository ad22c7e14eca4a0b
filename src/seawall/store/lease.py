"""Leases of shards: who may write the outcome of which runs.

A lease is a row with an epoch. Whoever takes it locks the row ``for update``, raises the epoch and commits; whoever
writes an outcome holds the row of its own epoch ``for key share`` in that very statement. So a takeover waits for a
write in flight, and a write begun later finds no row. Time decides when a takeover may be tried, never who is right.

A lease counts in one timeline of the server only. A fail-over to a replica that lagged takes takeovers back, and their
epochs would be given again; whoever remembers one from the lost time finds that it holds nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from seawall.kernel.error import Fenced
from seawall.kernel.status import CHANNEL_LEASE, SUSPECT_SHARD
from seawall.store.driver import Unheard
from seawall.store.end import Ended
from seawall.store.pool import Row, Store
from seawall.store.statement import statements


class Shard(NamedTuple):
    """A part of a queue's runs; number -1 holds the queue's suspects."""

    queue_id: int
    number: int


class Lease(NamedTuple):
    """The right to run a shard, until somebody raises its epoch."""

    queue_id: int
    shard: int
    epoch: int


class Peer(NamedTuple):
    """Another process, and one of the queues that it serves."""

    queue_id: int
    own: bool  # a process of just its queues: others leave them to it
    held: int  # shards of the queue, without its suspects


class Free(NamedTuple):
    """A shard that may be taken."""

    shard: Shard
    orphan: bool  # somebody's whose lease ran out, or ours from an earlier life; not given back


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What a takeover found."""

    lease: Lease
    memo_below: int  # runs with a number (id without its day) up to this may have been run before
    suspects: int  # runs that were in the hands of the former owner, moved aside
    deaths: int  # suspects that were alone in a process that died
    dead: tuple[Ended, ...]  # runs ended for good


async def look(store: Store) -> UUID:
    """What the server's history is called: another one than before may lack what the former said last.

    Raises:
        Unavailable, Uncertain: Safe to repeat.
    """
    history: UUID = await store.value(statements("worker")["look_at_store"])
    return history


async def free(store: Store, queue_ids: Sequence[int], *, owner: UUID, suspects: bool, grace_s: float) -> list[Free]:
    """Shards that may be taken now: given back, expired, or still in the name of ``owner`` from an earlier life.

    Args:
        suspects: True: the queues' suspects, else everything but those.
        grace_s: After a start of the server or a fail-over, how long leases that expired meanwhile still belong to
            their owners.

    Raises:
        Unavailable: The store is away.
    """
    rows = await store.fetch(statements("worker")["free_leases"], list(queue_ids), owner, grace_s, suspects)
    return [Free(Shard(r["queue_id"], r["shard"]), r["orphan"]) for r in rows]


async def peers(store: Store, serves: Sequence[int], *, owner: UUID, own: bool, live_s: float) -> list[Peer]:
    """Say which queues this process serves, and hear who else serves them.

    Args:
        serves: None of them any more when it stops.
        live_s: For how long another one counts that said nothing.

    Raises:
        Unavailable, Uncertain: Safe to repeat.
    """
    rows = await store.fetch(statements("worker")["peers"], owner, list(serves), own, live_s)
    return [Peer(r["queue_id"], r["own"], r["held"]) for r in rows]


async def take(
    store: Store, shard: Shard, *, owner: UUID, ttl_s: float, deaths_max: int, history: UUID | None = None,
    ours: int | None = None,
) -> Taken:  # fmt: skip
    """Take one shard's lease and put its former owner's runs aside, in one transaction.

    Each statement has a snapshot of its own (read committed): those behind the lock see everything that the former
    owner's last flush wrote.

    Args:
        history: What ``look`` said; None: whatever it is.
        ours: The epoch under which this very process last held it: what was in hand then is no suspect, we live.

    Raises:
        Fenced: Somebody else took or renewed it meanwhile, or the server's history is another one.
        Unavailable: Nothing was taken.
        Uncertain: It may have been; ``free`` then offers it again to the same owner.
    """
    sql = statements("worker")
    async with store.transaction() as session:
        row = await session.row(sql["lock_lease"], shard.queue_id, shard.number, owner)
        if row is None or not (row["ours"] or row["free"]) or history not in (None, row["history"]):
            raise Fenced(f"shard {shard.number} of queue {shard.queue_id}")
        innocent = ours if row["ours"] else None
        row = await session.row(sql["take_lease"], shard.queue_id, shard.number, owner, ttl_s)
        assert row is not None
        epoch: int = row["epoch"]
        suspects = deaths = 0
        dead: list[Row] = []
        if shard.number == SUSPECT_SHARD:
            deaths = await session.execute(sql["count_deaths"], shard.queue_id, epoch, innocent)
            dead = await session.fetch(sql["end_dead"], shard.queue_id, deaths_max)
        else:
            suspects = await session.value(sql["move_suspects"], shard.queue_id, shard.number, epoch, innocent)
    return Taken(
        lease=Lease(shard.queue_id, shard.number, epoch),
        memo_below=row["memo_below"],
        suspects=suspects,
        deaths=deaths,
        dead=tuple(map(Ended.of, dead)),
    )


async def renew(
    store: Store, leases: Sequence[Lease], *, begun: Sequence[int] = (), owner: UUID, ttl_s: float
) -> set[Shard]:
    """Prolong leases; returns the shards that are still ours. The others belong to somebody else: let go of them.

    Args:
        begun: For each, up to which virtual time its runs were begun; empty: it stays.

    Raises:
        Unavailable, Uncertain: Nothing is known; try again. What is ours stays ours until somebody takes it.
    """
    queues, shards, epochs = _columns(leases)
    sql = statements("worker")["renew_leases"]
    rows = await store.fetch(sql, queues, shards, epochs, owner, ttl_s, begun)
    return {Shard(r["queue_id"], r["shard"]) for r in rows}


async def give_way(store: Store, lease: Lease, run_id: int) -> bool:
    """Put a suspect behind the others of its queue; False when there are none, or the lease is gone.

    Raises:
        Unavailable, Uncertain: Safe to repeat.
    """
    sql = statements("worker")["give_way"]
    return bool(await store.execute(sql, lease.queue_id, lease.epoch, run_id))


async def leave(store: Store, owner: UUID) -> None:
    """Serve no queue any more, so that nobody leaves shards to us; others are told.

    Raises:
        Unavailable, Uncertain: Others see it by themselves, after a lease's time.
    """
    await _told(store, "leave", owner)


async def release(store: Store, leases: Sequence[Lease], *, owner: UUID) -> None:
    """Give leases back at once, with their refill rows, and tell others: whoever takes them suspects nothing. The last
    flush is done.

    Raises:
        Unavailable, Uncertain: They expire by themselves, and what was in their refills becomes suspect.
    """
    await _told(store, "release_leases", *_columns(leases), owner)


async def _told(store: Store, name: str, *values: object) -> None:
    """Run a statement that tells other workers, or the same without telling: they look by themselves within a second,
    and a shard that couldn't be given back would stand, its runs with it."""
    sql = statements("worker")[name]
    try:
        await store.value(sql, *values, CHANNEL_LEASE)
    except Unheard:
        await store.value(sql, *values, None)


def _columns(leases: Sequence[Lease]) -> tuple[list[int], list[int], list[int]]:
    return [x.queue_id for x in leases], [x.shard for x in leases], [x.epoch for x in leases]
