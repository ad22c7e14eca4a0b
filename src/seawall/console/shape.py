"""Shapes of the API that the store's reports don't have already: pages, the way of an event, and sources."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from seawall.kernel.seam.panel import AlertLine, BreakerLine, WorkLine
from seawall.store.report import EventLine, RunLine, Workflow


class Events(msgspec.Struct, frozen=True, kw_only=True):
    """A page of events, newest first."""

    items: list[EventLine]
    next: str | None  # cursor of the next page; null: this was the last one


class Runs(msgspec.Struct, frozen=True, kw_only=True):
    """A page of runs, newest first."""

    items: list[RunLine]
    next: str | None


class Workflows(msgspec.Struct, frozen=True, kw_only=True):
    """All registered workflows."""

    items: list[Workflow]


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


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """Where it was moved."""

    roles: list[str]
    unasked: list[str]  # roles that didn't answer, and may not have moved theirs


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
