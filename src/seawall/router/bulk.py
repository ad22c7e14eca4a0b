"""Does what people asked for many runs at once, piece by piece, and behind fresh work.

It is in the router since runs that come back need a place among all others, and who knows those places is here.
"""

from __future__ import annotations

import asyncio
from typing import Final
from uuid import UUID

from seawall.guard.patience import patiently, rest
from seawall.guard.supervisor import Heart
from seawall.kernel.error import Unavailable, Uncertain, Unstorable
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.kernel.placement import Placement, shard_of
from seawall.router.range import STORE
from seawall.store import errand
from seawall.store.bulk import Act
from seawall.store.cancel import settle
from seawall.store.errand import Piece
from seawall.store.pool import Store

log = logger("router")

IDLE_S: Final = 0.5
BUSY_S: Final = 0.1
"""Before those are looked at again that somebody was flushing."""

PRUNE_EVERY: Final = 120
"""In idle rounds."""


class Places:
    """Where runs wait that come back: as a backlog does, so that a tenant's fresh runs don't wait behind them."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement

    def vt(self, queue_id: int, tenant: str, priority: int) -> int:
        return self._placement.next(queue_id, tenant, backlog=True, priority=priority)

    def shard(self, event_id: UUID, tenant: str, shards: int) -> int:
        return shard_of(event_id.bytes, tenant.encode("utf-8", "replace"), shards)


class Bulks:
    """Works on all bulks there are; several routers share them."""

    def __init__(self, store: Store, placement: Placement, metrics: Metrics) -> None:
        self._store = store
        self._places = Places(placement)
        self._done = {
            act: metrics.counter("seawall_bulk_runs_total", "Runs that were acted on in bulk.", act=act.value)
            for act in Act
        }
        self._idle = 0
        self._settling: asyncio.Task[object] | None = None

    async def run(self, heart: Heart) -> None:
        """The supervised loop. Cancelled: the piece under way is rolled back, and is done again; what was marked
        and not settled yet is settled in the bulk's last round."""
        try:
            while True:
                try:
                    piece = await patiently(heart, errand.work(self._store, self._places), what=STORE)
                    await heart.beat()
                    await self._settled(heart)
                    await self._after(heart, piece)
                except (Unavailable, Uncertain, Unstorable) as error:
                    await rest(heart, 1.0, reason=f"acts on many runs: {error}")
        finally:
            if self._settling is not None:
                self._settling.cancel()

    async def _settled(self, heart: Heart) -> None:
        """Wait for the settling of the piece before this one: a cancellation has two halves, done side by side."""
        task, self._settling = self._settling, None
        if task is None:
            return
        try:
            await patiently(heart, _result(task), what=STORE)
        except (Unavailable, Uncertain) as error:  # another round does it, or a worker
            log.warning("runs are marked, and not cancelled yet", extra=fields(cause=str(error)))

    async def _after(self, heart: Heart, piece: Piece | None) -> None:
        if piece is None:
            self._idle += 1
            if self._idle % PRUNE_EVERY == 0:
                await patiently(heart, errand.prune(self._store), what=STORE)
            await asyncio.sleep(IDLE_S)
            return
        self._done[piece.act].value += piece.done
        if piece.marked is not None:
            settling = settle(self._store, piece.marked, timeout_s=errand.PIECE_S)
            self._settling = asyncio.create_task(settling, name="router.bulk.settle")
        if piece.over:
            log.info("a bulk is done", extra=fields(bulk=piece.bulk, act=piece.act.value))
        elif not piece.done:
            await asyncio.sleep(BUSY_S)


async def _result(task: asyncio.Task[object]) -> None:
    await task
