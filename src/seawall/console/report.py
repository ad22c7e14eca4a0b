"""Reading: events, their bytes and their way, runs and workflows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from seawall.console.answer import BYTES, Answer, json
from seawall.console.ask import Ask, cursor_of, event_id
from seawall.console.shape import Events, Runs, Stage, Way
from seawall.guard.shed import Wanted
from seawall.kernel.clock import Clock
from seawall.kernel.error import Rejected
from seawall.kernel.selection import Selection, of_events, of_runs
from seawall.store import report
from seawall.store.pool import Store
from seawall.store.report import EventDetail, RunLine, Step

NOT_YET = "it isn't in the store; one that was accepted a moment ago may not be routed yet"


class Reports:
    """Handlers of the endpoints that change nothing. Each raises Rejected or Unavailable.

    Args:
        query_s: How long the store may take for one query.
        checksums: Whether lists of events are to have checksums of bodies.
    """

    def __init__(self, store: Store, *, clock: Clock, query_s: float, checksums: Wanted = lambda: True) -> None:
        self._store = store
        self._clock = clock
        self._query_s = query_s
        self._checksums = checksums

    async def events(self, ask: Ask) -> Answer:
        narrow = self._narrow(ask, ("source", "type", "status", "tenant"), of_events)
        items, end = await report.events(
            self._store, narrow, before=ask.event_cursor(), limit=ask.limit(), timeout_s=self._query_s,
            checksums=self._checksums(),
        )  # fmt: skip
        return json(Events(items=items, next=cursor_of(end)))

    async def event(self, ask: Ask) -> Answer:
        return json(await self._event(ask))

    async def raw(self, ask: Ask) -> Answer:
        body = await report.event_body(self._store, ask.event_id(), timeout_s=self._query_s)
        if body is None:
            raise Rejected(404, "No such event", NOT_YET)
        # The bytes are a stranger's: a browser must save them, never show them.
        return Answer(200, BYTES, body, {"Content-Disposition": "attachment"})

    async def way(self, ask: Ask) -> Answer:
        event = await self._event(ask)
        ids = [int(run.id) for run in event.runs]
        steps = await report.steps(self._store, ids, timeout_s=self._query_s) if ids else []
        return json(way_of(event, steps[: report.STEPS_MAX], truncated=len(steps) > report.STEPS_MAX))

    async def runs(self, ask: Ask) -> Answer:
        event = ask.text("event")
        found = event_id(event) if event is not None else None
        if event is not None and found is None:
            raise Rejected(422, "Bad parameter", "event must be an event's id")
        if event is not None and (ask.text("source") is not None or ask.text("tenant") is not None):
            raise Rejected(422, "Bad parameter", "event can't be combined with source or tenant")
        if event is not None and ask.text("where") is not None:
            raise Rejected(422, "Bad parameter", "event can't be combined with where")
        narrow = self._narrow(ask, ("source", "workflow", "status", "tenant"), of_runs)
        items, end = await report.runs(
            self._store, narrow, before=ask.run_cursor(), limit=ask.limit(), timeout_s=self._query_s, event=found
        )
        return json(Runs(items=items, next=cursor_of(end)))

    def _narrow(self, ask: Ask, names: Sequence[str], of: Callable[..., Selection]) -> Selection:
        """What a list is narrowed to: by ``where``, or by parameters of their own."""
        given = [name for name in names if ask.text(name) is not None]
        if (where := ask.text("where")) is not None:
            if given:
                raise Rejected(422, "Bad parameter", f"where can't be combined with {given[0]}: write it into where")
            return of(where, now_us=self._clock.wall_us())
        words = {name: (ask.query[name],) for name in given}
        status = ask.event_status() if "type" in names else ask.run_status()
        return Selection(
            source=words.get("source"), type=words.get("type"), tenant=words.get("tenant"),
            workflow=words.get("workflow"), states=None if status is None else frozenset((status,)),
        )  # fmt: skip

    async def run(self, ask: Ask) -> Answer:
        found = await report.run(self._store, ask.run_id(), timeout_s=self._query_s)
        if found is None:
            raise Rejected(404, "No such run", "there is none with this id")
        return json(found)

    async def _event(self, ask: Ask) -> EventDetail:
        found = await report.event(self._store, ask.event_id(), timeout_s=self._query_s)
        if found is None:
            raise Rejected(404, "No such event", NOT_YET)
        return found


def way_of(event: EventDetail, steps: list[Step], *, truncated: bool) -> Way:
    """An event's stages in order of time; those of one moment in the order of the flow."""
    start = event.received_at
    workflows = {run.id: run.workflow for run in event.runs}
    stages = [
        Stage(at=start, after_ms=0.0, stage="received", detail=f"{event.bytes} bytes"),
        Stage(at=event.routed_at, after_ms=_ms(start, event.routed_at), stage="routed", detail=event.status),
    ]
    for run in event.runs:
        stages.extend(_run_stages(start, run))
    for step in steps:
        stages.append(
            Stage(
                at=step.finished_at,
                after_ms=_ms(start, step.finished_at),
                stage="step",
                run=step.run,
                workflow=workflows.get(step.run),
                detail=_step(step),
                took_ms=_ms(step.started_at, step.finished_at),
            )
        )
    if event.reply is not None:
        at, run_id = event.reply.at, event.reply.run
        stages.append(
            Stage(
                at=at,
                after_ms=_ms(start, at),
                stage="replied",
                run=run_id,
                workflow=workflows.get(run_id),
                detail=str(event.reply.status),
            )
        )
    return Way(
        id=event.id,
        duplicate_of=event.duplicate_of,
        type=event.type,
        source=event.source,
        status=event.status,
        reason=event.reason,
        stages=sorted(stages, key=lambda stage: (stage.at, ORDER.index(stage.stage))),
        truncated=truncated,
    )


ORDER = ("received", "routed", "queued", "started", "step", "replied", "finished")


def _run_stages(start: datetime, run: RunLine) -> Iterator[Stage]:
    moments = (("queued", run.created_at), ("started", run.started_at), ("finished", run.finished_at))
    for stage, at in moments:
        if at is not None:
            took = _ms(run.started_at, at) if stage == "finished" and run.started_at is not None else None
            yield Stage(
                at=at,
                after_ms=_ms(start, at),
                stage=stage,
                run=run.id,
                workflow=run.workflow,
                detail=run.status if stage == "finished" else None,
                took_ms=took,
            )


def _step(step: Step) -> str:
    name = step.name if step.nth == 0 else f"{step.name} #{step.nth + 1}"
    return f"{name} in {step.task}" if step.task else name


def _ms(start: datetime, end: datetime) -> float:
    return round((end - start).total_seconds() * 1000, 3)
