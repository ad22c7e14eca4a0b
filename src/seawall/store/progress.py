"""How far long steps have come: told while they are under way, read by their next try."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from seawall.store.lease import Lease
from seawall.store.pool import Store
from seawall.store.statement import statements

_SQL = statements("progress")


class Told(NamedTuple):
    """A step's last heartbeat. The order of the fields is that of the statement's arrays."""

    lease: Lease
    run_id: int
    name: str  # with its task, as a step is kept
    nth: int
    value: bytes | None  # JSON
    age_ms: int  # how long ago it was


async def note(store: Store, told: Sequence[Told]) -> None:
    """Keep heartbeats, of shards whose leases stand.

    Raises:
        Unavailable, Uncertain: Safe to repeat.

    Durability: committed before return.
    """
    leases = [one.lease for one in told]
    await store.execute(
        _SQL["note"], [x.queue_id for x in leases], [x.shard for x in leases], [x.epoch for x in leases],
        *([one[field] for one in told] for field in range(1, len(Told._fields))),
    )  # fmt: skip


async def last(store: Store, run_id: int, name: str, nth: int) -> bytes | None:
    """What a step told last, as JSON; None: nothing.

    Raises:
        Unavailable: Safe to repeat.
    """
    value: bytes | None = await store.value(_SQL["last"], run_id, name, nth)
    return value


async def prune_ended(store: Store, *, after: int, rows_max: int) -> tuple[int, int]:
    """Forget what nobody asks for any more, of the next ``rows_max`` rows; returns how many went, and where to go on.

    Raises:
        Unavailable, Uncertain: Safe to repeat.
    """
    row = await store.row(_SQL["prune_ended"], after, rows_max)
    assert row is not None
    return row["gone"], row["next"]
