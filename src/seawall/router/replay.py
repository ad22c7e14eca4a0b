"""Runs stored events once more, at the rate that the governor allows, beside fresh work and never before it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence, Set
from typing import Final

from seawall.guard.patience import patiently, rest
from seawall.guard.supervisor import Heart
from seawall.kernel.error import Unavailable, Uncertain, Unstorable
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.kernel.placement import Placement, shard_of
from seawall.router.match import Matcher
from seawall.router.range import STORE
from seawall.store import replay as rows
from seawall.store import router
from seawall.store.pool import Row, Store
from seawall.store.replay import Begun, Target

log = logger("router")

LOOK_S: Final = 0.25
PRUNE_EVERY: Final = 240
"""In rounds."""


class Replays:
    """Works on all replays there are; several routers share them."""

    def __init__(self, store: Store, placement: Placement, metrics: Metrics) -> None:
        self._store = store
        self._placement = placement
        self._events = metrics.counter("seawall_replay_events_total", "Events that replays have seen to.")
        self._runs = metrics.counter("seawall_replay_runs_total", "Runs that replays have begun.")
        self._rounds = 0

    async def run(self, heart: Heart) -> None:
        """The supervised loop. Cancelled: the batch under way is rolled back, and is done again."""
        while True:
            try:
                await self._round(heart)
            except (Unavailable, Uncertain, Unstorable) as error:
                await rest(heart, 1.0, reason=f"replays: {error}")
                continue
            await heart.beat()
            await asyncio.sleep(LOOK_S)

    async def _round(self, heart: Heart) -> None:
        for id, rate in await patiently(heart, rows.due(self._store), what=STORE):
            batch = await patiently(heart, rows.work(self._store, id, rate, self._decide), what=STORE)
            await heart.beat()
            if batch is None:
                continue
            self._events.value += batch.seen
            self._runs.value += batch.runs
            if batch.over:
                log.info("a replay is done", extra=fields(replay=id))
        self._rounds += 1
        if self._rounds % PRUNE_EVERY == 0:
            await patiently(heart, rows.prune(self._store), what=STORE)

    def _decide(self, events: Sequence[Row], targets: Sequence[Target], full: Set[int]) -> list[Begun] | None:
        """The runs that events begin, each in the queue beside its workflow's; None: one of these is full. No place in
        line is taken then: who waits for hours would else come back behind all that others begin meanwhile."""
        matcher, known = matcher_of(targets), {target.id: target for target in targets}
        wanted = [(event, known[match.id]) for event in events for match in matcher.match(event["type"])]
        if any(target.beside_id in full for _, target in wanted):
            return None
        found: list[Begun] = []
        for event, target in wanted:
            assert target.beside_id is not None, target
            tenant = event["tenant"]
            shard = shard_of(event["id"].bytes, tenant.encode("utf-8", "replace"), target.shards)
            vt = self._placement.next(target.beside_id, tenant, backlog=False, priority=target.priority)
            found.append(Begun(event["id"], target.id, tenant, target.beside_id, shard, vt, target.frozen))
        return found


def matcher_of(targets: Sequence[Target]) -> Matcher:
    """By type, which of these workflows an event begins."""
    return Matcher([router.Workflow(t.id, t.name, t.pattern, t.queue_id, t.shards) for t in targets])
