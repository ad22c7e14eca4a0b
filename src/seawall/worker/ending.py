"""Ends runs whose time is over. Those that a worker may have in hand are marked: it is told, as of a cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from seawall.guard import Heart
from seawall.guard.patience import patiently
from seawall.kernel.error import Unavailable, Uncertain
from seawall.kernel.log import fields, logger
from seawall.kernel.status import RunStatus
from seawall.store import cancel, until
from seawall.store.driver import DEPENDENCY
from seawall.store.pool import Store
from seawall.worker.settings import Settings

log = logger("worker")

SETTLE_S = 2.0
"""A statement's longest time, as everywhere in a worker."""


class Endings:
    """Several workers may look at once; each finds others.

    Args:
        counted: Called for each run that ended here, with how.
        tell: Called with a run that waits for the end of one that ended here.
    """

    def __init__(
        self, store: Store, settings: Settings, *, counted: Callable[[RunStatus], None], tell: Callable[[int], None]
    ) -> None:
        self._store = store
        self.settings = settings
        self._counted = counted
        self._tell = tell

    async def run(self, heart: Heart) -> None:
        """The supervised loop."""
        while True:
            more = False
            try:
                more = await patiently(heart, self._expire(), what=DEPENDENCY)
                await heart.beat()
            except (Unavailable, Uncertain) as error:
                heart.unready(str(error))
            await asyncio.sleep(0 if more else min(1.0, self.settings.timer_s))

    async def _expire(self) -> bool:
        """Whether there are more, surely or maybe."""
        marked, parents = await until.expire(self._store)
        if not (marked.ended or marked.cancelling):
            return False
        found = len(marked.ended) + len(marked.cancelling)
        marked = await cancel.settle(self._store, marked, timeout_s=SETTLE_S)
        for one in marked.ended:
            log.warning("a run was ended: its time is over", extra=fields(run=one.id))
            self._counted(RunStatus.FAILED)
            if one.id in parents:
                self._tell(parents[one.id])
        return found >= until.RUNS_MAX
