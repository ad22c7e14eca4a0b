"""Queues: what is set of each, and how they stand."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from seawall.kernel.error import Rejected
from seawall.kernel.placement import AHEAD, STEP, WEIGHT_MAX, WEIGHTS_MAX
from seawall.kernel.seam.change import Kind
from seawall.store.change import Author, record
from seawall.store.pool import Row, Store
from seawall.store.statement import statements

_SQL = statements("queue")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What is in force of one queue: set by hand, else declared by an app."""

    name: str = ""
    reserved: int = 0  # slots that no other queue's runs take
    most: int | None = None  # runs in hand at once; None: as many as workers have slots
    paused: bool = False
    shards: int = 4
    rate: float | None = None  # runs begun a second, in all workers together; None: as they come
    limited: Collection[str] = ()  # workflows whose runs may stand in lines


async def rules(store: Store, queue_ids: Sequence[int]) -> dict[int, Rule]:
    """By queue id, of these queues and of those beside them.

    Raises:
        Unavailable: The store is away.
    """
    rows = await store.fetch(statements("worker")["queue_rules"], list(queue_ids))
    return {
        row["id"]: Rule(
            name=row["name"], reserved=row["reserved"], most=row["slots_max"], paused=row["paused"],
            shards=row["shards"], rate=row["rate"], limited=row["limited"],
        )
        for row in rows
    }  # fmt: skip


async def virtual_now(store: Store) -> tuple[dict[int, int | None], dict[int, dict[str, int]], dict[int, int]]:
    """By queue id: the virtual time of the run that is served next, without its priority, None when none is ready;
    weights of tenants, where there are any; and the furthest virtual time of what was begun.

    Raises:
        Unavailable: The store is away.
    """
    rows = await store.fetch(statements("router")["virtual_now"], STEP, AHEAD)
    weighted = {row["queue_id"]: weights_of(row["weights"]) for row in rows if row["weights"] != "{}"}
    return {row["queue_id"]: row["vt"] for row in rows}, weighted, {row["queue_id"]: row["begun"] for row in rows}


def weights_of(text: str) -> dict[str, int]:
    """Weights as the store has them; what we wouldn't have written there is left out."""
    value = msgspec.json.decode(text)
    found = value.items() if isinstance(value, dict) else ()
    return {tenant: weight for tenant, weight in found if isinstance(weight, int) and 1 <= weight <= WEIGHT_MAX}


QUEUES_MAX = 1000
SAID_MAX = 500
READY_MAX = 100_000
"""So many ready runs of a queue are counted; more are too many to wait for the count."""


class QueueLine(msgspec.Struct, frozen=True, kw_only=True):
    """One queue as it stands."""

    name: str
    reserved: int
    max: int | None  # null: as many as workers have slots
    by_hand: bool  # the two are set, and not as an app declares them
    paused: bool
    ready: int  # runs that may begin or are in hand; counted up to READY_MAX, as the next two
    limited: int  # runs that wait to be let in by a key
    held: int  # runs that aren't made yet, since there are depth_max unfinished ones
    depth_max: int | None  # null: no bound
    weights: dict[str, int]  # of tenants; 1 for who isn't there
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
            paused=row["paused"], ready=row["ready"], limited=row["limited"], held=row["held"],
            depth_max=row["depth_max"], weights=weights_of(row["weights"]),
            shards=row["shards"], served=row["served"],
            workflows=row["workflows"],
        )
        for row in rows
    ]  # fmt: skip


DECLARED = "declared"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be changed of a queue; None: nothing. ``DECLARED``: as its app says."""

    reserved: int | str | None = None
    most: int | str | None = None
    paused: bool | None = None
    depth_max: int | str | None = None  # 0: no bound
    weights: Mapping[str, int | str] | None = None  # by tenant; others stay


@dataclass(frozen=True, slots=True, kw_only=True)
class _Set:
    """What is set by hand of a queue."""

    reserved: int | None
    most: int | None
    paused: bool
    depth_max: int | None
    weights: Mapping[str, int]

    def changed(self, wish: Wish) -> _Set:
        weights = {**self.weights, **(wish.weights or {})}
        return _Set(
            reserved=_changed(self.reserved, wish.reserved), most=_changed(self.most, wish.most),
            paused=self.paused if wish.paused is None else wish.paused,
            depth_max=_changed(self.depth_max, wish.depth_max),
            weights={tenant: weight for tenant, weight in weights.items() if isinstance(weight, int)},
        )  # fmt: skip


async def put(store: Store, name: str, wish: Wish, author: Author, *, timeout_s: float) -> tuple[str, str]:
    """Change a queue, and say so in the timeline, in one transaction. All follow within a second or two.

    Returns:
        What was in force before, and what is now.

    Raises:
        Rejected: There is no such queue, or the numbers don't fit each other.
        Unavailable, Uncertain: Safe to repeat.
    """
    async with store.transaction(timeout_s=timeout_s) as session:
        row = await session.row(_SQL["lock"], name)
        if row is None:
            raise Rejected(404, "No such queue", "seawall queues list shows those there are")
        former = _Set(
            reserved=row["reserved_set"], most=row["slots_max_set"], paused=row["paused"],
            depth_max=row["depth_max_set"], weights=weights_of(row["weights_set"]),
        )  # fmt: skip
        now = former.changed(wish)
        before, after = _said(row, former), _said(row, now)
        limits = _in_force(row, now)
        if limits[1] is not None and limits[0] > limits[1]:
            raise Rejected(
                422, "Bad numbers", f"queue {name}: {limits[0]} reserved slots are more than its max, {limits[1]}"
            )
        if len(now.weights) > WEIGHTS_MAX:
            raise Rejected(422, "Too many weights", f"queue {name}: at most {WEIGHTS_MAX} tenants have one")
        weights = msgspec.json.encode(now.weights).decode() if now.weights else None
        await session.execute(_SQL["put"], name, now.reserved, now.most, now.paused, now.depth_max, weights)
        if after != before:
            await record(session, author.change(Kind.QUEUE, name, before, after))
    return before, after


def _changed(now: int | None, wish: int | str | None) -> int | None:
    if wish is None:
        return now
    return wish if isinstance(wish, int) else None


def _in_force(row: Row, by_hand: _Set) -> tuple[int, int | None]:
    return (
        (row["reserved"] or 0) if by_hand.reserved is None else by_hand.reserved,
        row["slots_max"] if by_hand.most is None else by_hand.most,
    )


def _said(row: Row, by_hand: _Set) -> str:
    kept, most = _in_force(row, by_hand)
    depth_max = row["depth_max"] if by_hand.depth_max is None else by_hand.depth_max
    words = [f"reserved {kept}", f"max {'all' if most is None else most}"]
    words += [f"depth max {depth_max}"] if depth_max else []
    words += [f"weight {tenant} {weight}" for tenant, weight in sorted(by_hand.weights.items())]
    words += ["paused"] if by_hand.paused else []
    return ", ".join(words)[:SAID_MAX]
