"""From frames to rows: what each record of a batch claims, and what it becomes once the holders of the claims are
known.

Pure: no store, no clock. Outcomes, in this order:

====================================  ==========================================================================
the record can't be read              event ``dead``, its bytes as body, an id made from its place in the log
it was named as not storable          event ``dead``, its fields made harmless, its body untouched and not parsed
its secret or source had been ended   event ``held``; it claims no key, else it could shadow a genuine one
its second copy, it was collapsed     nothing: it claims no key, which may be forgotten by now, or somebody else's
another event holds its key           same body: ``duplicate``; another body: event ``conflict``. Neither starts a run
one of its workflows' queues is full   event ``held`` until its runs there are made (depth.py); others are made now
else                                  event ``routed``, and a run for each workflow that matches
====================================  ==========================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from hashlib import sha256

from seawall.kernel.cause import Cause
from seawall.kernel.error import Corrupt
from seawall.kernel.event import Record, decode, id_day
from seawall.kernel.json import parse
from seawall.kernel.made import News
from seawall.kernel.placement import Placement, shard_of
from seawall.kernel.seam.journal import Frame, Position
from seawall.kernel.status import CHANNEL_LINE, CHANNEL_REPLY, CHANNEL_RUN, EventStatus
from seawall.router.depth import Taking
from seawall.router.match import Matcher, Shapes, read, unread_type
from seawall.router.revoked import REMOVED, SIGNED
from seawall.store.router import Catalogue, Event, Holder, Holders, Key, Note, Run, Workflow, Writes
from seawall.store.wait import Noted

SECOND_US = 1_000_000
REPLY_IDS_MAX = 200
"""Event ids in one NOTIFY: its payload must stay below 8000 bytes."""

LINE_IDS_MAX, LINES_MAX = 120, 600
"""Lines in one NOTIFY, and in those of one batch."""

SAME_BATCH_US = 60 * SECOND_US
"""Uses of one key in one batch are judged as if received together; so far apart may they be, well within any window."""

YEAR_9999_US = 253_402_214_400 * SECOND_US
"""PostgreSQL keeps later times than that, but neither a worker nor the console could read them back."""

_HASH_BYTES = 16
_NO_SOURCE = bytes(16)
_INT_MAX = 2**31 - 1
_BIGINT_MAX = 2**63 - 1
_DAY_US = 86_400 * SECOND_US


@dataclass(frozen=True, slots=True)
class Item:
    """One record, judged as far as it can be without the store."""

    at: Position  # the end of its frame
    record: Record
    type: str
    status: EventStatus = EventStatus.ROUTED
    reason: str | None = None
    key: str | None = None
    cause: Cause | None = None
    claim: Key | None = None
    unreadable: bool = False  # the record is made up around bytes that could not be decoded
    correlations: tuple[bytes, ...] = ()  # by what it can be waited for
    collapsed: bool = False  # into another event, by a copy of the record that was stored before


@dataclass(slots=True)
class Batch:
    """Records that are stored together, in the order of their log."""

    items: list[Item] = field(default_factory=list)
    keys: dict[tuple[bytes, bytes], Key] = field(default_factory=dict)  # the first claim of each source and key
    notes: list[Note] = field(default_factory=list)
    ids: set[bytes] = field(default_factory=set)

    @property
    def end(self) -> Position:
        return self.items[-1].at

    @property
    def claimants(self) -> list[bytes]:
        """Ids of all that wish for a key; only the first for each key claims it."""
        return [item.record.id for item in self.items if item.claim is not None]


@dataclass(frozen=True, slots=True)
class Rules:
    """By what records are judged."""

    catalogue: Catalogue
    matcher: Matcher
    shapes: Shapes
    window_us: int


def gather(frames: Sequence[Frame], rules: Rules, collapsed: Set[bytes] = frozenset()) -> Batch:
    """The longest batch that the frames begin with: nearly always all of them.

    It ends before a second copy of one event, which the next batch will find stored; and before a much later use of the
    same key, whose window may have passed by then, while one batch claims a key only once.

    Args:
        collapsed: Ids of events that are known to have been collapsed earlier.
    """
    batch = Batch()
    for frame in frames:
        item = _judge(frame, rules)
        if item.record.id in collapsed:
            item = replace(item, claim=None, collapsed=True)
        if item.unreadable:
            batch.notes.append(Note(item.at, 1, item.reason or ""))
        elif item.record.id in batch.ids or not _claim(batch, item.claim):
            break
        batch.ids.add(item.record.id)
        batch.items.append(item)
    return batch


def alone(frame: Frame, *, tries: int, reason: str) -> Batch:
    """A batch of one record that could not be stored, or whose handling ended processes: it becomes dead, unparsed."""
    try:
        record = decode(frame.payload)
        item = Item(
            frame.end, _harmless(record), unread_type(record), EventStatus.DEAD, reason, cause=Cause.REFUSED
        )  # fmt: skip
    except Corrupt as error:
        item = _unreadable(frame, f"{reason}; {error}")
    return Batch([item], notes=[Note(item.at, tries, reason)])


def _judge(frame: Frame, rules: Rules) -> Item:
    try:
        record = decode(frame.payload)
    except Corrupt as error:
        return _unreadable(frame, str(error))
    if record.received_us > YEAR_9999_US:
        return Item(
            frame.end, _harmless(record), unread_type(record), EventStatus.DEAD, "received at no possible time",
            cause=Cause.MOMENT,
        )  # fmt: skip
    reading = read(record, rules.shapes)
    if rules.catalogue.revoked_us and (reason := _revoked(record, rules.catalogue.revoked_us)):
        return Item(
            frame.end, record, reading.type, EventStatus.HELD, reason, reading.key or None, cause=Cause.REVOKED
        )  # fmt: skip
    if not reading.key:
        return Item(frame.end, record, reading.type, correlations=reading.correlations)
    claim = Key(
        record.source_id,
        sha256(reading.key.encode("utf-8", "surrogatepass")).digest()[:_HASH_BYTES],
        record.id,
        sha256(record.body).digest()[:_HASH_BYTES],
        record.received_us,
        rules.window_us,
    )
    return Item(frame.end, record, reading.type, key=reading.key, claim=claim, correlations=reading.correlations)


def _revoked(record: Record, revoked_us: Mapping[tuple[bytes, int], int]) -> str:
    """Why a record came in under what had ended already; "": it didn't."""
    for key_id in (0, record.key_id):
        at_us = revoked_us.get((record.source_id, key_id))
        if at_us is not None and at_us <= record.received_us:
            return f"{SIGNED} {key_id}, which had been revoked" if key_id else REMOVED
    return ""


def _claim(batch: Batch, claim: Key | None) -> bool:
    """Add a claim, unless an earlier one stands for it; False: the batch must end before it."""
    if claim is None:
        return True
    first = batch.keys.setdefault((claim.source_id, claim.key_hash), claim)
    return first is claim or abs(claim.received_us - first.received_us) < SAME_BATCH_US


def _unreadable(frame: Frame, reason: str) -> Item:
    record = Record(
        id=bytes(16), source_id=_NO_SOURCE, kind="none", tenant="default", source="unreadable", received_us=0,
        body=frame.payload,
    )  # fmt: skip
    return Item(
        frame.end, record, "unreadable", EventStatus.DEAD, reason, cause=Cause.DECODE, unreadable=True
    )  # fmt: skip


def _harmless(record: Record) -> Record:
    """The record with every number inside what a column takes; its body and headers are kept exactly."""
    id_us = int.from_bytes(record.id[:6], "big") * 1000
    sane = abs(record.received_us - id_us) < _DAY_US
    return replace(
        record,
        received_us=record.received_us if sane else min(id_us, YEAR_9999_US),
        key_id=min(record.key_id, _INT_MAX),
        config_version=min(record.config_version, _BIGINT_MAX),
    )


def placed_id(at: Position, at_ms: int) -> bytes:
    """An id (UUID version 7) for a record that has none: the same whenever the same place is read again."""
    tail = sha256(b"%b/%d/%d" % (at.log_id, at.segment_id, at.offset_bytes)).digest()[:10]
    random = int.from_bytes(tail, "big")
    high = (at_ms << 16) | 0x7000 | (random >> 68)
    return ((high << 64) | 0x8000_0000_0000_0000 | (random & 0x3FFF_FFFF_FFFF_FFFF)).to_bytes(16, "big")


def settle(
    batch: Batch,
    holders: Holders,
    firsts: Mapping[Position, int],
    rules: Rules,
    placement: Placement,
    taking: Taking | None = None,
    *,
    backlog: bool,
) -> Writes:
    """Rows of a batch, now that it is known who holds the keys.

    Args:
        holders: Events outside the batch that hold a key which the batch claimed.
        firsts: When each note's place was first noted, in milliseconds.
        taking: Which queues take no more runs; None: all take any number.
    """
    writes = Writes()
    news = News()
    lines: dict[tuple[int, bytes], None] = {}  # by workflow and key, where new runs wait to be let in
    for item in batch.items:
        if item.collapsed:
            writes.passed += 1
            continue
        item = _named(item, firsts) if item.unreadable else item
        holder = _holder(item, batch, holders)
        if holder is None:
            _add_event(writes, news, lines, item, rules, placement, taking, backlog=backlog)
        elif item.claim is not None and holder.body_hash == item.claim.body_hash:
            _add_duplicate(writes, item.record, holder.event_id)
        else:
            conflict = replace(
                item, status=EventStatus.CONFLICT, reason=_conflict(holder), cause=Cause.CONFLICT
            )  # fmt: skip
            _add_event(writes, news, lines, conflict, rules, placement, taking, backlog=backlog)
    writes.notices.extend((CHANNEL_RUN, payload) for payload in news.payloads())
    writes.notices.extend(_lined(list(lines)))
    writes.notices.extend(_replies(writes))
    return writes


def _named(item: Item, firsts: Mapping[Position, int]) -> Item:
    at_ms = firsts[item.at]
    record = replace(item.record, id=placed_id(item.at, at_ms), received_us=at_ms * 1000)
    return replace(item, record=record)


def _holder(item: Item, batch: Batch, holders: Holders) -> Holder | None:
    """The other event that holds this one's key; None: it has no key, or holds it itself."""
    if item.claim is None:
        return None
    key = (item.claim.source_id, item.claim.key_hash)
    holder = holders.get(key)
    if holder is not None:
        return holder
    first = batch.keys[key]
    return None if first.event_id == item.record.id else Holder(first.event_id, first.body_hash)


def _conflict(holder: Holder) -> str:
    return f"another body came under the same key before, as event {holder.event_id.hex()}"


def _add_event(
    writes: Writes, news: News, lines: dict[tuple[int, bytes], None], item: Item, rules: Rules,
    placement: Placement, taking: Taking | None, *, backlog: bool,
) -> None:  # fmt: skip
    record, status, reason, cause = item.record, item.status, item.reason, item.cause
    runs: list[Run] = []
    frozen: set[int] = set()
    if status is EventStatus.ROUTED:
        matched = rules.matcher.match(item.type)
        runs = [_run(record, workflow, placement, backlog=backlog) for workflow in matched]
        frozen = {workflow.id for workflow in matched if workflow.frozen}
        writes.noted.extend(Noted(key, record.received_us, record.id) for key in item.correlations)
        if taking is not None and taking.full and (full := _defer(writes, runs, taking)):
            status, cause = EventStatus.HELD, Cause.DEPTH
            reason = f"as many runs as it may have: queue {', '.join(full)}"
    writes.events.append(
        Event(record=record, at=item.at, type=item.type, status=status, reason=reason, cause=cause, key=item.key)
    )
    if record.wait_ms:
        writes.tickets.append((record.id, record.id))
    for run in runs:
        writes.runs.append(run)
        if run.workflow_id in frozen:
            writes.frozen.append((record.id, run.workflow_id))
        if taking is not None:
            taking.took(run.queue_id)
        if run.keys or run.gates:
            lines[run.workflow_id, (run.keys or run.gates)[0]] = None
        else:
            news.add(run.queue_id, run.vt, run.shard)


def _defer(writes: Writes, runs: list[Run], taking: Taking) -> list[str]:
    """Put off runs of queues that are full; what is left in ``runs`` is made. Returns names of those queues."""
    full = taking.full
    late = [run for run in runs if run.queue_id in full]
    writes.deferred.extend(late)
    runs[:] = [run for run in runs if run.queue_id not in full]
    taking.put_off.update(run.queue_id for run in late)
    return sorted({full[run.queue_id] for run in late})


def _run(record: Record, workflow: Workflow, placement: Placement, *, backlog: bool) -> Run:
    keys: tuple[bytes, ...] = ()
    gates: tuple[bytes, ...] = ()
    apart = ""
    if workflow.allowance is not None:
        # Read once more, and only for those who ask: to carry every body's value along would cost all others.
        keys, gates = workflow.allowance.keys(record.tenant, parse(record.body)[0])
        apart = workflow.name
    return Run(
        event_id=record.id,
        day=id_day(record.id),
        workflow_id=workflow.id,
        tenant=record.tenant,
        queue_id=workflow.queue_id,
        shard=shard_of(record.id, record.tenant.encode("utf-8", "replace"), workflow.shards),
        ticket=record.wait_ms > 0,
        vt=placement.next(workflow.queue_id, record.tenant, backlog=backlog, apart=apart, priority=workflow.priority),
        keys=keys,
        gates=gates,
    )


def _add_duplicate(writes: Writes, record: Record, first_id: bytes) -> None:
    writes.duplicates.append((record.id, first_id))
    if record.wait_ms:
        writes.tickets.append((record.id, first_id))


def _lined(lines: Sequence[tuple[int, bytes]]) -> list[tuple[str, str]]:
    """Notices of lines with new runs. Those of more lines than this are found by looking."""
    texts = [f"{workflow_id}:{key.hex()}" for workflow_id, key in lines[:LINES_MAX]]
    return [
        (CHANNEL_LINE, ",".join(texts[start : start + LINE_IDS_MAX])) for start in range(0, len(texts), LINE_IDS_MAX)
    ]


def _replies(writes: Writes) -> list[tuple[str, str]]:
    """Notices for tickets that no run of this batch will answer: the responder looks at once what there is to say."""
    running = {run.event_id for run in (*writes.runs, *writes.deferred)}
    ids = [id.hex() for id, event_id in writes.tickets if id != event_id or event_id not in running]
    return [
        (CHANNEL_REPLY, ",".join(ids[start : start + REPLY_IDS_MAX])) for start in range(0, len(ids), REPLY_IDS_MAX)
    ]
