"""Begins runs by schedules: a moment's in one transaction with the schedule's next one, by whoever is first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence, Set

from seawall.guard import Heart
from seawall.guard.patience import patiently
from seawall.guard.spell import Spells
from seawall.kernel.clock import Clock
from seawall.kernel.error import Unavailable, Uncertain
from seawall.kernel.event import EventIds
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.store import cancel, cron, wait
from seawall.store.cancel import Marked
from seawall.store.cron import Begin, Begun, Next
from seawall.store.driver import DEPENDENCY
from seawall.store.pool import Row, Session, Store
from seawall.workflow.cron import Cron, Decision, Line, Schedule, body_of, decide, due_us

log = logger("worker")

LOOK_S = 1.0
SYNC_S = 30.0
"""How often tenants that came or went are looked for."""

TIMEOUT_S = 2.0
OVERTAKEN = "cancelled: the next moment of its schedule came"


class Crons:
    """The schedules of one app.

    Args:
        ready: Whether the app's workflows are registered, and this process isn't stopping.
        look_s: How often it looks what is due, as it is set now; at least each second.
    """

    def __init__(
        self, store: Store, crons: Sequence[Cron], metrics: Metrics, *, clock: Clock, spells: Spells,
        ready: Callable[[], bool], look_s: Callable[[], float],
    ) -> None:  # fmt: skip
        self._store = store
        self._crons = crons
        self._names = [one.name for one in crons]
        self._clock = clock
        self._ids = EventIds(clock)
        self._spells = spells
        self._ready = ready
        self._look_s = look_s
        self._sync_at = 0.0
        self._schedules: dict[tuple[str, str], Schedule] = {}
        self._begun = metrics.counter("seawall_cron_begun_total", "Runs that began by a schedule.")
        self._skipped = metrics.counter(
            "seawall_cron_skipped_total", "Moments of schedules that came while the former run went on."
        )
        self._missed = metrics.counter(
            "seawall_cron_missed_total",
            "Moments of schedules that no worker was there for, and that weren't made up for.",
        )

    async def run(self, heart: Heart) -> None:
        """The supervised loop."""
        while True:
            more = False
            try:
                if self._crons and self._ready():
                    if (now := self._clock.monotonic()) >= self._sync_at:
                        await patiently(heart, self._sync(), what=DEPENDENCY)
                        self._sync_at = now + SYNC_S
                        await heart.beat()
                    more = await patiently(heart, self._look(), what=DEPENDENCY)
                await heart.beat()
            except (Unavailable, Uncertain) as error:
                heart.unready(str(error))
            await asyncio.sleep(0 if more else min(LOOK_S, self._look_s()))

    async def _sync(self) -> None:
        """Make schedules known, and a line for each tenant."""
        declared = [
            cron.Declared(one.name, one.expression, one.zone, one.overlap, one.catch_up, one.tenant)
            for one in self._crons
        ]  # fmt: skip
        changed = await cron.declare(self._store, declared)
        async with self._store.transaction(timeout_s=TIMEOUT_S) as session:
            rows = await cron.lines(session, self._names)
            await cron.make_lines(session, self._first(rows, changed))
            await cron.tidy(session, self._names)

    def _first(self, rows: Sequence[Row], changed: Set[str]) -> list[Next]:
        """Lines that aren't there yet, or go by another schedule from their next moment on (one that has come stands:
        it had no run yet); and those beyond its next moment, which only a clock that leapt and came back has made."""
        made = []
        for row in rows:
            schedule = self._schedule(row)
            if schedule is None:
                continue
            first, behind = schedule.moments(row["now_us"], row["now_us"])[1:3]
            line = _line(row, moment_us=first)
            stands_us = row["moment_us"]
            changes = row["name"] in changed and stands_us is not None and stands_us > row["now_us"]
            if stands_us is None or changes or stands_us > first:
                made.append(Next(line.name, line.tenant, line.moment_us, due_us(line, first, behind)))
        return made

    def _schedule(self, row: Row) -> Schedule | None:
        """None: another worker's app declared what can't be read here."""
        key = (row["expression"], row["zone"])
        if key not in self._schedules:
            try:
                self._schedules[key] = Schedule(*key)
            except ValueError as error:
                self._spells.saw(
                    "cron-unreadable", f"the schedule of {row['name']} can't be read: {error}",
                    unaffected="other schedules", cure="start all workers with the same version of the app",
                )  # fmt: skip
                return None
        return self._schedules[key]

    async def _look(self) -> bool:
        """Begin what is due; whether there may be more."""
        async with self._store.transaction(timeout_s=TIMEOUT_S) as session:
            rows, running = await cron.due(session, self._names)
            if not rows:
                return False
            begun, marked = await self._begin(session, rows, running)
        if begun:
            await wait.tell(self._store, [one.woken for one in begun])
        if marked is not None:
            await cancel.settle(self._store, marked, timeout_s=TIMEOUT_S)
        return len(rows) == cron.DUE_MAX

    async def _begin(
        self, session: Session, rows: Sequence[Row], running: Set[int]
    ) -> tuple[list[Begun], Marked | None]:  # fmt: skip
        runs: list[Begin] = []
        lines: list[Next] = []
        former: list[int] = []
        for row in rows:
            schedule = self._schedule(row)
            if schedule is None:
                continue
            line = _line(row, running=row["run_id"] in running)
            what = decide(line, schedule, row["now_us"])
            lines.append(_next(line, what))
            if what.begins_us is not None:
                body = body_of(schedule, line.name, what.begins_us, row["last_us"])
                runs.append(Begin(line.name, line.tenant, what.begins_us, self._ids.next(), body))
            if what.cancels:
                former.append(row["run_id"])
        begun = await cron.begin(session, runs)
        await cron.go_on(session, lines)
        # Behind the new one: where that had its run already, this moment is nobody's reason to end the former.
        began = {(one.name, one.tenant) for one in begun}
        former = [r["run_id"] for r in rows if r["run_id"] in former and (r["name"], r["tenant"]) in began]
        marked = await cancel.mark(session, former, OVERTAKEN) if former else None
        self._count(begun, lines)
        return begun, marked

    def _count(self, begun: Sequence[Begun], lines: Sequence[Next]) -> None:
        self._begun.value += len(begun)
        for line in lines:
            self._skipped.value += line.skipped
            self._missed.value += line.missed
            if line.skipped or line.missed:
                log.info(
                    "moments of a schedule had no run",
                    extra=fields(cron=line.name, tenant=line.tenant, skipped=line.skipped, missed=line.missed),
                )


def _line(row: Row, *, moment_us: int | None = None, running: bool = False) -> Line:
    if moment_us is not None:
        return Line(
            name=row["name"], tenant=row["tenant"], moment_us=moment_us, spread=row["spread"], blocked=False,
            running=False, paused=False, overlap="skip", catch_up="one",
        )  # fmt: skip
    return Line(
        name=row["name"], tenant=row["tenant"], moment_us=row["moment_us"], spread=row["spread"],
        blocked=row["blocked"], running=running, paused=row["paused"], overlap=row["overlap"],
        catch_up=row["catch_up"],
    )  # fmt: skip


def _next(line: Line, what: Decision) -> Next:
    return Next(
        line.name, line.tenant, what.moment_us, what.due_us, what.blocked, what.skipped, what.missed
    )  # fmt: skip
