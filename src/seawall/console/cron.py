"""Handlers of the endpoints of schedules, and what these take and give."""

from __future__ import annotations

import msgspec

from seawall.console.answer import Answer, json
from seawall.console.ask import Ask
from seawall.kernel.clock import Clock
from seawall.kernel.error import Rejected
from seawall.kernel.event import EventIds
from seawall.kernel.seam.change import TEXT_MAX, Kind
from seawall.store import cron, wait
from seawall.store.change import Author, record
from seawall.store.cron import CronLine
from seawall.store.pool import Store
from seawall.workflow.cron import Schedule, body_of


class CronList(msgspec.Struct, frozen=True, kw_only=True):
    """All schedules."""

    items: list[CronLine]


class CronWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """That a schedule is to stand still, or go on."""

    paused: bool
    why: str = ""


class CronChange(msgspec.Struct, frozen=True, kw_only=True):
    """How a schedule stood, and how it stands."""

    name: str
    before: str
    after: str


class CronTrigger(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """That a run is to begin now."""

    tenant: str = ""
    why: str = ""


class CronBegun(msgspec.Struct, frozen=True, kw_only=True):
    """A run that began by hand."""

    name: str
    tenant: str
    run: str


class CronDesk:
    """Each handler raises Rejected, Unavailable or Uncertain."""

    def __init__(self, store: Store, *, clock: Clock, query_s: float) -> None:
        self._store = store
        self._clock = clock
        self._query_s = query_s
        self._ids = EventIds(clock)

    async def page(self, ask: Ask) -> Answer:
        return json(CronList(items=await cron.page(self._store, timeout_s=self._query_s)))

    async def put(self, ask: Ask) -> Answer:
        name, wish = ask.path["name"], ask.parsed(CronWish)
        author = self._author(ask, wish.why)
        before, after = await cron.pause(self._store, name, author, paused=wish.paused, timeout_s=self._query_s)
        return json(CronChange(name=name, before=before, after=after))

    async def trigger(self, ask: Ask) -> Answer:
        name, wish = ask.path["name"], ask.parsed(CronTrigger)
        author = self._author(ask, wish.why)
        async with self._store.transaction(timeout_s=self._query_s) as session:
            line = await cron.one(session, name, wish.tenant or None)
            schedule = Schedule(line["expression"], line["zone"])
            body = body_of(schedule, name, line["now_us"], line["last_us"])
            run = cron.Begin(name, line["tenant"], line["now_us"], self._ids.next(), body)
            begun = await cron.begin(session, [run])
            if not begun:
                raise Rejected(
                    409, "No version", f"workflow {name} takes no new runs: no worker has it, or it is frozen"
                )
            await record(session, author.change(Kind.CRON, name, None, f"run {begun[0].run_id} by hand"))
        await wait.tell(self._store, [begun[0].woken])
        return json(CronBegun(name=name, tenant=line["tenant"], run=str(begun[0].run_id)))

    def _author(self, ask: Ask, why: str) -> Author:
        if len(why) > TEXT_MAX:
            raise Rejected(422, "Bad reason", f"why has at most {TEXT_MAX} characters")
        return Author(ask.by, self._clock, why.strip())
