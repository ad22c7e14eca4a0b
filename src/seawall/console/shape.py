"""Shapes of the API that the store's reports don't have already: pages, the way of an event, and sources."""

# Size: shapes and nothing else, as the document has them.

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from seawall.kernel.seam.panel import AlertLine, BreakerLine, WorkLine
from seawall.store.bulk import BulkLine, EventGroup, RunGroup
from seawall.store.drain import Decided, DrainLine
from seawall.store.queue import QueueLine
from seawall.store.replay import ReplayLine
from seawall.store.report import EventLine, RunLine
from seawall.store.watch import AlertRow


class Events(msgspec.Struct, frozen=True, kw_only=True):
    """A page of events, newest first."""

    items: list[EventLine]
    next: str | None  # cursor of the next page; null: this was the last one


class Runs(msgspec.Struct, frozen=True, kw_only=True):
    """A page of runs, newest first."""

    items: list[RunLine]
    next: str | None


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One moment on an event's way."""

    at: datetime
    after_ms: float  # since it was received
    stage: str  # received, routed, queued, started, step, finished, replied
    run: str | None = None
    workflow: str | None = None
    detail: str | None = None  # a step's name, an end's status, a reply's HTTP status
    took_ms: float | None = None


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """An event's way, stage by stage, in order of time."""

    id: str
    duplicate_of: str | None
    type: str
    source: str
    status: str
    reason: str | None
    stages: list[Stage]
    truncated: bool  # True: it has more steps than are shown


class AlertList(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong now, the oldest first."""

    items: list[AlertLine]
    unasked: list[str]  # roles that didn't answer: what is wrong there isn't known


class AlertHistory(msgspec.Struct, frozen=True, kw_only=True):
    """Alerts of all machines, the newest first."""

    items: list[AlertRow]


class BreakerList(msgspec.Struct, frozen=True, kw_only=True):
    """All breakers, one line for each role that has it."""

    items: list[BreakerLine]
    unasked: list[str]


class WorkList(msgspec.Struct, frozen=True, kw_only=True):
    """All optional work, one line for each role that has it."""

    items: list[WorkLine]
    unasked: list[str]


class Hand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A breaker moved by hand (open, closed) or optional work (on, off); auto lets it go."""

    state: str
    why: str = ""


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """Where it was moved."""

    roles: list[str]
    unasked: list[str]  # roles that didn't answer, and may not have moved theirs


class QueueList(msgspec.Struct, frozen=True, kw_only=True):
    """All queues."""

    items: list[QueueLine]


class CancelWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """That a run is to be cancelled."""

    why: str = ""


class CancelledRun(msgspec.Struct, frozen=True, kw_only=True):
    """How a run stood, and how it stands. ``cancelling``: a worker may have it in hand, and ends it."""

    id: str
    before: str
    after: str


class QueueWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be changed of a queue; what isn't named stays. "declared": as its app says."""

    reserved: int | str | None = None
    max: int | str | None = None
    paused: bool | None = None
    depth_max: int | str | None = None  # 0: no bound
    weights: dict[str, int | str] | None = None  # by tenant; others stay
    why: str = ""


class QueueChange(msgspec.Struct, frozen=True, kw_only=True):
    """What was in force, and what is."""

    name: str
    before: str
    after: str


class Drains(msgspec.Struct, frozen=True, kw_only=True):
    """What is done at which rate, by name; and what the governor did last."""

    governor: Decided
    items: list[DrainLine]


class ThrottleWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How fast a queue's runs are to begin. Rates are for a second, in all workers together; no rate: as they come."""

    rate: float | None = None
    raise_to: float | None = None
    over_s: float | None = None
    floor: float | None = None  # the governor never goes below it; left out: a tenth of the rate
    why: str = ""


class RunCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many runs a selection means."""

    total: int
    since: (
        datetime | None
    )  # what was added to the selection, where ended ones are meant and it didn't say; null: nothing
    groups: list[RunGroup]  # the largest first
    truncated: bool  # there are more groups


class EventCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many events a selection means."""

    total: int
    since: datetime | None
    groups: list[EventGroup]
    truncated: bool


class ReplayWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Events to run once more."""

    where: str
    rate: float = 50.0  # events a second
    ramp_s: float = 600.0  # in which it rises to that
    workflow: str | None = None  # NAME or NAME@VERSION; left out: all that take new events of the type
    why: str = ""


class ReplayPut(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to become of a replay; what isn't named stays."""

    state: str | None = None  # running, paused, cancelled
    rate: float | None = None
    why: str = ""


class ReplayStart(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay would begin."""

    workflow: str
    version: str
    queue: str  # in which its runs would wait
    runs: int  # at least so many, where not all groups are shown


class ReplayPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What would come of a replay."""

    total: int  # events
    since: datetime | None  # what was added to the selection, where it didn't say; null: nothing
    groups: list[EventGroup]  # the largest first
    truncated: bool
    starts: list[ReplayStart]
    eta_s: float  # how long it would take, when nothing stands against its rate


class ReplayList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of replays, newest first."""

    items: list[ReplayLine]
    next: str | None


class BulkWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An act on all runs of a selection."""

    act: str
    where: str
    expect_count: int  # so many as were counted: another number of them, and nothing is done
    why: str = ""


class BulkUndo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A bulk to undo."""

    why: str = ""


class BulkList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of bulks, newest first."""

    items: list[BulkLine]
    next: str | None


class FlagRole(msgspec.Struct, frozen=True, kw_only=True):
    """A flag as one role evaluates it now."""

    role: str
    value: str  # on, off: for whoever no rule names
    wanted: str  # what it would be if all it needs were ready
    held: str  # why it isn't what is wanted; "": it is
    version: int  # of the setting that is in force there
    origin: str  # store, copy (on disk, from before the store went away), nobody
    age_s: float | None  # since the store last confirmed it; null: not in that process' life


class FlagRule(msgspec.Struct, frozen=True, kw_only=True):
    """A flag's value for one tenant or one source."""

    by: str  # tenant, source
    name: str
    value: str  # on, off


class FlagState(msgspec.Struct, frozen=True, kw_only=True):
    """One flag: what is declared, what is set, and what it evaluates to."""

    name: str
    owner: str
    help: str
    without: str  # what happens while it is off
    default: str
    safe: str
    requires: list[str]
    by: list[str]  # what it can be set by
    value: str  # on, off, default
    rules: list[FlagRule]
    version: int  # 0: it was never set
    changed_at: datetime | None
    changed_by: str
    why: str
    roles: list[FlagRole]


class FlagList(msgspec.Struct, frozen=True, kw_only=True):
    """All flags, by name."""

    items: list[FlagState]
    unasked: list[str]  # roles that didn't answer
    trouble: str  # why the store couldn't be asked; then what is set is what the roles know. "": it was


class FlagTry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A flag to be set, to see what would come of it."""

    value: str  # on, off, default
    tenant: str | None = None  # only for this one; without either: for all, and every rule goes
    source: str | None = None


class FlagWish(FlagTry, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A flag to set."""

    version: int  # of the setting that this was decided from: another one is refused
    why: str


class FlagFlip(msgspec.Struct, frozen=True, kw_only=True):
    """What one flag evaluates to for somebody, before and after. Also flags that need the one that is set."""

    flag: str
    role: str
    who: str  # everybody else, tenant NAME, source NAME
    before: str
    after: str
    held: str  # why it doesn't become what is set; "": it does


class FlagPreview(msgspec.Struct, frozen=True, kw_only=True):
    """What would come of it."""

    name: str
    version: int  # hand it back when setting
    before: str
    after: str
    flips: list[FlagFlip]
    unasked: list[str]  # roles that ask the flag and didn't answer: what flips there isn't known


class FlagChange(msgspec.Struct, frozen=True, kw_only=True):
    """A flag that was set, and how far that has come."""

    name: str
    version: int
    before: str
    after: str
    live: bool  # every role that asks it has it, on its disk too
    missing: list[str]  # roles that don't yet; they will


class ChangeLine(msgspec.Struct, frozen=True, kw_only=True):
    """One change."""

    at: datetime
    kind: str
    what: str
    by: str
    before: str | None
    after: str | None
    why: str
    stored: bool  # False: it is on this machine's disk, and will be in the store when that answers


class ChangePage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the timeline, newest first."""

    items: list[ChangeLine]
    next: str | None
    trouble: str  # why the store couldn't be asked; then only this machine's own changes are here. "": it was


class SourceLine(msgspec.Struct, frozen=True, kw_only=True):
    """One live source; never its token or secrets."""

    id: str
    name: str
    kind: str
    tenant: str
    settings: msgspec.Raw
    version: int
    created_at: datetime
    key_ids: tuple[int, ...]


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """A page of sources, by name."""

    items: list[SourceLine]
    next: str | None


class NewSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A source to make."""

    name: str
    kind: str
    tenant: str = "default"
    secret: str | None = None  # as text (UTF-8); left out for kind none
    settings: dict[str, Any] = {}


class NewSecret(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One more secret of a source."""

    secret: str


class OldSecret(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A secret to end."""

    key_id: int


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """How far a change of a source has come."""

    name: str
    live: bool  # every live collector works with it
    missing: tuple[str, ...]  # collectors that don't yet; they will
    key_id: int | None = None  # of the new secret


class MadeSource(msgspec.Struct, frozen=True, kw_only=True):
    """A new source. The token is shown here and never again."""

    id: str
    name: str
    kind: str
    tenant: str
    token: str
    url: str
    live: bool
    missing: tuple[str, ...]
