"""Workflows as workers register them: who has which, and which version a new event starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from seawall.store.pool import Session, Store
from seawall.store.statement import statements

FORGET_S = 86_400.0
"""A worker that wasn't seen for so long isn't only away: what it alone had takes no new runs from then on. Until then
they wait for it, in the open: an event without a run would be lost for its workflow."""


class Declared(NamedTuple):
    """A workflow as an app declares it."""

    name: str
    version: str
    pattern: str
    queue: str
    allowance: str | None = None  # kernel.allowance
    priority: int = 0


class Line(NamedTuple):
    """A queue as an app declares it; None: it says nothing of that."""

    name: str
    reserved: int | None = None
    most: int | None = None
    latency_s: float | None = None
    depth_max: int | None = None
    weights: str | None = None  # JSON, by tenant


class Known(NamedTuple):
    """A workflow as the store numbers it."""

    id: int
    name: str
    version: str
    queue_id: int
    queue: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What new events start from now on, as ``name@version``."""

    chosen: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()  # nobody has it any more


async def register(
    store: Store, workflows: Sequence[Declared], *, owner: UUID | None, live_s: float, queues: Sequence[Line] = ()
) -> tuple[list[Known], Changes]:
    """Make queues, leases and workflow versions known, and what this worker has; choose what new events start.

    Of each name, the newest version that a live worker has takes new runs. A version that was registered before keeps
    its age: a worker that starts again with older code takes none away from a newer version while somebody still has
    that, and takes all of them once nobody has. What this worker had before and nobody has now takes no new runs.

    Args:
        owner: Who has them; None: only make them known (a process for suspects has what its parent has).
        live_s: For how long a worker counts that wasn't seen.
        queues: What the app declares of queues. One that no workflow of it uses is made all the same.

    Raises:
        Unavailable, Uncertain: Safe to repeat.
    """
    names, versions, patterns, used, allowances, priorities = ([w[n] for w in workflows] for n in range(6))
    lines = {line.name: line for line in (*(Line(w.queue) for w in workflows), *queues)}
    sql = statements("worker")
    changes = Changes()
    async with store.transaction() as session:
        await session.execute(sql["lock_registration"])
        named = sorted(lines.values())  # in one order, so that two apps can't wait for each other
        await session.execute(
            sql["register_queues"],
            [q.name for q in named],
            [q.reserved for q in named],
            [q.most for q in named],
            [None if q.latency_s is None else round(q.latency_s * 1000) for q in named],
            [q.depth_max for q in named],
            [q.weights for q in named],
        )
        await session.execute(sql["register_leases"], used)
        await session.execute(sql["register_workflows"], names, versions, patterns, used, allowances, priorities)
        if owner is not None:
            former: list[int] = await session.value(sql["say_worker"], owner, names, versions)
            changes = await _choose(session, former, live_s)
        rows = await session.fetch(sql["known_workflows"], names, versions)
    return [Known(r["id"], r["name"], r["version"], r["queue_id"], r["queue"]) for r in rows], changes


class Work(NamedTuple):
    """What a worker has seen of its work since it started."""

    tried: int = 0  # executions that ended a run or an attempt
    failed: int = 0  # those of them that failed
    broken: tuple[str, ...] = ()  # open breakers of its steps


async def seen(store: Store, *, owner: UUID, live_s: float, work: Work = Work()) -> Changes | None:  # noqa: B008
    """Say that this worker is there, and choose anew when another one isn't any more; None: the store doesn't know us.

    Raises:
        Unavailable, Uncertain: Safe to repeat.
    """
    sql = statements("worker")
    if not await store.execute(sql["see_worker"], owner, work.tried, work.failed, list(work.broken)):
        return None
    if not await store.value(sql["misplaced"], live_s, FORGET_S):
        return Changes()
    async with store.transaction() as session:
        await session.execute(sql["lock_registration"])
        return await _choose(session, [], live_s)


async def rechoose(session: Session, live_s: float) -> Changes:
    """Choose what new events start, since somebody has said something about it. In a transaction, behind
    ``lock_registration``."""
    return await _choose(session, [], live_s)


async def _choose(session: Session, former: Sequence[int], live_s: float) -> Changes:
    sql = statements("worker")
    gone: list[int] = await session.value(sql["forget_workers"], FORGET_S)
    removed = await session.fetch(sql["deactivate_removed"], list(former), gone)
    await session.execute(sql["deactivate_others"], live_s)
    chosen = await session.fetch(sql["activate_chosen"], live_s)
    return Changes(
        chosen=tuple(f"{r['name']}@{r['version']}" for r in chosen),
        removed=tuple(f"{r['name']}@{r['version']}" for r in removed),
    )


async def nobodys(store: Store, workflow_ids: Sequence[int], *, live_s: float) -> list[str]:
    """Of these workflows, and of those with suspects, the ones that no live worker has; and queues with ready runs that
    nobody serves. In words.

    Raises:
        Unavailable: The store is away.
    """
    sql = statements("worker")
    found = await store.fetch(sql["nobodys_workflows"], list(workflow_ids), live_s)
    queues = await store.fetch(sql["nobodys_queues"])
    return [f"{r['name']}@{r['version']}" for r in found] + [f"queue {r['name']}" for r in queues]


class Left(NamedTuple):
    """A queue with unfinished runs that no declared workflow uses."""

    queue_id: int
    queue: str
    ours: bool  # some of the runs are of a declared workflow, which was moved to another queue


async def left_behind(store: Store, known: Sequence[Known]) -> list[Left]:
    """Queues beside those of ``known`` that hold unfinished runs.

    Raises:
        Unavailable: The store is away.
    """
    queue_ids = sorted({k.queue_id for k in known})
    rows = await store.fetch(statements("worker")["left_behind"], queue_ids, [k.id for k in known])
    return [Left(r["id"], r["name"], r["ours"]) for r in rows]
