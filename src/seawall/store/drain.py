"""What drains at which rate: throttled queues, replays, old ranges of logs; and which process decides it for all.

A drain's row is how its two sides meet: the governor writes its rate, whoever drains reads it each second, and goes on
at the last rate it read while the store is away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import msgspec

from seawall.guard.governor import Act, Course
from seawall.kernel.error import Rejected
from seawall.kernel.seam.change import Kind
from seawall.store.change import Author, record
from seawall.store.pool import Session, Store
from seawall.store.statement import statements

_SQL = statements("drain")

DRAINS_MAX = 1000

STARTS_LEAST = 5
"""Fewer runs of a queue than these say nothing of how late they start."""

BACKLOG = "backlog"
"""Old ranges of all logs: records a second, of each log."""

SPOOL = "spool"
"""What Kafka hasn't yet: records a second, of each collector."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """One drain, as it was set."""

    name: str
    rate: float
    floor: float
    goal: float
    slope: float | None
    revision: int

    @property
    def governed(self) -> bool:
        """Whether its rate may be another one than its goal."""
        return self.floor < self.goal

    def course(self) -> Course:
        return Course(rate=self.rate, floor=self.floor, goal=self.goal, slope=self.slope)


class Done(msgspec.Struct, frozen=True):
    """What one worker has seen of its work since it started."""

    tried: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the store tells of the work that is going on."""

    written: float  # bytes that the server has ever logged
    done: Mapping[UUID, Done]  # by live worker
    broken: Sequence[str]  # open breakers of any
    slowest: tuple[str, float, float] | None = None  # queue of fresh work that starts latest; how late, of how much: s


async def lead(store: Store, owner: UUID, *, ttl_s: float) -> tuple[bool, float | None]:
    """Lead on, or begin to when nobody does; and the reserve's level, as it was left.

    Raises:
        Unavailable, Uncertain: Nothing is known; whoever leads, leads until its time is over.
    """
    row = await store.row(_SQL["lead"], owner, ttl_s)
    return (False, None) if row is None else (True, row["reserve"])


async def facts(store: Store, *, live_s: float, window_s: float, start_s: float) -> Facts:
    """
    Args:
        live_s: For how long a worker counts that wasn't seen.
        window_s: Starts of runs in the last so many seconds count.
        start_s: How late runs may start where no target was declared.

    Raises:
        Unavailable: The store is away.
    """
    rows = await store.fetch(_SQL["facts"], live_s)
    late = await store.row(_SQL["starts"], window_s, STARTS_LEAST, start_s)
    workers = [row for row in rows if row["owner"] is not None]
    return Facts(
        written=rows[0]["written"],
        done={row["owner"]: Done(row["tried"], row["failed"]) for row in workers},
        broken=sorted({name for row in workers for name in row["broken"]}),
        slowest=(late["name"], late["waited_s"], late["allowed_s"]) if late is not None else None,
    )


async def drains(store: Store) -> list[Drain]:
    """
    Raises:
        Unavailable: The store is away.
    """
    rows = await store.fetch(_SQL["drains"], DRAINS_MAX)
    return [
        Drain(
            name=row["name"], rate=row["rate"], floor=row["floor"], goal=row["goal"], slope=row["slope"],
            revision=row["revision"],
        )
        for row in rows
    ]  # fmt: skip


async def steer(
    store: Store, owner: UUID, rates: Sequence[tuple[Drain, float]], *, act: Act, share: float | None, said: str,
    reserve: float | None,
) -> None:  # fmt: skip
    """Write what was decided for a window, and each drain's rate in the next one. Nothing, when somebody else leads.

    Raises:
        Unavailable, Uncertain: Safe to leave: the next window decides anew.
    """
    await store.execute(
        _SQL["steer"], owner, act.value, share, said, reserve, [d.name for d, _ in rates],
        [d.revision for d, _ in rates], [rate for _, rate in rates],
    )  # fmt: skip


async def keep(store: Store, name: str, *, floor: float, goal: float) -> None:
    """Have a drain that is there by itself, with these bounds.

    Raises:
        Unavailable, Uncertain: Safe to repeat.
    """
    await store.execute(_SQL["keep"], name, floor, goal)


async def rate(store: Store, name: str) -> float | None:
    """Its rate now, a second; None: there is no such drain.

    Raises:
        Unavailable: The store is away.
    """
    found = await store.value(_SQL["rate"], name)
    return None if found is None else float(found)


async def put(session: Session, name: str, course: Course, *, queue_id: int | None = None, by: str = "") -> None:
    """Make a drain, or set it anew, in the caller's transaction."""
    await session.execute(
        _SQL["put"], name, queue_id, course.rate, course.floor, course.goal, course.slope, by
    )  # fmt: skip


async def lift(session: Session, name: str) -> bool:
    """Let a drain go, in the caller's transaction; False: there was none."""
    return bool(await session.execute(_SQL["lift"], name))


# ── for the console ──


class DrainLine(msgspec.Struct, frozen=True, kw_only=True):
    """One drain as it stands; rates are for a second."""

    name: str
    queue: str | None  # that it throttles
    rate: float
    floor: float  # the governor never goes below this
    goal: float  # … nor above this
    set_by: str
    set_at: datetime


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """What the governor did at the end of the last window, and why."""

    led: bool  # somebody decides at this moment
    act: str  # raise, hold, cut
    share: float | None  # the worst signal, as a share of what is allowed; null: it is missing
    said: str  # that signal, in words
    reserve: float | None  # level of the reserve; null: there is none
    at: datetime | None


async def standing(store: Store, *, timeout_s: float) -> tuple[Decided, list[DrainLine]]:
    """
    Raises:
        Unavailable: The store is away, or takes longer.
    """
    row = await store.row(_SQL["decided"], timeout_s=timeout_s)
    assert row is not None, "the migration made it"
    found = await store.fetch(_SQL["drains"], DRAINS_MAX, timeout_s=timeout_s)
    decided = Decided(
        led=row["led"], act=row["act"], share=row["share"], said=row["said"], reserve=row["reserve"],
        at=row["decided_at"],
    )  # fmt: skip
    return decided, [
        DrainLine(
            name=r["name"], queue=r["queue"], rate=r["rate"], floor=r["floor"], goal=r["goal"], set_by=r["set_by"],
            set_at=r["set_at"],
        )
        for r in found
    ]  # fmt: skip


async def throttle(
    store: Store, queue: str, course: Course | None, author: Author, *, timeout_s: float
) -> tuple[str, str]:  # fmt: skip
    """Begin runs of a queue at a rate, or (None) no longer; said in the timeline, in one transaction.

    Returns:
        What was in force before, and what is now.

    Raises:
        Rejected: There is no such queue.
        Unavailable, Uncertain: Safe to repeat.
    """
    async with store.transaction(timeout_s=timeout_s) as session:
        row = await session.row(_SQL["find_queue"], queue)
        if row is None:
            raise Rejected(404, "No such queue", "seawall queues list shows those there are")
        former = None
        if row["rate"] is not None:
            former = Course(rate=row["rate"], floor=row["floor"], goal=row["goal"], slope=row["slope"])
        name = f"queue:{queue}"
        if course is None:
            await lift(session, name)
        else:
            await put(session, name, course, queue_id=row["id"], by=author.by)
        before, after = said(former), said(course)
        if after != before:
            await record(session, author.change(Kind.THROTTLE, queue, before, after))
    return before, after


def said(course: Course | None) -> str:
    """A course in words."""
    if course is None:
        return "no throttle"
    if course.rate >= course.goal:
        return f"{course.rate:g}/s"
    pace = "" if course.slope is None else f" by {course.slope * 60:g}/s a minute"
    return f"{course.rate:g}/s, rising to {course.goal:g}/s{pace}"
