"""Handlers of what is asked of many runs or events at once: counted first, then done to exactly those."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime
from typing import Final

from seawall.console.answer import Answer, json
from seawall.console.ask import Ask, cursor_of
from seawall.console.shape import BulkList, BulkUndo, BulkWish, EventCount, RunCount
from seawall.kernel.clock import Clock
from seawall.kernel.error import Overloaded, Rejected
from seawall.kernel.seam.change import TEXT_MAX
from seawall.kernel.selection import ENDED, SINCE_S, UNFINISHED, Selection, of_events, of_runs
from seawall.kernel.status import RunStatus
from seawall.store import bulk
from seawall.store.bulk import Act, BulkLine
from seawall.store.change import Author, time_of
from seawall.store.pool import Store

COUNT_S: Final = 20.0
"""How long counting may take: what takes longer is to be narrowed. Below the patience of whoever asks."""

ACTS: Final = tuple(act.value for act in Act)


class LongQueries:
    """Queries that read all that is meant, of all desks: one at a time; who comes meanwhile is told to come again."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Raises Overloaded."""
        if self._lock.locked():
            raise Overloaded("somebody else counts many runs or events", retry_after_s=2.0)
        async with self._lock:
            yield


class BulkDesk:
    """Each handler raises Rejected, Unavailable or Uncertain, and Overloaded where it counts."""

    def __init__(self, store: Store, long: LongQueries, *, clock: Clock, query_s: float) -> None:
        self._store = store
        self._long = long
        self._clock = clock
        self._query_s = query_s

    async def runs(self, ask: Ask) -> Answer:
        """How many runs a selection means, of any state, or for an act."""
        act = ask.text("act")
        states = UNFINISHED if act is None else Act(act).states
        narrow = of_runs(ask.text("where") or "", now_us=self._clock.wall_us())
        narrow = narrow if act is None and narrow.states is not None else meant(narrow, states, act or "count")
        narrow, since = bounded(narrow, now_us=self._clock.wall_us())
        async with self._long.one():
            total, rows = await bulk.counts(self._store, narrow, timeout_s=COUNT_S)
        groups = [bulk.group_of(row) for row in rows]
        return json(RunCount(total=total, since=since, groups=groups, truncated=sum(g.count for g in groups) < total))

    async def events(self, ask: Ask) -> Answer:
        narrow, since = events_of(ask.text("where") or "", now_us=self._clock.wall_us())
        async with self._long.one():
            total, rows = await bulk.event_counts(self._store, narrow, timeout_s=COUNT_S)
        groups = [bulk.event_group_of(row) for row in rows]
        return json(EventCount(total=total, since=since, groups=groups, truncated=sum(g.count for g in groups) < total))

    async def add(self, ask: Ask) -> Answer:
        wish, now_us = ask.parsed(BulkWish), self._clock.wall_us()
        if wish.act not in ACTS:
            raise Rejected(422, "Bad act", f"act is {', '.join(ACTS)}; not {wish.act[:64]!r}")
        if not wish.where.strip():
            raise Rejected(422, "Bad selection", "where must say which runs; state=… is the least")
        act = Act(wish.act)
        narrow, _ = bounded(meant(of_runs(wish.where, now_us=now_us), act.states, act.value), now_us=now_us)
        made = bulk.Wish(act=act, narrow=narrow, text=wish.where.strip(), expected=wish.expect_count)
        async with self._long.one():
            id = await bulk.make(self._store, made, author_of(ask, wish.why, self._clock), timeout_s=COUNT_S)
        return json(await self._one(id), status=202)

    async def undo(self, ask: Ask) -> Answer:
        author = author_of(ask, ask.parsed(BulkUndo).why, self._clock)
        async with self._long.one():
            id = await bulk.undo(self._store, number(ask), author, timeout_s=COUNT_S)
        return json(await self._one(id), status=202)

    async def page(self, ask: Ask) -> Answer:
        limit = ask.limit()
        items = await bulk.page(self._store, before=ask.run_cursor(), limit=limit, timeout_s=self._query_s)
        return json(BulkList(items=items, next=cursor_of(int(items[-1].id)) if len(items) == limit else None))

    async def one(self, ask: Ask) -> Answer:
        return json(await self._one(number(ask)))

    async def _one(self, id: int) -> BulkLine:
        found = await bulk.one(self._store, id, timeout_s=self._query_s)
        if found is None:
            raise Rejected(404, "No such bulk", "seawall bulk list shows them")
        return found


def author_of(ask: Ask, why: str, clock: Clock) -> Author:
    """Who asks, and why."""
    if len(why) > TEXT_MAX:
        raise Rejected(422, "Bad reason", f"why has at most {TEXT_MAX} characters")
    return Author(ask.by, clock, why.strip())


def number(ask: Ask) -> int:
    """The path's ``id``."""
    try:
        return ask.run_id()
    except Rejected as error:
        raise Rejected(404, "No such thing", "its id is a whole number") from error


def meant(narrow: Selection, states: frozenset[int], what: str) -> Selection:
    """The selection with states that an act can be done to; what isn't said is all of these.

    Raises:
        Rejected: 422: it says a state of which that can't be done.
    """
    wrong = (narrow.states or frozenset()) - states
    if wrong:
        allowed = ", ".join(sorted(RunStatus(state).word for state in states))
        raise Rejected(422, "Bad selection", f"{what} is for runs that are {allowed}; not {RunStatus(min(wrong)).word}")
    return narrow if narrow.states is not None else replace(narrow, states=frozenset(states))


def bounded(narrow: Selection, *, now_us: int) -> tuple[Selection, datetime | None]:
    """The selection with a bound in time where there may be very many; and that bound, when it was added."""
    assert narrow.states is not None, "said by `meant`"
    if narrow.since_us is not None or not narrow.states & ENDED:
        return narrow, None
    since_us = _since(narrow, now_us)
    return replace(narrow, since_us=since_us), time_of(since_us)


def events_of(text: str, *, now_us: int) -> tuple[Selection, datetime | None]:
    """A selection of events, bounded in time in any case; and that bound, when it was added. Raises Rejected."""
    narrow = of_events(text, now_us=now_us)
    if narrow.since_us is not None:
        return narrow, None
    since_us = _since(narrow, now_us)
    return replace(narrow, since_us=since_us), time_of(since_us)


def _since(narrow: Selection, now_us: int) -> int:
    """A day before the end of what is meant."""
    return max(0, (now_us if narrow.until_us is None else min(now_us, narrow.until_us)) - SINCE_S * 1_000_000)
