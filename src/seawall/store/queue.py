"""Queues: what is set of each, and how they stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from seawall.kernel.error import Rejected
from seawall.kernel.placement import STEP
from seawall.kernel.seam.change import Kind
from seawall.store.change import Author, record
from seawall.store.pool import Row, Store
from seawall.store.statement import statements

_SQL = statements("queue")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What is in force of one queue: set by hand, else declared by an app."""

    reserved: int = 0  # slots that no other queue's runs take
    most: int | None = None  # runs in hand at once; None: as many as workers have slots
    paused: bool = False
    shards: int = 4
    rate: float | None = None  # runs begun a second, in all workers together; None: as they come


async def rules(store: Store, queue_ids: Sequence[int]) -> dict[int, Rule]:
    """By queue id.

    Raises:
        Unavailable: The store is away.
    """
    rows = await store.fetch(statements("worker")["queue_rules"], list(queue_ids))
    return {
        row["id"]: Rule(
            reserved=row["reserved"], most=row["slots_max"], paused=row["paused"], shards=row["shards"],
            rate=row["rate"],
        )
        for row in rows
    }  # fmt: skip


async def virtual_now(store: Store) -> dict[int, int | None]:
    """By queue id: the virtual time of the run that is served next, without its priority; None when none is ready.

    Raises:
        Unavailable: The store is away.
    """
    return {row["queue_id"]: row["vt"] for row in await store.fetch(statements("router")["virtual_now"], STEP)}


QUEUES_MAX = 1000
READY_MAX = 100_000
"""So many ready runs of a queue are counted; more are too many to wait for the count."""


class QueueLine(msgspec.Struct, frozen=True, kw_only=True):
    """One queue as it stands."""

    name: str
    reserved: int
    max: int | None  # null: as many as workers have slots
    by_hand: bool  # the two are set, and not as an app declares them
    paused: bool
    ready: int  # runs that may begin or are in hand; counted up to READY_MAX
    shards: int
    served: int  # shards that a live worker has
    workflows: list[str]  # active ones, as name@version


async def lines(store: Store, *, timeout_s: float) -> list[QueueLine]:
    """All queues, by name.

    Raises:
        Unavailable: The store is away, or takes longer.
    """
    rows = await store.fetch(_SQL["lines"], READY_MAX, QUEUES_MAX, timeout_s=timeout_s)
    return [
        QueueLine(
            name=row["name"], reserved=row["reserved"], max=row["slots_max"], by_hand=row["by_hand"],
            paused=row["paused"], ready=row["ready"], shards=row["shards"], served=row["served"],
            workflows=row["workflows"],
        )
        for row in rows
    ]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be changed of a queue; None: nothing. ``DECLARED``: as its app says."""

    reserved: int | str | None = None
    most: int | str | None = None
    paused: bool | None = None


DECLARED = "declared"


async def put(store: Store, name: str, wish: Wish, author: Author, *, timeout_s: float) -> tuple[str, str]:
    """Change a queue, and say so in the timeline, in one transaction. Workers follow within a second or two.

    Returns:
        What was in force before, and what is now.

    Raises:
        Rejected: There is no such queue, or the two numbers don't fit each other.
        Unavailable, Uncertain: Safe to repeat.
    """
    async with store.transaction(timeout_s=timeout_s) as session:
        row = await session.row(_SQL["lock"], name)
        if row is None:
            raise Rejected(404, "No such queue", "seawall queues list shows those there are")
        reserved, most = _changed(row["reserved_set"], wish.reserved), _changed(row["slots_max_set"], wish.most)
        paused = row["paused"] if wish.paused is None else wish.paused
        before = _said(row, row["reserved_set"], row["slots_max_set"], paused=row["paused"])
        after = _said(row, reserved, most, paused=paused)
        limits = _in_force(row, reserved, most)
        if limits[1] is not None and limits[0] > limits[1]:
            raise Rejected(
                422, "Bad numbers", f"queue {name}: {limits[0]} reserved slots are more than its max, {limits[1]}"
            )
        await session.execute(_SQL["put"], name, reserved, most, paused)
        if after != before:
            await record(session, author.change(Kind.QUEUE, name, before, after))
    return before, after


def _changed(now: int | None, wish: int | str | None) -> int | None:
    if wish is None:
        return now
    return wish if isinstance(wish, int) else None


def _in_force(row: Row, reserved: int | None, most: int | None) -> tuple[int, int | None]:
    return (
        (row["reserved"] or 0) if reserved is None else reserved,
        row["slots_max"] if most is None else most,
    )


def _said(row: Row, reserved: int | None, most: int | None, *, paused: bool) -> str:
    kept, limit = _in_force(row, reserved, most)
    return f"reserved {kept}, max {'all' if limit is None else limit}{', paused' if paused else ''}"
