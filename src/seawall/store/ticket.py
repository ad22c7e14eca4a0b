"""What became of tickets and events, for those who wait for an answer. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from seawall.kernel.seam.event import EventBrief, RunBrief
from seawall.kernel.status import EventStatus, RunStatus
from seawall.store.pool import Row, Store
from seawall.store.statement import statements

INLINE_BYTES_MAX: Final = 8 * 1024
"""A reply or result up to this size comes with its batch: 500 tickets then cost at most 4 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReply:
    """The first reply to an event."""

    run_id: int
    status: int
    content_type: str
    body: bytes | None  # None: larger than INLINE_BYTES_MAX, see reply_body


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedRun:
    """One finished run."""

    id: int
    status: RunStatus
    result_bytes: int
    result: bytes | None  # JSON; None: there is none, or it is larger than INLINE_BYTES_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the store knows about one ticket, all of one moment."""

    ticket_id: bytes
    event_id: bytes  # another id than the ticket's when that request was a duplicate
    status: EventStatus | None  # None: not routed yet
    reason: str
    reply: StoredReply | None
    open_runs: int
    ended: tuple[EndedRun, ...]  # by id, at most 100
    forgotten: bool = False  # all have ended, a day ago or more, and there is no reply (any more)


async def outcomes(store: Store, ids: Sequence[bytes], *, timeout_s: float) -> list[Outcome]:
    """One outcome for each id, in any order.

    Args:
        ids: 1 to 500 ticket ids, or ids of any events.

    Raises:
        Unavailable: The store didn't answer in time.
    """
    wanted = [UUID(bytes=id) for id in ids]
    rows = await store.fetch(statements("ticket")["outcomes"], wanted, INLINE_BYTES_MAX, timeout_s=timeout_s)
    return [_outcome(row) for row in rows]


async def reply_body(store: Store, event_id: bytes, *, timeout_s: float) -> bytes | None:
    """A reply's body, at most ``limit.RESULT_BYTES_MAX``. Raises Unavailable."""
    body: bytes | None = await store.value(
        statements("ticket")["reply_body"], UUID(bytes=event_id), timeout_s=timeout_s
    )
    return body


async def run_result(store: Store, run_id: int, *, timeout_s: float) -> bytes | None:
    """A finished run's result as JSON, at most ``limit.RESULT_BYTES_MAX``. Raises Unavailable."""
    result: bytes | None = await store.value(statements("ticket")["run_result"], run_id, timeout_s=timeout_s)
    return result


async def event_status(store: Store, id: bytes, *, timeout_s: float) -> EventBrief | None:
    """What became of an event, or of the one that it repeats; None: not (yet) in the store. Raises Unavailable."""
    rows = await store.fetch(statements("ticket")["event_status"], UUID(bytes=id), timeout_s=timeout_s)
    if not rows:
        return None
    runs = tuple(
        RunBrief(id=row["run_id"], workflow=row["workflow"] or "", status=RunStatus(row["run_status"]).word)
        for row in rows
        if row["run_id"] is not None
    )
    return EventBrief(id=rows[0]["id"].bytes, status=EventStatus(rows[0]["status"]).name.lower(), runs=runs)


def _outcome(row: Row) -> Outcome:
    reply = None
    if row["reply_run"] is not None:
        reply = StoredReply(
            run_id=row["reply_run"],
            status=row["reply_status"],
            content_type=row["content_type"],
            body=row["reply_body"],
        )
    ended = tuple(
        EndedRun(id=id, status=RunStatus(status), result_bytes=result_bytes, result=result)
        for id, status, result_bytes, result in zip(
            row["ids"] or (), row["statuses"] or (), row["result_bytes"] or (), row["results"] or (), strict=True
        )
    )
    return Outcome(
        ticket_id=row["id"].bytes,
        event_id=row["event_id"].bytes,
        status=None if row["status"] is None else EventStatus(row["status"]),
        reason=row["reason"] or "",
        reply=reply,
        open_runs=row["open_runs"],
        ended=ended,
        forgotten=row["forgotten"],
    )
