"""How the runs stand that one has begun: of many, all together, for each time it is woken few of them have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from uuid import UUID

from seawall.kernel.seam.child import Child

FEW = 10
"""So many are looked at one by one: that also tells how one ended."""

FRESH_S = 1.0
"""Who has ended since counts a wake on the run that waits, so that one looks again however it goes on."""


class Kin:
    """Of one execution.

    Args:
        ask: Those that haven't ended, by their events.
        now: Seconds, of a clock that goes on also where the store's is stood still.
    """

    __slots__ = ("_ask", "_asked", "_found", "_now", "_turn", "_until")

    def __init__(self, ask: Callable[[], Awaitable[Mapping[UUID, Child]]], now: Callable[[], float]) -> None:
        self._ask = ask
        self._now = now
        self._asked = 0
        self._found: Mapping[UUID, Child] = {}
        self._turn = asyncio.Lock()
        self._until = 0.0

    async def look(self, *event_ids: UUID) -> Child | None:
        """How the run stands that one of these events has begun. None: it has ended, or isn't there, or nobody knows:
        look at it alone."""
        self._asked += 1
        if self._asked <= FEW:
            return None
        async with self._turn:
            if self._now() >= self._until:
                self._found = await self._ask()
                self._until = self._now() + FRESH_S
        return next((self._found[id] for id in event_ids if id in self._found), None)
