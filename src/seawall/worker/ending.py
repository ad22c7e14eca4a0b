"""Ends runs whose time is over, and those that end with the run that began them. Those that a worker may have in hand
are marked: it is told, as of a cancellation.

What a run had begun that ended in the store comes right behind it (`store/cancel.py: settle`); one that ended in a
worker's hands is known here at once. However else one ended, and whoever died meanwhile: a sweep finds what it left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from seawall.guard import Heart
from seawall.guard.patience import patiently
from seawall.kernel.clock import Clock
from seawall.kernel.error import Unavailable, Uncertain
from seawall.kernel.log import fields, logger
from seawall.kernel.status import RunStatus
from seawall.store import cancel, until
from seawall.store.driver import DEPENDENCY
from seawall.store.pool import Store
from seawall.worker.settings import Settings

log = logger("worker")

SWEEP_S = 1.0
"""How often the next stretch of runs with parents is looked at."""

SWEEP_ROWS = 1000
"""In one stretch: some three milliseconds of the store's time."""

PARENTS_MAX = 10_000
SETTLE_S = 2.0
"""A statement's longest time, as everywhere in a worker."""


class Endings:
    """Several workers may look at once; each finds others.

    Args:
        counted: Called for each run that ended here, with how.
        tell: Called with a run that waits for the end of one that ended here.
    """

    def __init__(
        self, store: Store, settings: Settings, *, clock: Clock, counted: Callable[[RunStatus], None],
        tell: Callable[[int], None],
    ) -> None:  # fmt: skip
        self._store = store
        self.settings = settings
        self._clock = clock
        self._counted = counted
        self._tell = tell
        self._parents: set[int] = set()  # that have ended, and may have left others
        self._after, self._sweep_at = cancel.BEFORE_ALL, 0.0

    def bereaved(self, parent: int) -> None:
        """A run has ended that may have begun others. One that isn't told of is found by the sweep."""
        if len(self._parents) < PARENTS_MAX:
            self._parents.add(parent)

    async def run(self, heart: Heart) -> None:
        """The supervised loop."""
        while True:
            more = False
            try:
                more = await patiently(heart, self._round(), what=DEPENDENCY)
                await heart.beat()
            except (Unavailable, Uncertain) as error:
                heart.unready(str(error))
            await asyncio.sleep(0 if more else min(1.0, self.settings.timer_s))

    async def _round(self) -> bool:
        """Whether there is more to do at once."""
        late, kin = await until.look(self._store)
        more = late and await self._expire()
        if not kin:
            self._parents.clear()
            return more
        return await self._follow() or await self._sweep() or more

    async def _expire(self) -> bool:
        """Whether there are more, surely or maybe."""
        marked, parents = await until.expire(self._store)
        if not marked:
            return False
        for id in await self._settled(marked, RunStatus.FAILED, "a run was ended: its time is over"):
            if id in parents:
                self._tell(parents[id])
        return len(marked.ended) + len(marked.cancelling) >= until.RUNS_MAX

    async def _follow(self) -> bool:
        """End what was begun by runs that have just ended; True when there may be more."""
        if not self._parents:
            return False
        parents = self._parents.copy()
        found = await cancel.orphans(self._store, of=list(parents))
        if found.seen < cancel.BATCH_MAX or not found.marked:
            self._parents -= parents  # whoever is left is locked by a flush, say: for the sweep
        await self._settled(found.marked, RunStatus.CANCELLED, "a run was ended with the one that began it")
        return bool(found.marked)

    async def _sweep(self) -> bool:
        """The same for the next stretch of all, every second, and at once while there are any."""
        now = self._clock.monotonic()
        if now < self._sweep_at:
            return False
        found = await cancel.orphans(self._store, after=self._after, rows_max=SWEEP_ROWS)
        self._after, self._sweep_at = found.last, now if found.marked else now + SWEEP_S
        await self._settled(found.marked, RunStatus.CANCELLED, "a run was ended with the one that began it")
        return bool(found.marked)

    async def _settled(self, marked: cancel.Marked, status: RunStatus, what: str) -> list[int]:
        """Those that have ended by now."""
        if not marked:
            return []
        marked = await cancel.settle(self._store, marked, timeout_s=SETTLE_S)
        for one in marked.ended:
            log.warning(what, extra=fields(run=one.id, status=status.word))
            self._counted(status)
        return [one.id for one in marked.ended]
