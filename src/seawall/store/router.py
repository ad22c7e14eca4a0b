"""The router's one transaction: a batch of records becomes events, runs, tickets, duplicates and the new position.

Two statements and a NOTIFY, whatever the size of the batch. The first moves the position and claims dedupe keys; only
then is it known what each record becomes, so the caller is asked (``decide``) before the second one writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from asyncpg.pgproto.pgproto import UUID

from seawall.kernel.allowance import Allowance, allowance
from seawall.kernel.cause import Cause, with_cause
from seawall.kernel.error import Fenced, SeawallError
from seawall.kernel.event import Record
from seawall.kernel.seam.journal import Position
from seawall.kernel.status import DAY_SHIFT, EventStatus
from seawall.store.driver import Unheard
from seawall.store.line import key_columns
from seawall.store.pool import Row, Session, Store, text_array
from seawall.store.position import Range
from seawall.store.statement import statements
from seawall.store.version import freeze_new
from seawall.store.wait import SHAPES_MAX, Noted, note, notices, shapes

_SQL = statements("router")

WORKFLOWS_MAX = 10_000
"""Active workflows that a router knows. Beyond it the newest begin nothing, and an alert says so."""

REVOKED_MAX = 100_000
"""Secrets revoked before the newest so many are no longer known as such: their events are long routed."""

DAY_MAX = (1 << (63 - DAY_SHIFT)) - 1


class Stale(SeawallError):
    """The catalogue that the batch was judged by has changed. Nothing was written: read it again and repeat."""

    def __init__(self) -> None:
        super().__init__("workflows or secrets changed since they were read")


class Collapsed(SeawallError):
    """Some of the events were collapsed into others earlier, or stored as what no other is collapsed into, so they
    claim nothing. Nothing was written: repeat without their claims."""

    def __init__(self, ids: frozenset[bytes]) -> None:
        super().__init__("events of the batch were judged earlier, and claim no key")
        self.ids = ids


@dataclass(frozen=True, slots=True)
class Version:
    """Names one state of workflows, queues and secrets."""

    workflows: str
    sources: str
    shapes: str


@dataclass(frozen=True, slots=True)
class Workflow:
    """An active version of a workflow: events of types that match its pattern start a run of it."""

    id: int
    name: str
    pattern: str
    queue_id: int
    shards: int  # of its queue
    allowance: Allowance | None = None  # with at least one rule
    priority: int = 0
    frozen: bool = False  # new runs of it are held


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What decides about events, as it was at ``version`` or later."""

    version: Version
    workflows: Sequence[Workflow]
    # By source id and key id: when the secret was revoked, wall clock; key 0 stands for the whole source: when removed.
    revoked_us: Mapping[tuple[bytes, int], int]
    shapes: Mapping[str, Sequence[tuple[str, ...]]]  # by type, by which fields its events can be waited for
    unread: str = ""  # the first workflow beyond WORKFLOWS_MAX; "": none is


@dataclass(frozen=True, slots=True)
class Key:
    """An event's wish to be the first under its dedupe key."""

    source_id: bytes
    key_hash: bytes
    event_id: bytes
    body_hash: bytes
    received_us: int
    window_us: int


@dataclass(frozen=True, slots=True)
class Holder:
    """The event that holds a dedupe key."""

    event_id: bytes
    body_hash: bytes


Holders = Mapping[tuple[bytes, bytes], Holder]
"""By source id and key hash."""


@dataclass(frozen=True, slots=True)
class Move:
    """The range's position after the batch."""

    range: Range
    to: Position

    @property
    def finishes(self) -> bool:
        return self.range.end is not None and self.to >= self.range.end


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A row of ``event``."""

    record: Record
    at: Position  # the end of its frame
    type: str
    status: EventStatus
    reason: str | None = None
    cause: Cause | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A row of ``run``; it is made only when its event is inserted now."""

    event_id: bytes
    day: int
    workflow_id: int
    tenant: str
    queue_id: int
    shard: int
    ticket: bool
    vt: int
    keys: tuple[bytes, ...] = ()  # of its workflow's limits
    gates: tuple[bytes, ...] = ()  # of its workflow's rates; with any of either it waits in a line


@dataclass(frozen=True, slots=True)
class Note:
    """A record that could not be stored as it is."""

    at: Position
    tries: int
    error: str


@dataclass(slots=True)
class Writes:
    """What a batch becomes."""

    events: list[Event] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    deferred: list[Run] = field(default_factory=list)  # that are made when their queue takes more
    duplicates: list[tuple[bytes, bytes]] = field(default_factory=list)  # (its id, the first event's id)
    tickets: list[tuple[bytes, bytes]] = field(default_factory=list)  # (its id, the id of the event that runs)
    notices: list[tuple[str, str]] = field(default_factory=list)  # (channel, payload)
    noted: list[Noted] = field(default_factory=list)  # events that can be waited for
    frozen: list[tuple[bytes, int]] = field(default_factory=list)  # (event, workflow) of runs that are to be held
    passed: int = 0  # records of events that were collapsed before, of which nothing is written


@dataclass(frozen=True, slots=True)
class Kept:
    """How many rows were inserted; fewer than asked for when records were read again."""

    events: int = 0
    runs: int = 0
    duplicates: int = 0
    unheard: str = ""  # why nobody was told of them; "": somebody was


Decide = Callable[[Holders, Mapping[Position, int]], Writes]
"""Called in the transaction with who holds the claimed keys (only events outside the batch), and with the time in
milliseconds of each note's first writing."""


async def commit(
    store: Store,
    move: Move,
    keys: Sequence[Key],
    claimants: Sequence[bytes],
    notes: Sequence[Note],
    version: Version,
    decide: Decide,
    *,
    timeout_s: float,
) -> Kept:
    """Store one batch and its position, or nothing.

    Args:
        keys: Claims, at most one for each source and key.
        claimants: The ids of all events that wish for a key, those of the claims among them.
        version: The catalogue's, by which ``decide`` will judge.

    Raises:
        Fenced: The range's position isn't where the caller thinks. Nothing was written.
        Stale: The catalogue changed. Nothing was written.
        Collapsed: Some of the claimants were stored earlier, and hold no key. Nothing was written.
        Unstorable: A value was refused. Nothing was written.
        Unavailable: Nothing was written.
        Uncertain: It may have been committed: the range's position tells.

    Durability: everything is committed on return.
    Cancelled: rolled back, or as Uncertain.
    """

    async def attempt(*, notify: bool) -> Kept:
        async with store.transaction(timeout_s=timeout_s) as session:
            holders = await _claim(session, move, keys, claimants, version)
            firsts = await _note(session, move.to.log_id, notes) if notes else {}
            writes = decide(holders, firsts)
            kept = await _keep(session, move.to.log_id, writes)
            if writes.frozen:
                await freeze_new(session, writes.frozen)
            if writes.noted:
                writes.notices.extend(notices(await note(session, writes.noted)))
            if kept.events < len(writes.events):
                await _check_claims(session, keys, holders)
            if move.finishes:
                await session.execute(_SQL["finish_range"], UUID(move.to.log_id), move.range.part)
            if writes.notices and notify:
                channels, payloads = zip(*writes.notices, strict=True)
                await session.fetch(_SQL["notify"], channels, payloads)
        return kept

    try:
        return await attempt(notify=True)
    except Unheard as error:
        # Whoever waits for a notification also looks by itself: that is later, and routing nothing would be worse.
        return replace(await attempt(notify=False), unheard=error.cause)


async def _claim(
    session: Session, move: Move, keys: Sequence[Key], claimants: Sequence[bytes], version: Version
) -> Holders:
    rows = await session.fetch(
        _SQL["claim"],
        *move.range.place(),
        move.to.segment_id,
        move.to.offset_bytes,
        [UUID(k.source_id) for k in keys],
        [k.key_hash for k in keys],
        [UUID(k.event_id) for k in keys],
        [k.body_hash for k in keys],
        [k.received_us for k in keys],
        [k.window_us for k in keys],
        move.to.salt,
        None if move.range.end is None else move.range.end.segment_id,
        None if move.range.end is None else move.range.end.offset_bytes,
        [UUID(id) for id in claimants],
    )
    first = rows[0]
    if first["moved"] == 0:
        raise Fenced(f"part {move.range.part} of log {move.to.log_id.hex()}")
    if Version(first["workflows"], first["sources"], first["shapes"]) != version:
        raise Stale
    if first["collapsed"]:
        raise Collapsed(frozenset(id.bytes for id in first["collapsed"]))
    return {
        (row["source_id"].bytes, row["key_hash"]): Holder(row["event_id"].bytes, row["body_hash"])
        for row in rows
        if row["event_id"] is not None
    }


async def _check_claims(session: Session, keys: Sequence[Key], holders: Holders) -> None:
    """Of a batch with events that were stored before: none may have claimed a key that it lost when it was judged. The
    key may be forgotten since, and what came later would be collapsed into an event that never ran."""
    claimed = [UUID(k.event_id) for k in keys if (k.source_id, k.key_hash) not in holders]
    found = await session.value(_SQL["never_first"], claimed) if claimed else None
    if found:
        raise Collapsed(frozenset(id.bytes for id in found))


async def _note(session: Session, log_id: bytes, notes: Sequence[Note]) -> dict[Position, int]:
    rows = await session.fetch(
        _SQL["note"],
        UUID(log_id),
        [n.at.segment_id for n in notes],
        [n.at.offset_bytes for n in notes],
        [n.tries for n in notes],
        text_array(n.error for n in notes),
    )
    return {Position(log_id, row["segment"], row["offset"]): row["at_ms"] for row in rows}


async def _keep(session: Session, log_id: bytes, writes: Writes) -> Kept:
    if not (writes.events or writes.duplicates):
        return Kept()
    lined = [run for run in writes.runs if run.keys or run.gates]
    row = await session.row(
        _SQL["keep"],
        UUID(log_id),
        *_event_columns(writes.events),
        *_run_columns([run for run in writes.runs if not (run.keys or run.gates)] if lined else writes.runs),
        [UUID(id) for id, _ in writes.duplicates],
        [UUID(first) for _, first in writes.duplicates],
        [UUID(id) for id, _ in writes.tickets],
        [UUID(event) for _, event in writes.tickets],
        *_run_columns(lined),
        *key_columns([(run.keys, run.gates) for run in lined]),
        *_run_columns(writes.deferred),
    )
    assert row is not None
    return Kept(row["events"], row["runs"], row["duplicates"])


def _event_columns(events: Sequence[Event]) -> list[list[object]]:
    """In the order of statement ``keep``."""
    records = [e.record for e in events]
    return [
        [UUID(r.id) for r in records],
        [UUID(r.source_id) for r in records],
        [*text_array(r.source for r in records)],
        [*text_array(r.tenant for r in records)],
        [*text_array(e.type for e in events)],
        [with_cause(e.status, e.cause) for e in events],
        [e.reason for e in events],
        [r.received_us for r in records],
        [None if e.key is None else text_array((e.key,))[0] for e in events],
        [r.headers for r in records],
        [r.body for r in records],
        [*text_array(r.target for r in records)],
        [*text_array(r.peer for r in records)],
        [r.key_id for r in records],
        [r.config_version for r in records],
        [e.at.segment_id for e in events],
        [e.at.offset_bytes for e in events],
    ]


def _ruled(row: Row) -> Allowance | None:
    found = allowance(row["name"], row["allowance"])
    return found if found is not None and found.rules else None


def _run_columns(runs: Sequence[Run]) -> list[list[object]]:
    """In the order of statement ``keep``."""
    return [
        [min(r.day, DAY_MAX) << DAY_SHIFT for r in runs],
        [UUID(r.event_id) for r in runs],
        [r.workflow_id for r in runs],
        [*text_array(r.tenant for r in runs)],
        [r.queue_id for r in runs],
        [r.shard for r in runs],
        [r.ticket for r in runs],
        [r.vt for r in runs],
    ]


async def catalogue(store: Store) -> Catalogue:
    """Active workflows, revoked secrets and removed sources. Its version was read first, so a change under way is seen
    next time.

    Raises:
        Unavailable: The store is away.
    """
    version = await store.row(_SQL["catalogue_version"])
    assert version is not None
    workflows = await store.fetch(_SQL["active_workflows"], WORKFLOWS_MAX + 1)
    revoked = await store.fetch(_SQL["revoked_secrets"], REVOKED_MAX)
    return Catalogue(
        Version(version["workflows"], version["sources"], version["shapes"]),
        [
            Workflow(
                w["id"], w["name"], w["pattern"], w["queue_id"], w["shards"], _ruled(w), w["priority"], w["frozen"]
            )
            for w in workflows[:WORKFLOWS_MAX]
        ],
        {(r["source_id"].bytes, r["key_id"]): r["revoked_us"] for r in revoked},
        await shapes(store, rows_max=SHAPES_MAX),
        unread=workflows[WORKFLOWS_MAX]["name"] if len(workflows) > WORKFLOWS_MAX else "",
    )


async def prune_dedupe(store: Store, *, before_us: int, rows_max: int) -> int:
    """Delete dedupe keys that expired before a moment; returns how many went, at most ``rows_max``.

    Raises:
        Unavailable, Uncertain: Safe to repeat.
    """
    return await store.execute(_SQL["prune_dedupe"], before_us, rows_max)
