"""Wakes runs that wait for a time, or for the end of a run that they began."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from uuid import UUID

from seawall.guard import Heart
from seawall.guard.patience import patiently
from seawall.kernel.error import Unavailable, Uncertain
from seawall.kernel.placement import Turns
from seawall.store.child import tell_parents, who_began
from seawall.store.driver import DEPENDENCY
from seawall.store.pool import Store
from seawall.store.run import wake
from seawall.worker.settings import Settings

PARENTS_MAX = 10_000


class Timers:
    """A bounded sweep over due runs of our queues, suspects included; several workers may sweep at once.

    Args:
        queue_ids: The queues served now.
        woken: Called when runs became ready.
    """

    def __init__(
        self, store: Store, settings: Settings, *, queue_ids: Callable[[], Sequence[int]], woken: Callable[[], None]
    ) -> None:
        self._store = store
        self.settings = settings
        self._queue_ids = queue_ids
        self._woken = woken
        self._parents: set[int] = set()
        self._ended: set[UUID] = set()  # events of runs that ended, whose parents aren't known yet
        self._turns = Turns()

    def tell(self, parent: int) -> None:
        """A run that this one began has ended. One that isn't told looks by itself, later."""
        if len(self._parents) < PARENTS_MAX:
            self._parents.add(parent)

    def tell_of(self, event_id: UUID) -> None:
        """As ``tell``, of a run that wasn't in hand here, so that only its event says who began it."""
        if len(self._ended) < PARENTS_MAX:
            self._ended.add(event_id)

    async def run(self, heart: Heart) -> None:
        """The supervised loop."""
        while True:
            try:
                await patiently(heart, self._tell(), what=DEPENDENCY)
                queue_ids = self._queue_ids()
                most = max(1, self.settings.timer_runs // max(1, len(queue_ids)))
                woken = await patiently(
                    heart, wake(self._store, queue_ids, runs_max=most, turns=self._turns), what=DEPENDENCY
                )
                await heart.beat()
            except (Unavailable, Uncertain) as error:
                heart.unready(str(error))
                woken, most = [], 0
            count = sum(one.runs for one in woken)
            if count:
                self._woken()
            await asyncio.sleep(0 if count and count >= most else min(1.0, self.settings.timer_s))

    async def _tell(self) -> None:
        if ended := self._ended.copy():
            self._parents |= await who_began(self._store, ended)
            self._ended -= ended
        if told := self._parents.copy():
            await tell_parents(self._store, told, turns=self._turns)
            self._parents -= told
            self._woken()
