"""Events that run once more: at a rate, in queues of their own, each at most once for a workflow in a replay.

A batch is one transaction, with how far it has come and when the next one may begin in it. So a crash, another router
or a commit of unknown outcome begins nothing twice, and all routers together keep the one rate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from seawall.guard.governor import Course
from seawall.kernel.error import Rejected
from seawall.kernel.event import id_day
from seawall.kernel.seam.change import Kind
from seawall.kernel.selection import Selection
from seawall.kernel.status import DAY_SHIFT
from seawall.store.bulk import event_values
from seawall.store.change import Author, record, time_of
from seawall.store.drain import lift, put
from seawall.store.pool import Row, Session, Store
from seawall.store.router import WORKFLOWS_MAX
from seawall.store.statement import statements

_SQL = statements("replay")

OPEN_MAX: Final = 20
BATCH_S: Final = 0.5
"""Of its rate in one batch."""

BATCH_EVENTS: Final = 500
SCAN_ROWS: Final = 10_000
"""Events that a batch looks at: what is rare among millions is found in several."""

TRANSACTION_S: Final = 10.0
PENDING_MAX: Final = 2_000
"""Ready runs of replays in one queue: beyond, a batch that would begin more there waits until workers are through with
some. A queue that is paused, or slower than the rate, would else fill the table that every worker reads. Replays whose
events begin nothing there go on."""

BUSY_S: Final = 1.0
DUE_MAX: Final = 20
KEEP_S: Final = 30 * 86_400.0
PRUNE_ROWS: Final = 5_000
FIRST_SHARE: Final = 0.05
"""Of its rate, with which it begins; the governor never goes below that."""

RATE_MIN: Final = 0.001


class State(Enum):
    """Where a replay is."""

    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    CANCELLED = "cancelled"


class ReplayLine(msgspec.Struct, frozen=True, kw_only=True):
    """One replay, and how far it has come."""

    id: str
    where: str
    workflow: str | None  # only this one, as NAME or NAME@VERSION; null: all that take new events of the type
    state: str  # running, paused, done, cancelled
    rate: float  # events a second, when it has risen to it
    rate_now: float | None  # null: it isn't running
    ramp_s: float
    total: int  # events that are meant
    seen: int
    runs: int  # that it began
    reached: datetime  # up to when the events were accepted that it has seen to
    eta_s: float | None  # at the rate of now; null: it isn't running
    by: str
    why: str
    at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A replay to make."""

    narrow: Selection  # bounded in time
    text: str  # as it was written
    workflow: str | None
    version: str | None
    rate: float
    ramp_s: float
    total: int


class Target(NamedTuple):
    """A workflow that a replay may begin, in the order of the statement's columns."""

    id: int
    name: str
    version: str
    pattern: str
    queue_id: int
    queue: str
    priority: int
    beside_id: int | None  # the queue beside its own; None: there is none yet
    shards: int  # of that one
    frozen: bool  # new runs of it are held


class Begun(NamedTuple):
    """A run to begin."""

    event_id: UUID
    workflow_id: int
    tenant: str
    queue_id: int
    shard: int
    vt: int
    frozen: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """What a batch has done."""

    replay: int
    seen: int
    runs: int
    over: bool


Decide = Callable[[Sequence[Row], Sequence[Target], Set[int]], Sequence[Begun] | None]
"""The runs that events (id, type, tenant) begin, of workflows whose queues have one beside them; None: some would be in
a queue of these, which are full."""


def course(rate: float, ramp_s: float) -> Course:
    """How a replay's rate rises when nothing stands against it."""
    floor = max(RATE_MIN, FIRST_SHARE * rate)
    slope = (rate - floor) / ramp_s if ramp_s > 0 and rate > floor else None
    return Course(rate=floor if ramp_s > 0 else rate, floor=floor, goal=rate, slope=slope)


async def targets(store: Store, workflow: str | None, version: str | None, *, timeout_s: float) -> list[Target]:
    """Workflows that a replay may begin. Raises Unavailable."""
    rows = await store.fetch(_SQL["workflows"], workflow, version, WORKFLOWS_MAX, timeout_s=timeout_s)
    return list(map(Target._make, rows))


async def make(store: Store, wish: Wish, author: Author, *, timeout_s: float) -> int:
    """Begin a replay; returns its id.

    Raises:
        Rejected: 409: too many are under way. Nothing was done.
        Unavailable: Nothing was done.
        Uncertain: It may have begun: look before you repeat it.
    """
    *filters, first, last = event_values(wish.narrow)
    assert isinstance(first, UUID)
    async with store.transaction(timeout_s=timeout_s) as session:
        if await session.value(_SQL["open_count"]) >= OPEN_MAX:
            raise Rejected(409, "Too many replays", f"{OPEN_MAX} are under way; see seawall replays list")
        id: int = await session.value(
            _SQL["make"], wish.text, *filters, first, last, UUID(int=max(0, first.int - 1)), wish.workflow,
            wish.version, wish.rate, wish.ramp_s, wish.total, author.by, author.why,
        )  # fmt: skip
        await put(session, drain_of(id), course(wish.rate, wish.ramp_s), by=author.by)
        what = f"{wish.total} events at {wish.rate:g}/s: {wish.text}"
        await record(session, author.change(Kind.REPLAY, str(id), None, what))
    return id


def drain_of(id: int) -> str:
    return f"replay:{id}"


async def change(
    store: Store, id: int, state: State | None, rate: float | None, author: Author, *, timeout_s: float
) -> None:  # fmt: skip
    """Pause, resume or cancel a replay, or give it another rate; one that goes on begins slowly again.

    Raises:
        Rejected: 404: there is none; 409: it is over.
        Unavailable, Uncertain: Safe to repeat.
    """
    async with store.transaction(timeout_s=timeout_s) as session:
        row = await session.row(_SQL["lock"], id)
        if row is None:
            raise Rejected(404, "No such replay", "seawall replays list shows them")
        before = State(row["state"])
        if before in (State.DONE, State.CANCELLED):
            raise Rejected(409, "It is over", f"replay {id} is {before.value}")
        after = before if state is None else state
        goal = row["rate"] if rate is None else rate
        await session.execute(_SQL["put"], id, after.value, goal)
        if after is not State.RUNNING:
            await lift(session, drain_of(id))
        elif (before, row["rate"]) != (after, goal):
            await put(session, drain_of(id), course(goal, row["ramp_s"]), by=author.by)
        said = f"{before.value}, {row['rate']:g}/s", f"{after.value}, {goal:g}/s"
        if said[0] != said[1]:
            await record(session, author.change(Kind.REPLAY, str(id), *said))


async def page(store: Store, *, before: int, limit: int, timeout_s: float) -> list[ReplayLine]:
    """Replays, newest first. Raises Unavailable."""
    return [_line(row) for row in await store.fetch(_SQL["page"], before, limit, timeout_s=timeout_s)]


async def one(store: Store, id: int, *, timeout_s: float) -> ReplayLine | None:
    """One replay; None: there is none. Raises Unavailable."""
    row = await store.row(_SQL["one"], id, timeout_s=timeout_s)
    return None if row is None else _line(row)


async def due(store: Store) -> list[tuple[int, float]]:
    """Ids of replays whose next events may begin, and their rates now. Raises Unavailable."""
    return [(row["id"], row["rate"]) for row in await store.fetch(_SQL["due"], DUE_MAX)]


async def work(store: Store, id: int, rate: float, decide: Decide) -> Batch | None:
    """Begin what the next events begin; None: somebody else does, or it isn't the time.

    Raises:
        Unavailable: Nothing was begun.
        Uncertain: It may have been; the next batch begins behind it then.

    Durability: committed before return.
    """
    async with store.transaction(timeout_s=TRANSACTION_S) as session:
        replay = await session.row(_SQL["take"], id)
        if replay is None:
            return None
        full = {row["id"] for row in await session.fetch(_SQL["full"], PENDING_MAX)}
        wanted = max(1, min(BATCH_EVENTS, int(rate * BATCH_S)))
        upper = await session.value(_SQL["floor"], replay["after"], replay["last"], SCAN_ROWS)
        events = await session.fetch(
            _SQL["events"], replay["after"], upper or replay["last"], replay["sources"], replay["likes"],
            replay["tenants"], replay["states"], replay["causes"], wanted,
        )  # fmt: skip
        begun = decide(events, await _targets(session, replay), full) if events else ()
        if begun is None:
            await session.execute(_SQL["advance"], id, replay["after"], 0, 0, BUSY_S, False)
            return Batch(id, 0, 0, over=False)
        runs = await _begin(session, id, begun)
        cut = len(events) == wanted
        after = events[-1]["id"] if cut else UUID(int=(upper or replay["last"]).int - 1)
        over = not cut and upper is None
        await session.execute(_SQL["advance"], id, after, len(events), runs, len(events) / rate, over)
        if over:
            await lift(session, drain_of(id))
    return Batch(id, len(events), runs, over)


async def _begin(session: Session, id: int, begun: Sequence[Begun]) -> int:
    if not begun:
        return 0
    bases = [id_day(run.event_id.bytes) << DAY_SHIFT for run in begun]
    count: int = await session.value(_SQL["begin"], id, bases, *map(list, zip(*begun, strict=True)))
    return count


async def _targets(session: Session, replay: Row) -> list[Target]:
    """Each with a queue beside its own, which is made when it isn't there."""
    values = replay["workflow"], replay["version"], WORKFLOWS_MAX
    found = list(map(Target._make, await session.fetch(_SQL["workflows"], *values)))
    bare = sorted({target.queue_id for target in found if target.beside_id is None})
    if bare:
        await session.execute(_SQL["queue_beside"], bare)
        found = list(map(Target._make, await session.fetch(_SQL["workflows"], *values)))
        await session.execute(statements("worker")["register_leases"], [f"replay.{t.queue}" for t in found])
    return [target for target in found if target.beside_id is not None]


async def prune(store: Store) -> int:
    """Forget what replays long over have begun; at most PRUNE_ROWS. Raises Unavailable, Uncertain: safe to repeat."""
    gone = await store.execute(_SQL["prune"], KEEP_S, PRUNE_ROWS)
    if gone < PRUNE_ROWS:
        await store.execute(_SQL["forget"], KEEP_S)
    return gone


def _line(row: Row) -> ReplayLine:
    left, rate_now = max(0, row["total"] - row["seen"]), row["rate_now"]
    name, version = row["workflow"], row["version"]
    return ReplayLine(
        id=str(row["id"]), where=row["selection"], workflow=name if version is None else f"{name}@{version}",
        state=row["state"], rate=row["rate"], rate_now=rate_now, ramp_s=row["ramp_s"], total=row["total"],
        seen=row["seen"], runs=row["runs"], reached=time_of(int.from_bytes(row["after"].bytes[:6], "big") * 1000),
        eta_s=None if rate_now is None else round(eta_s(left, rate_now, row["rate"], row["ramp_s"])), by=row["by"],
        why=row["why"], at=row["at"], ended_at=row["ended_at"],
    )  # fmt: skip


def eta_s(left: int, rate: float, goal: float, ramp_s: float) -> float:
    """Seconds until so many events have begun, when the rate rises from ``rate`` to its goal as fast as it may."""
    slope = course(goal, ramp_s).slope
    if slope is None or rate >= goal:
        return left / max(rate, RATE_MIN)
    rise_s = (goal - rate) / slope
    risen = rise_s * (rate + goal) / 2
    if left >= risen:
        return rise_s + (left - risen) / goal
    return float(((rate * rate + 2 * slope * left) ** 0.5 - rate) / slope)
