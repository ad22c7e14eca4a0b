"""Handlers of alerts, breakers and the shed list: they ask the roles, and so work while the store is away."""

from __future__ import annotations

import re

from seawall.console.answer import Answer, json
from seawall.console.ask import Ask
from seawall.console.shape import AlertList, BreakerList, Hand, Moved, WorkList
from seawall.kernel.error import Rejected
from seawall.kernel.seam.panel import Panels

NAME = re.compile(r"[a-z0-9_.-]{1,64}")


class PanelDesk:
    """Handlers. Each raises Rejected."""

    def __init__(self, panels: Panels) -> None:
        self._panels = panels

    async def alerts(self, ask: Ask) -> Answer:
        items, unasked = await self._panels.alerts()
        return json(AlertList(items=list(items), unasked=list(unasked)))

    async def breakers(self, ask: Ask) -> Answer:
        items, unasked = await self._panels.breakers()
        return json(BreakerList(items=list(items), unasked=list(unasked)))

    async def force(self, ask: Ask) -> Answer:
        wish, name = ask.parsed(Hand), ask.path["name"]
        if not NAME.fullmatch(name) or not NAME.fullmatch(wish.state):
            raise Rejected(404, "No such breaker", "seawall breakers list shows them")
        roles, unasked = await self._panels.force(name, wish.state)
        return json(Moved(roles=list(roles), unasked=list(unasked)))

    async def work(self, ask: Ask) -> Answer:
        items, unasked = await self._panels.work()
        return json(WorkList(items=list(items), unasked=list(unasked)))

    async def shed(self, ask: Ask) -> Answer:
        wish, name = ask.parsed(Hand), ask.path["name"]
        if not NAME.fullmatch(name) or not NAME.fullmatch(wish.state):
            raise Rejected(404, "No such work", "seawall shed list shows it")
        roles, unasked = await self._panels.shed(name, wish.state)
        return json(Moved(roles=list(roles), unasked=list(unasked)))
