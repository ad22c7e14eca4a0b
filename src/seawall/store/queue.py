"""Queues: what is set of each, and how they stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seawall.store.pool import Store
from seawall.store.statement import statements


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What is in force of one queue: set by hand, else declared by an app."""

    reserved: int = 0  # slots that no other queue's runs take
    most: int | None = None  # runs in hand at once; None: as many as workers have slots
    paused: bool = False
    shards: int = 4


async def rules(store: Store, queue_ids: Sequence[int]) -> dict[int, Rule]:
    """By queue id.

    Raises:
        Unavailable: The store is away.
    """
    rows = await store.fetch(statements("worker")["queue_rules"], list(queue_ids))
    return {
        row["id"]: Rule(
            reserved=row["reserved"], most=row["slots_max"], paused=row["paused"], shards=row["shards"]
        )
        for row in rows
    }  # fmt: skip
