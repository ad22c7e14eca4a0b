"""The one table of endpoints: the server, the OpenAPI document, docs/api.md and the tests are made from it."""

# Size: the one table, some ten lines for each endpoint; parts of it would only be looked for here.

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from seawall.console.answer import BYTES, JSON, Answer
from seawall.console.approval import EVERY, ApprovalDesk, ApprovalDone, ApprovalPage, ApprovalWish
from seawall.console.ask import CURSOR, EVENT_STATUSES, LIMIT, RUN_STATUSES, WHERE, Ask, Param
from seawall.console.bulk import ACTS, BulkDesk
from seawall.console.change import ChangeDesk
from seawall.console.cron import CronBegun, CronChange, CronDesk, CronList, CronTrigger, CronWish
from seawall.console.drain import DrainDesk
from seawall.console.flag import FlagDesk
from seawall.console.panel import PanelDesk
from seawall.console.queue import QueueDesk
from seawall.console.replay import ReplayDesk
from seawall.console.report import Reports
from seawall.console.run import RunDesk
from seawall.console.shape import (
    AlertHistory,
    AlertList,
    BreakerList,
    BulkList,
    BulkUndo,
    BulkWish,
    CancelledRun,
    CancelWish,
    Change,
    ChangePage,
    Drains,
    EventCount,
    Events,
    FlagChange,
    FlagList,
    FlagPreview,
    FlagTry,
    FlagWish,
    Hand,
    MadeSource,
    Moved,
    NewSecret,
    NewSource,
    OldSecret,
    QueueChange,
    QueueList,
    QueueWish,
    ReplayList,
    ReplayPlan,
    ReplayPut,
    ReplayWish,
    RunCount,
    Runs,
    Sources,
    ThrottleWish,
    Way,
    WorkList,
)
from seawall.console.source import SourceDesk
from seawall.console.version import MovedRuns, MoveWish, VersionDesk, WorkflowChange, Workflows, WorkflowWish
from seawall.kernel.seam.approval import State
from seawall.kernel.seam.change import Kind
from seawall.store.bulk import BulkLine
from seawall.store.history import RunHistory
from seawall.store.replay import ReplayLine
from seawall.store.report import EventDetail, RunDetail
from seawall.store.usage import BY, Use

Handler = Callable[[Ask], Awaitable[Answer]]

_EVENT_STATUS = Param(name="status", help="Only events of this status.", words=tuple(EVENT_STATUSES))
_RUN_STATUS = Param(name="status", help="Only runs of this status.", words=tuple(RUN_STATUSES))
_SOURCE = Param(name="source", help="Only those of this source: its name or id.")
_SINCE = Param(name="since", help="Only what is younger: 90s, 30m, 2h, 7d, or a time like 2026-01-31T12:00:00Z.")
_TYPE = Param(name="type", help="Only this type; * in it stands for anything.")
_TENANT = Param(name="tenant", help="Only those of this tenant.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One method of one path. All of them need the admin token."""

    method: str
    path: str
    summary: str
    handler: Handler
    returns: type[msgspec.Struct] | None  # None: bytes
    query: tuple[Param, ...] = ()
    takes: type[msgspec.Struct] | None = None  # the body
    status: int = 200

    @property
    def content_type(self) -> str:
        return BYTES if self.returns is None else JSON


def endpoints(
    reports: Reports,
    sources: SourceDesk,
    panels: PanelDesk,
    flags: FlagDesk,
    changes: ChangeDesk,
    queues: QueueDesk,
    bulk: BulkDesk,
    replays: ReplayDesk,
    drains: DrainDesk,
    runs: RunDesk,
    versions: VersionDesk,
    crons: CronDesk,
    approvals: ApprovalDesk,
) -> tuple[Endpoint, ...]:
    """Every endpoint below /v1."""
    return (
        *_of_events(reports, bulk),
        Endpoint(
            method="GET",
            path="/v1/runs",
            summary="Runs, finished or not, newest first.",
            handler=reports.runs,
            returns=Runs,
            query=(
                LIMIT,
                CURSOR,
                WHERE,
                Param(name="event", help="Only runs of this event: its id."),
                _SOURCE,
                Param(name="workflow", help="Only runs of this workflow: its name."),
                _RUN_STATUS,
                _TENANT,
            ),
        ),
        _run_count(bulk),
        Endpoint(
            method="GET",
            path="/v1/runs/{id}",
            summary="One run with its result and steps.",
            handler=reports.run,
            returns=RunDetail,
        ),
        *_of_runs(runs),
        *_of_bulk(bulk),
        *_of_replays(replays),
        *_of_versions(versions),
        *_of_crons(crons),
        *_of_approvals(approvals),
        *_of_queues(queues),
        *_of_drains(drains),
        *_of_sources(sources),
        *_of_panels(panels),
        *_of_flags(flags, changes),
    )


def _of_drains(drains: DrainDesk) -> tuple[Endpoint, ...]:
    return (
        Endpoint(
            method="GET",
            path="/v1/drains",
            summary="What is done at which rate (throttled queues, the backlog), and what the governor did last.",
            handler=drains.page,
            returns=Drains,
        ),
        Endpoint(
            method="POST",
            path="/v1/queues/{name}/throttle",
            summary="Begin a queue's runs at a rate, which may rise by itself; without a rate: no longer.",
            handler=drains.throttle,
            returns=QueueChange,
            takes=ThrottleWish,
        ),
    )


def _of_versions(versions: VersionDesk) -> tuple[Endpoint, ...]:
    return (
        Endpoint(
            method="GET",
            path="/v1/runs/{id}/history",
            summary="All that is kept of a run, so that code can be called against it: what `seawall runs check` does.",
            handler=versions.history,
            returns=RunHistory,
        ),
        Endpoint(
            method="POST",
            path="/v1/runs/move",
            summary="Have unfinished runs go on with another version of their workflow. What they have done is kept.",
            handler=versions.move,
            takes=MoveWish,
            returns=MovedRuns,
        ),
        Endpoint(
            method="GET",
            path="/v1/workflows",
            summary="Registered workflows and their versions: which new runs take, and who has them.",
            handler=versions.page,
            returns=Workflows,
        ),
        Endpoint(
            method="POST",
            path="/v1/workflows/{name}",
            summary="Choose which version new runs take, or hold new runs, until it is chosen otherwise.",
            handler=versions.put,
            takes=WorkflowWish,
            returns=WorkflowChange,
        ),
    )


def _of_crons(crons: CronDesk) -> tuple[Endpoint, ...]:
    return (
        Endpoint(
            method="GET",
            path="/v1/crons",
            summary="All schedules: when they are due next, and what became of their moments.",
            handler=crons.page,
            returns=CronList,
        ),
        Endpoint(
            method="POST",
            path="/v1/crons/{name}",
            summary="Pause or resume a schedule. Moments that pass meanwhile are not made up for.",
            handler=crons.put,
            takes=CronWish,
            returns=CronChange,
        ),
        Endpoint(
            method="POST",
            path="/v1/crons/{name}/trigger",
            summary="Begin a run of a schedule's workflow now.",
            handler=crons.trigger,
            takes=CronTrigger,
            returns=CronBegun,
            status=201,
        ),
    )


def _of_approvals(approvals: ApprovalDesk) -> tuple[Endpoint, ...]:
    states = "Only those that somebody may decide now (when left out), or all."
    return (
        Endpoint(
            method="GET",
            path="/v1/approvals",
            summary="What runs ask people, newest first.",
            handler=approvals.page,
            returns=ApprovalPage,
            query=(LIMIT, CURSOR, Param(name="state", help=states, words=(State.OPEN.value, EVERY))),
        ),
        Endpoint(
            method="POST",
            path="/v1/runs/{id}/approve",
            summary="Decide what a run asks people. It counts once.",
            handler=approvals.decide,
            takes=ApprovalWish,
            returns=ApprovalDone,
        ),
    )


def _of_runs(runs: RunDesk) -> tuple[Endpoint, ...]:
    return (
        Endpoint(
            method="POST",
            path="/v1/runs/{id}/cancel",
            summary="End a run: at once when nobody has it in hand, else its worker does, within seconds.",
            handler=runs.cancel,
            takes=CancelWish,
            returns=CancelledRun,
        ),
    )


def _of_events(reports: Reports, bulk: BulkDesk) -> tuple[Endpoint, ...]:
    return (
        Endpoint(
            method="GET",
            path="/v1/events",
            summary="Events, newest first. A page narrowed by a filter may be short and still have a next one.",
            handler=reports.events,
            returns=Events,
            query=(LIMIT, CURSOR, WHERE, _SOURCE, _TYPE, _EVENT_STATUS, _TENANT),
        ),
        _event_count(bulk),  # before the one whose {id} would take its last word
        Endpoint(
            method="GET",
            path="/v1/events/{id}",
            summary="One event with its runs. A duplicate's id gives the first event, named by duplicate_of.",
            handler=reports.event,
            returns=EventDetail,
        ),
        Endpoint(
            method="GET",
            path="/v1/events/{id}/raw",
            summary="The exact bytes of the body.",
            handler=reports.raw,
            returns=None,
        ),
        Endpoint(
            method="GET",
            path="/v1/events/{id}/way",
            summary="The event's way, stage by stage, with times.",
            handler=reports.way,
            returns=Way,
        ),
    )


def _event_count(desk: BulkDesk) -> Endpoint:
    return Endpoint(
        method="GET",
        path="/v1/events/count",
        summary="How many events a selection means, by source, type, day, state and cause.",
        handler=desk.events,
        returns=EventCount,
        query=(WHERE,),
    )


def _run_count(desk: BulkDesk) -> Endpoint:
    return Endpoint(
        method="GET",
        path="/v1/runs/count",
        summary="How many runs a selection means, or how many of them an act would be done to.",
        handler=desk.runs,
        returns=RunCount,
        query=(WHERE, Param(name="act", help="Count those that this can be done to.", words=ACTS)),
    )


def _of_bulk(desk: BulkDesk) -> tuple[Endpoint, ...]:
    return (
        Endpoint(
            method="GET",
            path="/v1/bulk",
            summary="Acts on many runs, newest first, and how far they have come.",
            handler=desk.page,
            returns=BulkList,
            query=(LIMIT, CURSOR),
        ),
        Endpoint(
            method="POST",
            path="/v1/bulk",
            summary="Do something to all runs of a selection. Answers when it is fixed which, and goes on by itself.",
            handler=desk.add,
            takes=BulkWish,
            returns=BulkLine,
            status=202,
        ),
        Endpoint(
            method="GET",
            path="/v1/bulk/{id}",
            summary="One of them.",
            handler=desk.one,
            returns=BulkLine,
        ),
        Endpoint(
            method="POST",
            path="/v1/bulk/{id}/undo",
            summary="Undo what one of them has done, within a day.",
            handler=desk.undo,
            takes=BulkUndo,
            returns=BulkLine,
            status=202,
        ),
    )


def _of_replays(desk: ReplayDesk) -> tuple[Endpoint, ...]:
    return (
        Endpoint(
            method="GET",
            path="/v1/replays",
            summary="Replays, newest first, and how far they have come.",
            handler=desk.page,
            returns=ReplayList,
            query=(LIMIT, CURSOR),
        ),
        Endpoint(
            method="POST",
            path="/v1/replays",
            summary="Run the events of a selection once more, at a rate, in queues of their own.",
            handler=desk.add,
            takes=ReplayWish,
            returns=ReplayLine,
            status=202,
        ),
        Endpoint(
            method="POST",
            path="/v1/replays/plan",
            summary="What would come of a replay. Changes nothing.",
            handler=desk.plan,
            takes=ReplayWish,
            returns=ReplayPlan,
        ),
        Endpoint(
            method="GET",
            path="/v1/replays/{id}",
            summary="One of them.",
            handler=desk.one,
            returns=ReplayLine,
        ),
        Endpoint(
            method="POST",
            path="/v1/replays/{id}",
            summary="Pause, resume or cancel a replay, or give it another rate.",
            handler=desk.put,
            takes=ReplayPut,
            returns=ReplayLine,
        ),
    )


def _of_queues(queues: QueueDesk) -> tuple[Endpoint, ...]:
    return (
        Endpoint(
            method="GET",
            path="/v1/queues",
            summary="All queues: their slots, what is ready in them, and who serves them.",
            handler=queues.page,
            returns=QueueList,
        ),
        Endpoint(
            method="GET",
            path="/v1/slots",
            summary="Who held slots lately, the largest first, compared with an hour before.",
            handler=queues.top,
            returns=Use,
            query=(
                Param(name="since", help="Up to how long ago, from 1m to 6h; 15m when left out."),
                Param(name="by", help="What is added up; queue when left out.", words=BY),
            ),
        ),
        Endpoint(
            method="POST",
            path="/v1/queues/{name}",
            summary="Pause or resume a queue, or set its slots. Workers follow within a second or two.",
            handler=queues.put,
            takes=QueueWish,
            returns=QueueChange,
        ),
    )


def _of_flags(flags: FlagDesk, changes: ChangeDesk) -> tuple[Endpoint, ...]:
    return (
        Endpoint(
            method="GET",
            path="/v1/flags",
            summary="All flags: what is declared, what is set, and what each role of this machine makes of it.",
            handler=flags.all,
            returns=FlagList,
        ),
        Endpoint(
            method="POST",
            path="/v1/flags/{name}",
            summary="Set a flag. Answers when every role works with it, or after 5 s with those that are missing.",
            handler=flags.set,
            takes=FlagWish,
            returns=FlagChange,
        ),
        Endpoint(
            method="POST",
            path="/v1/flags/{name}/preview",
            summary="What would flip if a flag were set, in which roles, and for whom. Changes nothing.",
            handler=flags.preview,
            takes=FlagTry,
            returns=FlagPreview,
        ),
        Endpoint(
            method="GET",
            path="/v1/flags/{name}/history",
            summary="Changes of one flag, newest first.",
            handler=changes.of_flag,
            returns=ChangePage,
            query=(LIMIT, CURSOR, _SINCE),
        ),
        Endpoint(
            method="GET",
            path="/v1/changes",
            summary="Everything that was changed, newest first, and by whom.",
            handler=changes.page,
            returns=ChangePage,
            query=(
                LIMIT,
                CURSOR,
                _SINCE,
                Param(name="kind", help="Only changes of this kind.", words=tuple(kind.value for kind in Kind)),
                Param(name="what", help="Only changes of this: a flag's, source's, setting's or role's name."),
            ),
        ),
    )


def _of_panels(panels: PanelDesk) -> tuple[Endpoint, ...]:
    return (
        Endpoint(
            method="GET",
            path="/v1/alerts",
            summary="What is wrong now, in every role of this machine. Needs no store.",
            handler=panels.alerts,
            returns=AlertList,
        ),
        Endpoint(
            method="GET",
            path="/v1/alerts/history",
            summary="Alerts of all machines that were raised lately, also those that are over.",
            handler=panels.alert_history,
            returns=AlertHistory,
            query=(LIMIT, Param(name="since", help="Raised up to so long ago: 90s, 30m, 2h, 7d; 24h when left out.")),
        ),
        Endpoint(
            method="GET",
            path="/v1/breakers",
            summary="Every role's circuit breakers. Needs no store.",
            handler=panels.breakers,
            returns=BreakerList,
        ),
        Endpoint(
            method="POST",
            path="/v1/breakers/{name}",
            summary="Hold a breaker open or closed by hand, in every role that has it, or let it go (auto).",
            handler=panels.force,
            takes=Hand,
            returns=Moved,
        ),
        Endpoint(
            method="GET",
            path="/v1/shed",
            summary="Every role's optional work, and what is off. Needs no store.",
            handler=panels.work,
            returns=WorkList,
        ),
        Endpoint(
            method="POST",
            path="/v1/shed/{name}",
            summary="Hold optional work on or off by hand, in every role that has it, or let it go (auto).",
            handler=panels.shed,
            takes=Hand,
            returns=Moved,
        ),
    )


def _of_sources(sources: SourceDesk) -> tuple[Endpoint, ...]:
    return (
        Endpoint(
            method="GET",
            path="/v1/sources",
            summary="Live sources, by name.",
            handler=sources.page,
            returns=Sources,
            query=(LIMIT, CURSOR),
        ),
        Endpoint(
            method="POST",
            path="/v1/sources",
            summary="Make a source. Answers when it is live, or after 5 s with the collectors that are missing.",
            handler=sources.add,
            takes=NewSource,
            returns=MadeSource,
            status=201,
        ),
        Endpoint(
            method="POST",
            path="/v1/sources/{name}/rotate",
            summary="Give a source one more secret; older ones stay valid until they are revoked.",
            handler=sources.rotate,
            takes=NewSecret,
            returns=Change,
        ),
        Endpoint(
            method="POST",
            path="/v1/sources/{name}/revoke",
            summary="End one secret of a source.",
            handler=sources.revoke,
            takes=OldSecret,
            returns=Change,
        ),
        Endpoint(
            method="DELETE",
            path="/v1/sources/{name}",
            summary="End a source: its URL answers 410. Its events stay.",
            handler=sources.remove,
            returns=Change,
        ),
    )
