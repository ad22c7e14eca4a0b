"""A flush: outcomes of many runs in one statement, refused as a whole when one of their leases is gone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from operator import itemgetter
from typing import NamedTuple
from uuid import UUID

from seawall.kernel.error import SeawallError, Unstorable
from seawall.store.lease import Lease
from seawall.store.pool import Session
from seawall.store.statement import statements


class Step(NamedTuple):
    """A row of ``step``. The order of the fields is the order of the statement's arrays, here and below."""

    run_id: int
    name: str
    nth: int
    result: bytes
    failed: bool
    epoch: int
    attempt: int
    started_us: int


class End(NamedTuple):
    """The last of a run: its row moves to ``run_done``."""

    run_id: int
    status: int  # RunStatus, 5 to 8, with its cause (kernel/cause.py)
    attempt: int
    result: bytes | None
    error: str | None
    started_us: int


class Again(NamedTuple):
    """A run that is called again later: it failed, or it waits. The two numbers are absolute, so that a repeated flush
    counts once."""

    run_id: int
    attempt: int  # failed attempts so far
    delay_ms: int
    waits: int  # how often it was put away to wait
    wakes: int  # how often it had been woken when it was read: one more, and it is ready at once
    failed: bool  # what it remembers of failed steps is forgotten
    started_us: int = 0  # when this execution began; kept of the first one


class Answer(NamedTuple):
    """A row of ``reply``; the first one of an event stays."""

    event_id: UUID
    run_id: int
    status: int
    content_type: str
    body: bytes


class Spent(NamedTuple):
    """A refill whose runs are all done."""

    queue_id: int
    shard: int
    epoch: int
    number: int


@dataclass(slots=True)
class Rows:
    """What one flush writes."""

    leases: Iterable[Lease] = ()
    steps: list[Step] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)
    agains: list[Again] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    spent: list[Spent] = field(default_factory=list)
    listeners: list[int] = field(default_factory=list)  # runs among those in ends and agains that may have open waits


class BrokenFence(SeawallError):
    """A step row of another epoch stands where ours should: two processes ran one run. A bug; the process must end."""

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(f"a step was written under another epoch: {detail}")


async def flush(session: Session, rows: Rows, *, again: bool = False) -> set[Lease] | None:
    """Write it all, or nothing. Safe to repeat under the same epochs.

    Args:
        again: It may have been sent before. Not so, it is sent in a way that a row which is there already refuses;
            only when one does, it is sent once more in the way that passes over such rows.

    Returns:
        None when it is durable; otherwise the leases among those named that still stand: nothing was written, the
        other shards belong to somebody else.

    Raises:
        Unavailable: Nothing was written.
        Uncertain: It may have been: repeat it.
        Unstorable: One of the values can't be stored; nothing was written.
        BrokenFence: See there.

    Durability: committed before return.
    """
    leases = list(rows.leases)
    # In the order in which a router locks runs that it wakes, and others those that they cancel, move or wake: two that
    # want the same ones must not wait in a circle.
    again_columns = _columns(sorted(rows.agains, key=itemgetter(0)), "nnnnnnn")
    values = (
        *_columns(leases, "nnn"),
        *_columns(rows.steps, "nvnvnnnn"),
        *_columns(sorted(rows.ends, key=itemgetter(0)), "nnnvvn"),
        *again_columns[:3],
        *_columns(rows.answers, "vnnvv"),
        *_columns(rows.spent, "nnnn"),
        *again_columns[3:6],
        numbers(sorted(rows.listeners)),
        again_columns[6],
    )
    try:
        row = await session.row(_flush_sql(again=again), *values)
    except Unstorable:
        if again:
            raise
        # A row was there already, or a value is at fault: the other form passes over the one, and says the other.
        row = await session.row(_flush_sql(again=True), *values)
    assert row is not None
    held = set(map(Lease, row["queue_ids"] or (), row["shards"] or (), row["epochs"] or ()))
    if len(held) < len(leases):
        return held
    if row["steps"] < len(rows.steps):
        await _check_epochs(session, rows.steps)
    return None


@cache
def _flush_sql(*, again: bool) -> str:
    sql = statements("worker")["flush"]
    return sql if again else sql.replace("  on conflict do nothing\n", "")


async def _check_epochs(session: Session, steps: Sequence[Step]) -> None:
    """Fewer rows were kept than given: fine when an earlier sending of this very flush did it, else a broken fence."""
    found = await session.fetch(
        statements("worker")["foreign_steps"],
        [s.run_id for s in steps],
        [s.name for s in steps],
        [s.nth for s in steps],
        [s.epoch for s in steps],
    )
    if found:
        raise BrokenFence("; ".join(f"run {r[0]} step {r[1]}/{r[2]}: epoch {r[3]}, ours {r[4]}" for r in found))


def _columns(rows: Sequence[tuple[object, ...]], kinds: str) -> list[object]:
    """Rows as one argument for each column: ``n`` numbers and booleans, as the text of an array; ``v`` values."""
    columns: Iterable[Sequence[object]] = zip(*rows, strict=True) if rows else ((),) * len(kinds)
    return [numbers(column) if kind == "n" else column for kind, column in zip(kinds, columns, strict=True)]


def numbers(column: Iterable[object]) -> str:
    """The text of a PostgreSQL array of numbers or booleans."""
    return "{" + ",".join(map(str, column)) + "}"
