"""Handlers of replays: what would come of one, beginning one, and what becomes of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from seawall.console.answer import Answer, json
from seawall.console.ask import Ask, cursor_of
from seawall.console.bulk import COUNT_S, LongQueries, author_of, events_of, number
from seawall.console.shape import ReplayList, ReplayPlan, ReplayPut, ReplayStart, ReplayWish
from seawall.kernel.clock import Clock
from seawall.kernel.error import Rejected
from seawall.kernel.selection import Selection
from seawall.kernel.status import EventStatus
from seawall.router.replay import matcher_of
from seawall.store import bulk, replay
from seawall.store.bulk import EventGroup
from seawall.store.pool import Store
from seawall.store.replay import ReplayLine, State, Target

RATE_MAX: Final = 1_000.0
RAMP_S_MAX: Final = 86_400.0
STATES: Final = (State.RUNNING.value, State.PAUSED.value, State.CANCELLED.value)


class ReplayDesk:
    """Each handler raises Rejected, Unavailable or Uncertain, and Overloaded where it counts."""

    def __init__(self, store: Store, long: LongQueries, *, clock: Clock, query_s: float) -> None:
        self._store = store
        self._long = long
        self._clock = clock
        self._query_s = query_s

    async def plan(self, ask: Ask) -> Answer:
        """What would come of it. Changes nothing."""
        wish = ask.parsed(ReplayWish)
        check(wish.rate, wish.ramp_s)
        narrow, since = self._narrow(wish)
        targets = await self._targets(wish)
        async with self._long.one():
            total, rows = await bulk.event_counts(self._store, narrow, timeout_s=COUNT_S, sent=True)
        groups = [bulk.event_group_of(row) for row in rows]
        rate = replay.course(wish.rate, wish.ramp_s).rate
        return json(
            ReplayPlan(
                total=total, since=since, groups=groups, truncated=sum(g.count for g in groups) < total,
                starts=starts(groups, targets), eta_s=round(replay.eta_s(total, rate, wish.rate, wish.ramp_s)),
            )
        )  # fmt: skip

    async def add(self, ask: Ask) -> Answer:
        wish = ask.parsed(ReplayWish)
        check(wish.rate, wish.ramp_s)
        author = author_of(ask, wish.why, self._clock)
        narrow, _ = self._narrow(wish)
        await self._targets(wish)
        async with self._long.one():
            total, _ = await bulk.event_counts(self._store, narrow, timeout_s=COUNT_S, sent=True)
        name, version = named(wish.workflow)
        made = replay.Wish(
            narrow=narrow, text=wish.where.strip(), workflow=name, version=version, rate=wish.rate, ramp_s=wish.ramp_s,
            total=total,
        )  # fmt: skip
        id = await replay.make(self._store, made, author, timeout_s=self._query_s)
        return json(await self._one(id), status=202)

    async def put(self, ask: Ask) -> Answer:
        wish, id = ask.parsed(ReplayPut), number(ask)
        if wish.state is not None and wish.state not in STATES:
            raise Rejected(422, "Bad state", f"state is {', '.join(STATES)}; not {wish.state[:64]!r}")
        if wish.rate is not None:
            check(wish.rate, 0)
        state = None if wish.state is None else State(wish.state)
        author = author_of(ask, wish.why, self._clock)
        await replay.change(self._store, id, state, wish.rate, author, timeout_s=self._query_s)
        return json(await self._one(id))

    async def page(self, ask: Ask) -> Answer:
        limit = ask.limit()
        items = await replay.page(self._store, before=ask.run_cursor(), limit=limit, timeout_s=self._query_s)
        return json(ReplayList(items=items, next=cursor_of(int(items[-1].id)) if len(items) == limit else None))

    async def one(self, ask: Ask) -> Answer:
        return json(await self._one(number(ask)))

    async def _one(self, id: int) -> ReplayLine:
        found = await replay.one(self._store, id, timeout_s=self._query_s)
        if found is None:
            raise Rejected(404, "No such replay", "seawall replays list shows them")
        return found

    def _narrow(self, wish: ReplayWish) -> tuple[Selection, datetime | None]:
        """Bounded in time at both ends: what comes from now on isn't meant. Without a state, those that were routed."""
        now_us = self._clock.wall_us()
        narrow, since = events_of(wish.where, now_us=now_us)
        until_us = now_us if narrow.until_us is None else min(now_us, narrow.until_us)
        states = narrow.states if narrow.states is not None else frozenset({EventStatus.ROUTED})
        return replace(narrow, until_us=until_us, states=states), since

    async def _targets(self, wish: ReplayWish) -> list[Target]:
        name, version = named(wish.workflow)
        targets = await replay.targets(self._store, name, version, timeout_s=self._query_s)
        if not targets:
            what = "no workflow takes new events" if name is None else f"there is no workflow {wish.workflow}"
            raise Rejected(422, "Nothing to begin", f"{what}; GET /v1/workflows shows those there are")
        return targets


def named(workflow: str | None) -> tuple[str | None, str | None]:
    """Name and version of what was written as NAME or NAME@VERSION."""
    if workflow is None:
        return None, None
    name, at, version = workflow.rpartition("@")
    return (name, version) if at and name else (workflow, None)


def check(rate: float, ramp_s: float) -> None:
    """Raises Rejected: numbers that can't be meant."""
    if not (math.isfinite(rate) and replay.RATE_MIN <= rate <= RATE_MAX):
        raise Rejected(422, "Bad rate", f"rate is {replay.RATE_MIN:g} to {RATE_MAX:g} events a second; not {rate:g}")
    if not (math.isfinite(ramp_s) and 0 <= ramp_s <= RAMP_S_MAX):
        raise Rejected(422, "Bad ramp", f"ramp_s is 0 to {RAMP_S_MAX:g} seconds; not {ramp_s:g}")


def starts(groups: Sequence[EventGroup], targets: Sequence[Target]) -> list[ReplayStart]:
    """What these events would begin."""
    matcher, counts = matcher_of(targets), Counter[int]()
    for group in groups:
        for match in matcher.match(group.type):
            counts[match.id] += group.count
    return [
        ReplayStart(workflow=t.name, version=t.version, queue=f"replay.{t.queue}", runs=counts[t.id])
        for t in targets
        if counts[t.id]
    ]
