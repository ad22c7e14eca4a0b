"""Schedules, and runs that begin by them: each moment of a line has one run, whoever begins it.

Whoever begins runs holds the rows of their lines from the look to the commit. The moment's own row is what makes it one
run: a line that was made anew, or a hand that is quicker, gets none for a moment that has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import msgspec

from seawall.kernel.error import Rejected
from seawall.kernel.event import id_day
from seawall.kernel.placement import AHEAD, STEP
from seawall.kernel.seam.change import Kind
from seawall.kernel.status import DAY_SHIFT
from seawall.store.change import Author, record
from seawall.store.pool import Row, Session, Store
from seawall.store.statement import statements
from seawall.store.wait import Woken

_SQL = statements("cron")

CRONS_MAX = 1000
DUE_MAX = 100
"""Lines in one transaction."""


class Declared(NamedTuple):
    """A schedule as an app declares it; in the order of the statement's arrays."""

    name: str
    expression: str
    zone: str
    overlap: str
    catch_up: str
    tenant: str | None


class Next(NamedTuple):
    """Where a line goes on; in the order of the statement's arrays."""

    name: str
    tenant: str
    moment_us: int
    due_us: int
    blocked: bool = False
    skipped: int = 0
    missed: int = 0


class Begin(NamedTuple):
    """A run that is to begin."""

    name: str
    tenant: str
    moment_us: int
    event_id: bytes
    body: bytes


class Begun(NamedTuple):
    """A run that began."""

    name: str
    tenant: str
    run_id: int
    woken: Woken


async def declare(store: Store, crons: Sequence[Declared]) -> set[str]:
    """Make schedules known; returns the names of those that are new, or were changed.

    Raises:
        Unavailable, Uncertain: Safe to repeat.
    """
    async with store.transaction() as session:
        await session.execute(statements("worker")["lock_registration"])
        await session.execute(_SQL["forget"])
        rows = await session.fetch(_SQL["declare"], *zip(*crons, strict=True))
    return {row["name"] for row in rows}


async def lines(session: Session, names: Sequence[str]) -> list[Row]:
    """Lines that these are to have: name, tenant, expression, zone, spread, moment_us (None: not there yet), now_us."""
    return await session.fetch(_SQL["lines"], names)


async def make_lines(session: Session, made: Sequence[Next]) -> None:
    """Make lines, or have them go on elsewhere."""
    if made:
        columns = [*zip(*sorted(made), strict=True)]  # in one order, so that two workers can't wait in a circle
        await session.execute(_SQL["make_lines"], *columns[:4])


async def tidy(session: Session, names: Sequence[str]) -> None:
    """Drop lines of tenants that are gone, and moments of last week."""
    await session.execute(_SQL["drop_lines"], names)
    await session.execute(_SQL["prune"], names)


async def due(session: Session, names: Sequence[str]) -> tuple[list[Row], set[int]]:
    """Lines that are due, locked until the transaction's end, at most ``DUE_MAX``; and which former runs go on."""
    rows = await session.fetch(_SQL["due"], names, DUE_MAX)
    former = [row["run_id"] for row in rows if row["run_id"] is not None]
    running = await session.fetch(_SQL["running"], former) if former else []
    return rows, {row["id"] for row in running}


async def begin(session: Session, runs: Sequence[Begin]) -> list[Begun]:
    """Begin runs of lines that are locked; a moment that had one already gets none."""
    if not runs:
        return []
    rows = await session.fetch(
        _SQL["begin"],
        [run.name for run in runs],
        [run.tenant for run in runs],
        [run.moment_us for run in runs],
        [UUID(bytes=run.event_id) for run in runs],
        [id_day(run.event_id) << DAY_SHIFT for run in runs],
        [run.body for run in runs],
        [type_of(run.name) for run in runs],
        STEP,
        AHEAD,
    )
    return [Begun(r["name"], r["tenant"], r["run_id"], Woken(r["queue_id"], r["vt"])) for r in rows]


async def go_on(session: Session, lines: Sequence[Next]) -> None:
    if lines:
        await session.execute(_SQL["go_on"], *zip(*lines, strict=True))


def type_of(name: str) -> str:
    """The type of the events by which its runs begin."""
    return f"cron.{name}"


# ── what people ask and change ──


class CronLine(msgspec.Struct, frozen=True, kw_only=True):
    """One schedule as it stands."""

    name: str
    expression: str
    zone: str
    overlap: str
    catch_up: str
    tenant: str | None  # null: every tenant that has a source
    paused: bool
    lines: int  # tenants
    next_at: datetime | None
    last_at: datetime | None  # the moment of the run that began last
    begun: int
    skipped: int  # moments that came while the former run went on
    missed: int  # moments at which no worker was there


async def page(store: Store, *, timeout_s: float) -> list[CronLine]:
    """All schedules, by name.

    Raises:
        Unavailable: The store is away, or takes longer.
    """
    rows = await store.fetch(_SQL["page"], CRONS_MAX, timeout_s=timeout_s)
    return [
        CronLine(
            name=row["name"], expression=row["expression"], zone=row["zone"], overlap=row["overlap"],
            catch_up=row["catch_up"], tenant=row["tenant"], paused=row["paused"], lines=row["lines"],
            next_at=row["next_at"], last_at=row["last_at"], begun=row["begun"], skipped=row["skipped"],
            missed=row["missed"],
        )
        for row in rows
    ]  # fmt: skip


async def pause(store: Store, name: str, author: Author, *, paused: bool, timeout_s: float) -> tuple[str, str]:
    """Begin none of its runs, or go on; in the timeline too. Moments that pass meanwhile are gone.

    Returns:
        How it was, and is.

    Raises:
        Rejected: There is none of this name.
        Unavailable, Uncertain: Safe to repeat.
    """
    words = {True: "paused", False: "on"}
    async with store.transaction(timeout_s=timeout_s) as session:
        row = await session.row(_SQL["lock"], name)
        if row is None:
            raise unknown()
        await session.execute(_SQL["pause"], name, paused)
        if row["paused"] != paused:
            await record(session, author.change(Kind.CRON, name, words[row["paused"]], words[paused]))
    return words[row["paused"]], words[paused]


async def one(session: Session, name: str, tenant: str | None) -> Row:
    """A line, locked, for a run that begins by hand: tenant, zone, expression, last_us, now_us.

    Raises:
        Rejected: There is none, for this tenant or at all, or several of which none was named.
    """
    rows = await session.fetch(_SQL["one"], name, tenant)
    if not rows and await session.row(_SQL["lock"], name) is None:
        raise unknown()
    if not rows:
        whose = "no tenant has a source" if tenant is None else f"it isn't for tenant {tenant}, or that has no source"
        raise Rejected(409, "For nobody", f"cron {name}: {whose}; who comes is noticed within a minute")
    if len(rows) > 1:
        raise Rejected(422, "Which tenant?", f"cron {name} is for every tenant: name one")
    return rows[0]


def unknown() -> Rejected:
    return Rejected(404, "No such cron", "seawall cron list shows those there are")
