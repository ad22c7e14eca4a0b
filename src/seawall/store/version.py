"""Versions of workflows in people's hands: which one new events start, whether they start any, and runs that are moved.

What somebody chooses stands until somebody chooses otherwise, or no worker has that version any more. Of a frozen
workflow new runs are held: their rows are there, so nothing is lost, and a router lets them go, in fair order, when it
thaws.

A run is moved when nobody can have it in hand. One that waits is in nobody's; a ready one is set aside first, so that
no refill takes it, as one that is held was; once the refills of before have ended, whoever has taken it has said so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from seawall.kernel.error import Rejected
from seawall.kernel.seam.change import Kind
from seawall.store.change import Author, record
from seawall.store.earlier import batches_passed, refills_passed
from seawall.store.pool import Row, Session, Store
from seawall.store.statement import statements
from seawall.store.workflow import rechoose

_SQL = statements("version")

LINES_MAX: Final = 1000
HELD_MAX: Final = 100_000
LIVE_S: Final = 15.0
"""A worker that was seen so long ago counts as there: three times as long as a lease that nobody renews, by default."""

MOVE_MAX: Final = 1000
"""Runs that are moved at once."""

WAITING, HELD = 1, 2
THAW_MAX: Final = 1000
"""Runs that are let go at once."""


class WorkflowLine(msgspec.Struct, frozen=True, kw_only=True):
    """One registered version of a workflow."""

    name: str
    version: str
    on: str
    queue: str
    active: bool  # new runs take it
    by_hand: bool  # somebody chose it
    frozen: bool  # new runs of the workflow are held
    live: bool  # a live worker has it
    held: int  # runs that wait for the workflow to thaw; said at its active version, counted up to HELD_MAX
    registered_at: datetime


class Missed(msgspec.Struct, frozen=True, kw_only=True):
    """A run that wasn't moved."""

    id: str
    why: str


@dataclass(slots=True)
class Moved:
    """What became of runs that were to be moved."""

    moved: list[int] = field(default_factory=list)
    missed: dict[int, str] = field(default_factory=dict)  # why


async def lines(store: Store, *, timeout_s: float) -> list[WorkflowLine]:
    """All versions, by name, the newest first.

    Raises:
        Unavailable: The store is away, or takes longer.
    """
    rows = await store.fetch(_SQL["lines"], LINES_MAX, LIVE_S, HELD_MAX, timeout_s=timeout_s)
    return [
        WorkflowLine(
            name=row["name"], version=row["version"], on=row["pattern"], queue=row["queue"], active=row["active"],
            by_hand=row["by_hand"], frozen=row["frozen"], live=row["live"], held=row["held"],
            registered_at=row["registered_at"],
        )
        for row in rows
    ]  # fmt: skip


Choice = Callable[[Sequence[Row]], int | None]
"""Of a workflow's versions, the newest first, the id of one; None: whichever workers have. Raises Rejected."""


async def choose(store: Store, name: str, choice: Choice, author: Author, *, timeout_s: float) -> tuple[str, str]:
    """Have new events start a version, and say so in the timeline, in one transaction.

    Returns:
        What was in force before, and what is now.

    Raises:
        Rejected: There is no such workflow, or the choice can't be made.
        Unavailable, Uncertain: Safe to repeat.
    """
    async with store.transaction(timeout_s=timeout_s) as session:
        before = await _versions(session, name)
        await session.execute(_SQL["put_hand"], name, choice(before), before[0]["frozen"])
        await rechoose(session, LIVE_S)
        return await _tell(session, name, before, author)


async def freeze(store: Store, name: str, author: Author, *, frozen: bool, timeout_s: float) -> tuple[str, str]:
    """Hold what new events would start of a workflow, or let it go again. Batches of routers that were under way have
    ended on return, unless one takes longer than `SETTLE_S` of cancel.py.

    Returns:
        What was in force before, and what is now.

    Raises:
        Rejected: There is no such workflow.
        Unavailable, Uncertain: Safe to repeat.
    """
    async with store.transaction(timeout_s=timeout_s) as session:
        before = await _versions(session, name)
        by_hand = next((row["id"] for row in before if row["by_hand"]), None)
        await session.execute(_SQL["put_hand"], name, by_hand, frozen)
        await session.execute(_SQL["put_frozen"], name, frozen)
        told = await _tell(session, name, before, author)
    await batches_passed(store, timeout_s=timeout_s)
    return told


def version(wanted: str) -> Choice:
    """The choice of a version by its name."""

    def choose(rows: Sequence[Row]) -> int:
        row = next((row for row in rows if row["version"] == wanted), None)
        if row is None:
            raise Rejected(404, "No such version", f"there are: {', '.join(row['version'] for row in rows)}")
        if not row["live"]:
            raise Rejected(409, "Nobody has it", f"no live worker has version {wanted}: its runs would only wait")
        return int(row["id"])

    return choose


def previous(rows: Sequence[Row]) -> int:
    """The choice of the version before the one that is active, of those that live workers have."""
    at = next((n for n, row in enumerate(rows) if row["active"]), -1)
    older = next((row for row in rows[at + 1 :] if row["live"]), None)
    if older is None:
        raise Rejected(409, "Nothing to go back to", "no live worker has an older version: start one that does")
    return int(older["id"])


def automatic(rows: Sequence[Row]) -> None:
    """No choice: the newest version that workers have."""


async def move(store: Store, run_ids: Sequence[int], to_version: str, author: Author, *, timeout_s: float) -> Moved:
    """Have unfinished runs go on with another version of their workflow, in its queue. What they have done is kept.

    Args:
        run_ids: At most MOVE_MAX.

    Raises:
        Unavailable, Uncertain: Some may be moved, and some may be held (state 2) that were ready: repeating moves
            them, and leaves them held.

    Durability: committed before return. The timeline has one line for each workflow.
    """
    assert len(run_ids) <= MOVE_MAX, len(run_ids)
    done, aside = Moved(), list[int]()
    names: dict[int, tuple[str, str]] = {}
    async with store.transaction(timeout_s=timeout_s) as session:
        rows = {row["id"]: row for row in await session.fetch(_SQL["set_aside"], list(run_ids), to_version)}
        for id in run_ids:
            row = rows.get(id)
            why = _unmovable(row, to_version)
            if row is None or why:
                done.missed[id] = why
                continue
            names[id] = (row["name"], row["version"])
            (done.moved if row["state"] == WAITING else aside).append(id)
    if aside:
        held = [rows[id]["state"] == HELD for id in aside]
        certain = await refills_passed(store, timeout_s=timeout_s)
        moved = set(await store.value(_SQL["move"], aside, to_version, not certain, held, timeout_s=timeout_s))
        done.moved += [id for id in aside if id in moved]
        done.missed |= {id: "a worker has it in hand: try again when it waits" for id in aside if id not in moved}
    await _tell_moved(store, [names[id] for id in done.moved], to_version, author, timeout_s=timeout_s)
    return done


def _unmovable(row: Row | None, to_version: str) -> str:
    if row is None:
        return "it has ended, or never was"
    if row["to_id"] is None:
        return f"workflow {row['name']} has no version {to_version}"
    if row["there"]:
        return f"it has version {to_version} already"
    return "" if row["state"] in (0, 1, 2, 3) else "it is being cancelled"


async def _tell_moved(
    store: Store, moved: Sequence[tuple[str, str]], to_version: str, author: Author, *, timeout_s: float
) -> None:
    async with store.transaction(timeout_s=timeout_s) as session:
        for name, former in sorted(set(moved)):
            count = moved.count((name, former))
            after = f"{count} run{'s' if count != 1 else ''} moved to version {to_version}"
            await record(session, author.change(Kind.WORKFLOW, name, f"version {former}", after))


# ── the router's part ──


async def freeze_new(session: Session, runs: Sequence[tuple[bytes, int]]) -> None:
    """In a router's transaction: hold runs that its batch has begun, by event and workflow."""
    events, workflows = zip(*runs, strict=True)
    await session.execute(_SQL["freeze_new"], [UUID(bytes=id) for id in events], workflows)


async def thaw(store: Store, place: Callable[[int, str], int], *, timeout_s: float) -> int:
    """Let go of runs that were held while their workflow was frozen, and isn't any more; returns how many were looked
    at, at most THAW_MAX.

    Args:
        place: Gives the virtual time of a queue's and tenant's next run.

    Raises:
        Unavailable, Uncertain: Safe to repeat.
    """
    async with store.transaction(timeout_s=timeout_s) as session:
        rows = await session.fetch(_SQL["thawed"], THAW_MAX)
        if rows:
            held = [row for row in rows if row["queue_id"] is not None]
            await session.execute(
                _SQL["thaw"], [row["name"] for row in rows], [row["run_id"] for row in rows],
                [row["run_id"] for row in held], [place(row["queue_id"], row["tenant"]) for row in held],
            )  # fmt: skip
    return len(rows)


async def _versions(session: Session, name: str) -> list[Row]:
    """All versions of a workflow, the newest first, behind the lock that orders who registers and who chooses."""
    await session.execute(statements("worker")["lock_registration"])
    rows = await session.fetch(_SQL["versions"], name, LIVE_S)
    if not rows:
        raise Rejected(404, "No such workflow", "seawall workflows list shows those there are")
    return rows


async def _tell(session: Session, name: str, before: Sequence[Row], author: Author) -> tuple[str, str]:
    former, now = _said(before), _said(await session.fetch(_SQL["versions"], name, LIVE_S))
    if former != now:
        await record(session, author.change(Kind.WORKFLOW, name, former, now))
    return former, now


def _said(rows: Sequence[Row]) -> str:
    active = next((row for row in rows if row["active"]), None)
    parts = ["no version" if active is None else f"version {active['version']}"]
    if any(row["by_hand"] for row in rows):
        parts.append("by hand")
    if rows[0]["frozen"]:
        parts.append("frozen")
    return ", ".join(parts)
