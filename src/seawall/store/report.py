"""What people ask the store: events, runs and workflows, newest first, bounded in rows and in what a query looks at.

Values here are shapes of the admin API: ids are text, since a JSON reader may round a number beyond 2^53.

A page with a filter looks at no more than ``SCAN_ROWS`` rows. It may so be shorter than its limit and still have a
cursor: what is rare among millions is found in several quick calls, and no call is slow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from seawall.kernel.cause import word_of
from seawall.kernel.event import headers_of, id_day
from seawall.kernel.seam.run import step_parts
from seawall.kernel.selection import Selection
from seawall.kernel.status import DAY_SHIFT, EventStatus, RunStatus
from seawall.store.narrow import queue_ids, source_ids, texts, workflow_ids
from seawall.store.pool import Row, Store
from seawall.store.statement import statements
from seawall.store.timeline import Moment, timeline

_SQL = statements("report")

SCAN_ROWS: Final = 10_000
PAGE_MAX: Final = 500
CHECKSUM_BYTES_MAX: Final = 32 * 1024 * 1024
"""Bodies that one page reads for their checksums; beyond it they are null, and the event itself has it."""

RUNS_MAX: Final = 100
STEPS_MAX: Final = 1_000
STEP_RESULT_BYTES_MAX: Final = 4 * 1024

RUN_ID_MAX: Final = 2**63 - 1
EVENT_ID_MAX: Final = b"\xff" * 16
EVENT_ID_MIN: Final = bytes(16)


class EventLine(msgspec.Struct, frozen=True, kw_only=True):
    """One event in a list."""

    id: str
    source: str
    source_id: str
    type: str
    tenant: str
    received_at: datetime
    status: str
    cause: str | None  # the word for why it is held, conflict or dead
    reason: str | None
    dedupe_key: str | None
    bytes: int
    body_sha256: str | None


class RunLine(msgspec.Struct, frozen=True, kw_only=True):
    """One run in a list."""

    id: str
    event: str
    workflow: str
    version: str
    queue: str
    tenant: str
    status: str
    attempt: int
    deaths: int
    created_at: datetime
    run_after: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    error: str | None
    cause: str | None  # the word for why it failed, is dead or was cancelled


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One finished step of a run."""

    run: str
    name: str
    task: str  # of the run, that took it; "": the run's own
    nth: int
    attempt: int
    started_at: datetime
    finished_at: datetime
    bytes: int
    result: msgspec.Raw | None  # left out when larger than STEP_RESULT_BYTES_MAX


class RunDetail(RunLine, frozen=True, kw_only=True):
    """One run with its result and steps."""

    result: msgspec.Raw | None
    steps: tuple[Step, ...]
    steps_truncated: bool
    first_started_at: datetime | None = None  # ``started_at`` is of the last execution
    timeline: tuple[Moment, ...] = ()


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where the journal keeps an event."""

    log: str
    segment: int
    offset: int


class ReplyLine(msgspec.Struct, frozen=True, kw_only=True):
    """What a workflow answered, without the body."""

    run: str
    status: int
    bytes: int
    at: datetime


class EventDetail(EventLine, frozen=True, kw_only=True):
    """One event. For a duplicate's id it is the first event's, with ``duplicate_of`` naming that one."""

    duplicate_of: str | None
    routed_at: datetime
    headers: tuple[tuple[str, str], ...]
    target: str
    peer: str
    key_id: int
    config_version: int
    journal: Place
    runs: tuple[RunLine, ...]
    reply: ReplyLine | None


ANYTHING: Final = Selection()


async def ping(store: Store, *, timeout_s: float) -> None:
    """Prove that the store answers. Raises Unavailable."""
    await store.value(_SQL["ping"], timeout_s=timeout_s)


async def events(
    store: Store, narrow: Selection, *, before: bytes, limit: int, timeout_s: float, checksums: bool = True
) -> tuple[list[EventLine], bytes | None]:
    """A page of events, newest first, and where the next one begins (None: there is none).

    Args:
        narrow: Its sources are names or ids.
        before: Only ids less than this.
        limit: 1 to PAGE_MAX.
        checksums: False: bodies are left unread, so no line has ``body_sha256`` but that of an empty one.
    """
    sources = await source_ids(store, narrow.source, timeout_s=timeout_s)
    if sources == []:
        return [], None
    one = sources is not None and len(sources) == 1
    first, last = narrow.event_ids
    narrowed = narrow != replace(ANYTHING, source=narrow.source, since_us=narrow.since_us, until_us=narrow.until_us)
    low: UUID | None = None
    cursor = UUID(bytes=min(before, last) if narrow.until_us is not None else before)
    if one and narrowed:
        assert sources is not None
        low = await store.value(_SQL["source_events_floor"], sources[0], cursor, SCAN_ROWS - 1, timeout_s=timeout_s)
    elif not one and (narrowed or sources is not None):
        low = await store.value(_SQL["events_floor"], cursor, SCAN_ROWS - 1, timeout_s=timeout_s)
    if low is not None and low.bytes <= first:
        low = None
    rows = await store.fetch(
        _SQL["source_events_page" if one else "events_page"],
        cursor,
        low or UUID(bytes=first),
        sources[0] if one and sources is not None else sources,
        narrow.likes,
        narrow.statuses,
        texts(narrow.tenant),
        limit,
        CHECKSUM_BYTES_MAX if checksums else 0,
        narrow.cause_numbers,
        timeout_s=timeout_s,
    )
    end = rows[-1]["id"].bytes if len(rows) == limit else (low.bytes if low is not None else None)
    return [EventLine(**_event_fields(row)) for row in rows], end


async def event(store: Store, id: bytes, *, timeout_s: float) -> EventDetail | None:
    """One event with its runs; None: not (yet) in the store."""
    row = await store.row(_SQL["event"], UUID(bytes=id), timeout_s=timeout_s)
    if row is None:
        return None
    found = await runs(store, before=RUN_ID_MAX, limit=RUNS_MAX, timeout_s=timeout_s, event=row["id"].bytes)
    reply = None
    if row["reply_run"] is not None:
        reply = ReplyLine(
            run=str(row["reply_run"]), status=row["reply_status"], bytes=row["reply_bytes"], at=row["replied_at"]
        )
    return EventDetail(
        **{**_event_fields(row), "id": str(UUID(bytes=id))},
        duplicate_of=str(row["first_id"]) if row["first_id"] is not None else None,
        routed_at=row["routed_at"],
        headers=tuple(headers_of(row["headers"])),
        target=row["target"],
        peer=row["peer"],
        key_id=row["key_id"],
        config_version=row["config_version"],
        journal=Place(log=row["log_id"].hex, segment=row["segment"], offset=row["offset"]),
        runs=tuple(found[0]),
        reply=reply,
    )


async def event_body(store: Store, id: bytes, *, timeout_s: float) -> bytes | None:
    """Exactly the bytes that came; None: not (yet) in the store."""
    body: bytes | None = await store.value(_SQL["event_body"], UUID(bytes=id), timeout_s=timeout_s)
    return body


async def runs(
    store: Store, narrow: Selection = ANYTHING, *, before: int, limit: int, timeout_s: float, event: bytes | None = None
) -> tuple[list[RunLine], int | None]:
    """A page of runs, finished or not, newest first, and where the next one begins (None: there is none).

    Args:
        narrow: Its sources are names or ids.
        event: Only runs of this event; then nothing but states and workflows narrow it further.
    """
    workflows = await workflow_ids(store, narrow, timeout_s=timeout_s)
    if event is not None:
        return await _runs_of_event(
            store, narrow, event, workflows, before=before, limit=limit, timeout_s=timeout_s
        )  # fmt: skip
    sources = await source_ids(store, narrow.source, timeout_s=timeout_s)
    queues = await queue_ids(store, narrow.queue, timeout_s=timeout_s)
    if [] in (sources, workflows, queues):
        return [], None
    first, last = narrow.run_ids
    low: int | None = None
    before = min(before, last) if narrow.until_us is not None else before
    if narrow != ANYTHING:
        low = await store.value(_SQL["runs_floor"], before, SCAN_ROWS - 1, timeout_s=timeout_s)
    if low is not None and low <= first:
        low = None
    rows = await store.fetch(
        _SQL["runs_page"],
        before,
        low if low is not None else (first if narrow.since_us is not None else -RUN_ID_MAX),
        narrow.statuses,
        workflows,
        sources,
        texts(narrow.tenant),
        limit,
        narrow.likes,
        narrow.cause_numbers,
        *(UUID(bytes=id) for id in narrow.event_ids),
        queues,
        timeout_s=timeout_s,
    )
    end = rows[-1]["id"] if len(rows) == limit else low
    return [RunLine(**_run_fields(row)) for row in rows], end


async def run(store: Store, id: int, *, timeout_s: float) -> RunDetail | None:
    """One run with its result and steps; None: there is none."""
    row = await store.row(_SQL["run"], id, timeout_s=timeout_s)
    if row is None:
        return None
    found = await steps(store, [id], timeout_s=timeout_s)
    drawn = await timeline(store, id, timeout_s=timeout_s)
    return RunDetail(
        **_run_fields(row),
        result=msgspec.Raw(row["result"]) if row["result"] is not None else None,
        steps=tuple(found[:STEPS_MAX]),
        steps_truncated=len(found) > STEPS_MAX,
        first_started_at=drawn.first_started_at if drawn is not None else None,
        timeline=drawn.moments if drawn is not None else (),
    )


async def steps(store: Store, run_ids: Sequence[int], *, timeout_s: float) -> list[Step]:
    """Finished steps of at most RUNS_MAX runs, by run and time; one more than STEPS_MAX when there are more."""
    rows = await store.fetch(_SQL["steps"], run_ids, STEP_RESULT_BYTES_MAX, STEPS_MAX + 1, timeout_s=timeout_s)
    return [
        Step(
            run=str(row["run_id"]),
            name=step_parts(row["name"])[0],
            task=step_parts(row["name"])[1],
            nth=row["nth"],
            attempt=row["attempt"],
            started_at=row["started_at"],
            finished_at=row["finished_at"],
            bytes=row["bytes"],
            result=msgspec.Raw(row["result"]) if row["result"] is not None else None,
        )
        for row in rows
    ]


async def source_kind(store: Store, name: str, *, timeout_s: float | None = None) -> str | None:
    """Kind of a live source; None: there is none of this name."""
    kind: str | None = await store.value(_SQL["source_kind"], name, timeout_s=timeout_s)
    return kind


async def _runs_of_event(
    store: Store, narrow: Selection, event: bytes, workflows: Sequence[int] | None, *, before: int, limit: int,
    timeout_s: float,
) -> tuple[list[RunLine], int | None]:  # fmt: skip
    # Ids of a hostile query may carry any day; beyond what a bigint holds there are no runs.
    first = min(id_day(event) << DAY_SHIFT, RUN_ID_MAX)
    last = min(first | ((1 << DAY_SHIFT) - 1), RUN_ID_MAX)
    rows = await store.fetch(
        _SQL["runs_of_event"],
        UUID(bytes=event),
        first,
        last,
        before,
        narrow.statuses,
        workflows,
        limit,
        timeout_s=timeout_s,
    )
    return [RunLine(**_run_fields(row)) for row in rows], rows[-1]["id"] if len(rows) == limit else None


def _event_fields(row: Row) -> dict[str, Any]:
    return {
        "id": str(row["id"]),
        "source": row["source"],
        "source_id": str(row["source_id"]),
        "type": row["type"],
        "tenant": row["tenant"],
        "received_at": row["received_at"],
        "status": EventStatus(row["status"]).name.lower(),
        "cause": word_of(row["cause"]),
        "reason": row["reason"],
        "dedupe_key": row["dedupe_key"],
        "bytes": row["bytes"],
        "body_sha256": row["sha256"].hex() if row["sha256"] is not None else None,
    }


def _run_fields(row: Row) -> dict[str, Any]:
    return {
        "id": str(row["id"]),
        "event": str(row["event_id"]),
        "workflow": row["workflow"] or "",
        "version": row["version"] or "",
        "queue": row["queue"] or "",
        "tenant": row["tenant"],
        "status": RunStatus(row["status"]).word,
        "attempt": row["attempt"],
        "deaths": row["deaths"],
        "created_at": row["created_at"],
        "run_after": row["run_after"],
        "started_at": row["started_at"],
        "finished_at": row["finished_at"],
        "error": row["error"],
        "cause": word_of(row["cause"]),
    }
