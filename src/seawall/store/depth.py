"""How many unfinished runs queues have, and runs that wait to be made until there are fewer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from seawall.kernel.status import CHANNEL_RUN
from seawall.store.pool import Store
from seawall.store.statement import statements

_SQL = statements("depth")


class Depth(NamedTuple):
    """A queue that has a bound, or runs that wait to be made."""

    queue_id: int
    name: str
    most: int | None  # None: no bound any more
    waiting: bool  # runs wait to be made
    runs: int  # unfinished ones, counted up to ``most`` and some


async def depths(store: Store, *, timeout_s: float) -> Sequence[Depth]:
    """All such queues.

    Raises:
        Unavailable: The store is away, or takes longer.
    """
    return [Depth(*row) for row in await store.fetch(_SQL["depths"], timeout_s=timeout_s)]


async def make(store: Store, queue_id: int, *, runs_max: int) -> int:
    """Make a queue's next runs, at most so many; returns how many. 0 also while another router is about it.

    Raises:
        Unavailable, Uncertain: Safe to repeat.

    Durability: committed before return.
    """
    async with store.transaction() as session:
        if not await session.value(_SQL["try_lock"]):
            return 0
        row = await session.row(_SQL["make"], queue_id, runs_max)
        assert row is not None
    if row["runs"]:
        # Behind the commit: a server whose queue of notifications is full must not keep runs from being made.
        await store.fetch(statements("router")["notify"], [CHANNEL_RUN], [f"{queue_id}:{row['vt']}"])
    runs: int = row["runs"]
    return runs
