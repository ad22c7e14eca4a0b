"""Queues that have as many runs as they may: new events are held for them, and their runs made when there are fewer.

What is held keeps its place in virtual time, so tenants take turns in coming in too, and one's flood keeps nobody out.
A queue takes new runs past those that wait only when there are none of these any more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType

from seawall.guard.patience import patiently, rest
from seawall.guard.spell import Spells
from seawall.guard.supervisor import Heart
from seawall.kernel.clock import Clock
from seawall.kernel.error import Unavailable, Uncertain
from seawall.kernel.metric import Metrics
from seawall.router import alarm
from seawall.router.range import STORE
from seawall.store import depth
from seawall.store.depth import Depth
from seawall.store.pool import Store

EVERY_S, BUSY_S = 1.0, 0.2
"""How often runs are counted: where none wait to be made, and where some do."""

SHARE, REST_MAX_S = 20, 10.0
"""A count isn't repeated before so many times the time that it took, and always after so long."""

RUNS_MAX = 500
ROUNDS_MAX = 20
COUNT_S = 2.0


class Depths:
    """One router's part. Several may do this; each then holds for what it knows, up to a second late."""

    def __init__(self, store: Store, metrics: Metrics, spells: Spells, *, clock: Clock) -> None:
        self._store = store
        self._spells = spells
        self._clock = clock
        self._room: dict[int, int] = {}  # by queue that has a bound and isn't full: how many more runs it takes
        self._names: dict[int, str] = {}
        self.full: dict[int, str] = {}  # by queue, its name
        self._open: set[Taking] = set()  # batches under way
        self._late: Counter[int] = Counter()  # what batches made that ended since the last count began
        self._put_off: set[int] = set()  # queues for which these put runs off
        self._made = metrics.counter(
            "seawall_router_undeferred_total", "Runs made later than their event came, since their queue was full."
        )

    def took(self, queue_id: int) -> bool:
        """A batch makes one more run of a queue; False: of one without a bound."""
        left = self._room.get(queue_id)
        if left is None:
            return False
        self._room[queue_id] = left - 1
        if left <= 1:
            self.full[queue_id] = self._names[queue_id]
        return True

    def begins(self, taking: Taking) -> None:
        """A batch is under way: no count sees what it makes."""
        self._open.add(taking)

    def ends(self, taking: Taking) -> None:
        """It has ended: counts that begin from now on do."""
        self._open.discard(taking)
        self._late.update(taking.counts)
        self._put_off |= taking.put_off

    async def run(self, heart: Heart) -> None:
        """The supervised loop."""
        while True:
            began = self._clock.monotonic()
            self._late.clear()
            self._put_off.clear()
            try:
                found = await patiently(heart, depth.depths(self._store, timeout_s=COUNT_S), what=STORE)
                took_s = self._clock.monotonic() - began
                self._saw(found)
                for one in found:
                    if one.waiting:
                        await self._make(heart, one)
            except (Unavailable, Uncertain) as error:
                await rest(heart, EVERY_S, reason=str(error))
                continue
            await heart.beat()
            await self._sleep(heart, min(REST_MAX_S, max(BUSY_S if self.full else EVERY_S, took_s * SHARE)))

    async def _sleep(self, heart: Heart, left_s: float) -> None:
        while left_s > 0:
            await asyncio.sleep(min(EVERY_S, left_s))
            left_s -= EVERY_S
            await heart.beat()

    def _saw(self, found: Sequence[Depth]) -> None:
        self._names = {one.queue_id: one.name for one in found}
        room = {one.queue_id: self._room_of(one) for one in found}
        put_off = self._put_off.union(*(taking.put_off for taking in self._open))
        full = [one for one in found if one.waiting or one.queue_id in put_off or room[one.queue_id] <= 0]
        self.full = {one.queue_id: one.name for one in full}
        self._room = {id: left for id, left in room.items() if id not in self.full}
        for one in full:
            alarm.full(self._spells, one.name, one.most)

    def _room_of(self, one: Depth) -> int:
        if one.most is None:
            return RUNS_MAX * ROUNDS_MAX
        unseen = self._late[one.queue_id] + sum(taking.counts[one.queue_id] for taking in self._open)
        return one.most - one.runs - unseen

    async def _make(self, heart: Heart, one: Depth) -> None:
        """Make as many of a queue's waiting runs as it takes."""
        room = self._room_of(one)
        for _ in range(ROUNDS_MAX):
            if room <= 0:
                return
            most = min(room, RUNS_MAX)
            made = 0
            with contextlib.suppress(Uncertain):  # the next count tells
                made = await patiently(heart, depth.make(self._store, one.queue_id, runs_max=most), what=STORE)
            self._made.value += made
            room -= made
            if made < most:
                return


class Taking:
    """What one batch makes of queues that have a bound. Enter it around the batch's transaction."""

    def __init__(self, depths: Depths) -> None:
        self._depths = depths
        self.counts: Counter[int] = Counter()
        self.put_off: set[int] = set()  # queues; what comes for them later must not be made before

    @property
    def full(self) -> Mapping[int, str]:
        """By queue that takes no more runs, its name."""
        return self._depths.full

    def took(self, queue_id: int) -> None:
        """The batch makes one more run of a queue."""
        if self._depths.took(queue_id):
            self.counts[queue_id] += 1

    def __enter__(self) -> Taking:
        self._depths.begins(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depths.ends(self)
