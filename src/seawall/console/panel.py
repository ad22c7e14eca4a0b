"""Handlers of alerts, breakers and the shed list: they ask the roles, and so work while the store is away."""

from __future__ import annotations

import re
from collections.abc import Sequence

from seawall.console.answer import Answer, json
from seawall.console.ask import Ask
from seawall.console.shape import AlertHistory, AlertList, BreakerList, Hand, Moved, WorkList
from seawall.kernel.clock import Clock
from seawall.kernel.error import Rejected
from seawall.kernel.moment import span_s
from seawall.kernel.seam.change import Kind, Note
from seawall.kernel.seam.panel import Panels
from seawall.store import watch
from seawall.store.change import Author
from seawall.store.pool import Store

NAME = re.compile(r"[a-z0-9_.-]{1,64}")
BREAKER = re.compile(r"[A-Za-z0-9_.:\[\]-]{1,300}")
"""Those of steps have a host and a port in them."""

SINCE = "24h"


class PanelDesk:
    """Handlers. Each raises Rejected.

    Args:
        note: Notes what was moved by hand, also while the store is away.
    """

    def __init__(self, panels: Panels, *, note: Note, clock: Clock, store: Store, query_s: float) -> None:
        self._panels = panels
        self._store = store
        self._query_s = query_s
        self._note = note
        self._clock = clock

    async def alerts(self, ask: Ask) -> Answer:
        items, unasked = await self._panels.alerts()
        return json(AlertList(items=list(items), unasked=list(unasked)))

    async def alert_history(self, ask: Ask) -> Answer:
        """Those that are over, too. Raises Unavailable as well."""
        ago_s = span_s(ask.text("since") or SINCE)
        if ago_s is None:
            raise Rejected(422, "Bad since", "since is how long ago: 90s, 30m, 2h, 7d")
        since_us = max(0, self._clock.wall_us() - ago_s * 1_000_000)
        rows = await watch.history(self._store, since_us=since_us, limit=ask.limit(), timeout_s=self._query_s)
        return json(AlertHistory(items=rows))

    async def breakers(self, ask: Ask) -> Answer:
        items, unasked = await self._panels.breakers()
        return json(BreakerList(items=list(items), unasked=list(unasked)))

    async def force(self, ask: Ask) -> Answer:
        wish, name = ask.parsed(Hand), ask.path["name"]
        if not BREAKER.fullmatch(name) or not NAME.fullmatch(wish.state):
            raise Rejected(404, "No such breaker", "seawall breakers list shows them")
        before = {line.state for line in (await self._panels.breakers())[0] if line.name == name}
        roles, unasked = await self._panels.force(name, wish.state)
        await self._tell(ask, Kind.BREAKER, name, ", ".join(sorted(before)) or None, wish, roles)
        return json(Moved(roles=list(roles), unasked=list(unasked)))

    async def work(self, ask: Ask) -> Answer:
        items, unasked = await self._panels.work()
        return json(WorkList(items=list(items), unasked=list(unasked)))

    async def shed(self, ask: Ask) -> Answer:
        wish, name = ask.parsed(Hand), ask.path["name"]
        if not NAME.fullmatch(name) or not NAME.fullmatch(wish.state):
            raise Rejected(404, "No such work", "seawall shed list shows it")
        before = {line.on for line in (await self._panels.work())[0] if line.name == name}
        roles, unasked = await self._panels.shed(name, wish.state)
        was = ", ".join(sorted("on" if on else "off" for on in before)) or None
        await self._tell(ask, Kind.SHED, name, was, wish, roles)
        return json(Moved(roles=list(roles), unasked=list(unasked)))

    async def _tell(
        self, ask: Ask, kind: Kind, name: str, before: str | None, wish: Hand, roles: Sequence[str]
    ) -> None:
        """What a hand did, for the timeline."""
        after = f"{wish.state} in {', '.join(roles) or 'no role'}"
        await self._note(Author(ask.by, self._clock, wish.why).change(kind, name, before, after))
