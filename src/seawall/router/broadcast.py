"""Tells runs of an event that very many of them wait for: more than its batch had the time for.

The batch has noted up to which run they are told. What is told is committed some at a time, so that neither a batch of
events nor a run that looks how its wait stands has to wait for more than that; a run that looks by itself finds the
event, told or not, so none is late for its timeout.
"""

from __future__ import annotations

import asyncio

from seawall.guard.patience import patiently, rest
from seawall.guard.supervisor import Heart
from seawall.kernel.error import Unavailable, Uncertain
from seawall.kernel.log import logger
from seawall.kernel.metric import Metrics
from seawall.kernel.placement import Turns
from seawall.router.range import STORE
from seawall.store import wait as waits
from seawall.store.pool import Store

log = logger("router")

LOOK_S = 1.0
PIECE_S = 5.0
"""Longest time for one piece."""


class Broadcast:
    """One loop of a router. Several routers may do this at once: they take turns."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store = store
        self._turns = Turns()
        self._told = metrics.counter(
            "seawall_router_told_total",
            "Runs that were told of an event after its batch, since very many waited for it.",
        )

    async def run(self, heart: Heart) -> None:
        """The supervised loop."""
        while True:
            try:
                more = await self._tell_some(heart)
            except (Unavailable, Uncertain) as error:
                await rest(heart, LOOK_S, reason=str(error))
                continue
            await heart.beat()
            await asyncio.sleep(0 if more else LOOK_S)

    async def _tell_some(self, heart: Heart) -> bool:
        woken = await patiently(heart, waits.hear_broad(self._store, turns=self._turns, timeout_s=PIECE_S), what=STORE)
        if woken:
            self._told.value += len(woken)
            await patiently(heart, waits.tell(self._store, woken), what=STORE)
        return woken is not None
