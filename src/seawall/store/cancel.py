"""Runs that are ended from outside: those that wait at once, those that nobody has in hand a moment later, others by
workers. Mostly they are cancelled; some end since their time is over (`store/until.py`).

A run that may be in a worker's hands isn't taken from it: it is marked, which the worker finds within a second. It ends
the run under its lease, so what it flushes for a run is never refused for a cancellation, and nothing of a run comes
behind its end. A marked run is in no index by which a worker finds runs. So once the refills of before have ended,
whatever no refill row names is in nobody's hands, and whoever cancels ends it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from uuid import UUID

from seawall.kernel.cause import Cause, with_cause
from seawall.kernel.status import CHANNEL_REPLY, RunStatus
from seawall.store.child import tell_parents, who_began
from seawall.store.driver import Unheard
from seawall.store.earlier import refills_passed
from seawall.store.end import Ended
from seawall.store.lease import Lease
from seawall.store.pool import Session, Store
from seawall.store.statement import statements

_SQL = statements("cancel")

BATCH_MAX = 5000
"""Runs in one call."""

EVENTS_MAX = 200
"""Ids of events in one NOTIFY."""

BY_HAND: Final = with_cause(RunStatus.CANCELLED, Cause.CANCELLED)
"""How a marked run ends when nothing else was said: status and cause in one number, as the statements have it."""

ORPHANED: Final = with_cause(RunStatus.CANCELLED, Cause.PARENT_ENDED)

FOLLOWS_MAX: Final = 5
"""Generations that are ended at once with a run; what is beyond, a worker's sweep finds (`worker/ending.py`)."""

BEFORE_ALL: Final = (-1, -1)
"""Before the first row of runs with parents."""


@dataclass(slots=True)
class Marked:
    """What became of runs that were to be cancelled; one that isn't in here had ended before, or never was."""

    ended: list[Ended] = field(default_factory=list)
    cancelling: list[int] = field(default_factory=list)  # in somebody's hands, as far as is known

    def __bool__(self) -> bool:
        return bool(self.ended or self.cancelling)


class Order(NamedTuple):
    """That a run is to end."""

    why: str  # kept as its error
    ends_as: int = BY_HAND  # status and cause


async def mark(
    session: Session, run_ids: Sequence[int], why: str | Sequence[str], *, ends_as: int = BY_HAND
) -> Marked:  # fmt: skip
    """First half, in the caller's transaction; `settle` is the other, behind its commit.

    Args:
        run_ids: At most `BATCH_MAX`.
        why: Kept as the runs' error: of all of them, or of each.
        ends_as: Status and cause with which they end (kernel/cause.py).

    Raises:
        Unavailable: Nothing was changed.
    """
    marked = Marked()
    whys = [why] if isinstance(why, str) else why
    for row in await session.fetch(_SQL["mark"], run_ids, whys, ends_as):
        if row["ended"]:
            marked.ended.append(Ended.of(row))
        else:
            marked.cancelling.append(row["id"])
    return marked


async def settle(store: Store, marked: Marked, *, timeout_s: float) -> Marked:
    """Second half: end what was marked and is in nobody's hands, tell those who wait for replies or are runs that wait
    for them, and end what ended runs had begun and waited for.

    Returns:
        All that has ended of those marked, and what its workers end: each within about a second, and the grace that it
        has then.

    Raises:
        Unavailable, Uncertain: Safe to repeat. Workers do the same with what is left, once there are any.

    Durability: ends are committed before return.
    """
    done = await _settled(store, marked, timeout_s=timeout_s)
    parents = [one.id for one in done.ended]
    for _ in range(FOLLOWS_MAX):
        if not parents:
            break
        found = await orphans(store, of=parents, timeout_s=timeout_s)
        more = (await _settled(store, found.marked, timeout_s=timeout_s)).ended
        parents = [*(parents if found.seen == BATCH_MAX else ()), *(one.id for one in more)]
    return done


async def _settled(store: Store, marked: Marked, *, timeout_s: float) -> Marked:
    """One generation."""
    cancelling, ended = marked.cancelling, marked.ended
    if cancelling and await refills_passed(store, timeout_s=timeout_s):
        more = await finish(store, cancelling, timeout_s=timeout_s)
        gone = {one.id for one in more}
        ended, cancelling = [*ended, *more], [id for id in cancelling if id not in gone]
    await _tell(store, [one.event_id for one in ended if one.ticket], timeout_s=timeout_s)
    if awaited := [one.event_id for one in ended if one.kin]:
        await tell_parents(store, await who_began(store, awaited, timeout_s=timeout_s), timeout_s=timeout_s)
    return Marked(ended, cancelling)


class Orphans(NamedTuple):
    """What became of runs whose parents have ended."""

    marked: Marked  # to be settled
    seen: int  # rows that were looked at
    last: tuple[int, int]  # of them; BEFORE_ALL: there are none behind it


async def orphans(
    store: Store, *, after: tuple[int, int] | None = None, of: Sequence[int] = (), rows_max: int = BATCH_MAX,
    timeout_s: float | None = None,
) -> Orphans:  # fmt: skip
    """First half of cancelling runs that end with their parents, whose parents have ended; `settle` is the other.

    Args:
        after: Look at the next ``rows_max`` behind this place, unless another process does so in this moment.
        of: In place of that, runs that have just ended: at most ``rows_max`` of those that they began.

    Raises:
        Unavailable: Nothing was done.
        Uncertain: Safe to repeat.

    Durability: what has ended, and what is to end, is committed before return.
    """
    sql = statements("child")
    first, values = (sql["part_of"], ([*of],)) if after is None else (sql["part"], after)
    async with store.transaction(timeout_s=timeout_s) as session:
        row = await session.row(f"{first}\n{sql['orphans']}", *values, rows_max)
        assert row is not None
        whys = [f"run {id}, which had begun it, has ended" for id in row["parent_ids"]]
        marked = await mark(session, row["run_ids"], whys, ends_as=ORPHANED) if whys else Marked()
    if row["count"] == rows_max:
        last = row["last_parent"], row["last_run"]
    elif not row["turn"] and after is not None:  # or of many workers that meet none would ever come to the end
        last = after
    else:
        last = BEFORE_ALL
    return Orphans(marked, row["count"], last)


async def finish(store: Store, run_ids: Sequence[int], *, timeout_s: float) -> list[Ended]:
    """End those marked that no refill row names. The caller has seen the end of the refills that began before they were
    marked."""
    return [Ended.of(row) for row in await store.fetch(_SQL["finish"], run_ids, timeout_s=timeout_s)]


async def _tell(store: Store, event_ids: Sequence[UUID], *, timeout_s: float) -> None:
    """Who waits for a reply looks by itself too, so a hint that is lost costs time only."""
    ids = [id.hex for id in event_ids]
    payloads = [",".join(ids[start : start + EVENTS_MAX]) for start in range(0, len(ids), EVENTS_MAX)]
    if payloads:
        with contextlib.suppress(Unheard):
            sql = statements("router")["notify"]
            await store.fetch(sql, [CHANNEL_REPLY] * len(payloads), payloads, timeout_s=timeout_s)


# ── the worker's part ──


async def ours(session: Session, leases: Sequence[Lease], *, runs_max: int) -> dict[int, Order]:
    """Marked runs of these shards, and how they are to end; at most ``runs_max``."""
    columns = [x.queue_id for x in leases], [x.shard for x in leases]
    rows = await session.fetch(_SQL["ours"], *columns, runs_max)
    return {row["id"]: Order(row["cancelled"], row["ends_as"]) for row in rows}


async def end_ours(session: Session, leases: Sequence[Lease], run_ids: Sequence[int]) -> list[Ended]:
    """End marked runs of these shards, as far as their leases stand. None of them may be in hand, nor on its way there:
    the caller has no refill under way.

    Raises:
        Unavailable: Nothing was written.
        Uncertain: It may have been; safe to repeat.

    Durability: committed before return.
    """
    columns = [x.queue_id for x in leases], [x.shard for x in leases], [x.epoch for x in leases]
    return [Ended.of(row) for row in await session.fetch(_SQL["end_ours"], *columns, run_ids)]
