"""Counts who holds slots, in memory, and writes it down every few seconds: nothing is written for a single run.

Time is counted while a run is in hand, not when it ends: work that only gets slower, or never ends, is seen at once. A
few runs are drawn, of which the store knows how long they waited and took.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from seawall.guard import Heart
from seawall.guard.patience import patiently
from seawall.kernel.clock import Clock
from seawall.kernel.error import Unavailable, Uncertain, Unstorable
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.store.driver import DEPENDENCY
from seawall.store.pool import Store
from seawall.store.run import Ready
from seawall.store.usage import REST, Began, Cell, Left, add
from seawall.worker.shard import Held

if TYPE_CHECKING:
    from seawall.worker.execution import Execution

log = logger("worker")

WRITE_S = 5.0
BEAT_S = 1.0
CELLS_MAX = 10_000
"""In memory; beyond it tenants are counted as one."""

WRITTEN_MAX = 100
"""Cells in one write: the largest. What is left of each workflow is one more."""

EACH = 16
"""One of so many runs is drawn."""

DRAWN_MAX = 64
"""Of a queue, in one write."""

NAMED_TENANTS_MAX = 20
NAMED_EACH_MAX = 3
"""Tenants with a line of their own among the numbers: the largest few of a write, as long as there are lines."""

OTHERS = "(others)"

Key = tuple[int, int, str]
T = TypeVar("T")


class Tally:
    """What was counted since the last write. Pure: whoever counts says what time it is."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._cells: dict[Key, list[float]] = {}  # seconds and turns
        self._began: dict[int, list[Began]] = {}
        self._left: dict[int, list[Left]] = {}
        self._passed = 0  # since a run was drawn at its end

    def add(self, key: Key, seconds: float, turns: int) -> None:
        cell = self._cells.get(key)
        if cell is None:
            if len(self._cells) >= CELLS_MAX:
                key = (key[0], key[1], REST)
            cell = self._cells.setdefault(key, [0.0, 0])
        cell[0] += seconds
        cell[1] += turns

    def began(self, rows: Sequence[Ready]) -> None:
        """Runs of one shard that begin; some of those that do for the first time are drawn."""
        drawn = rows if len(rows) <= 1 else self._chance.sample(rows, -(-len(rows) // EACH))
        for row in drawn:
            if not row.attempt and not row.waits and row.shard >= 0:
                self._draw(self._began.setdefault(row.queue_id, []), Began(row.queue_id, row.id, row.now_us))

    def left(self, queue_id: int, run_id: int) -> None:
        """A run gave its slot back."""
        self._passed += 1
        if self._passed >= EACH or queue_id not in self._left:
            self._passed = 0
            self._draw(self._left.setdefault(queue_id, []), Left(queue_id, run_id))

    def _draw(self, drawn: list[T], one: T) -> None:
        if len(drawn) < DRAWN_MAX:
            drawn.append(one)
        else:
            drawn[self._chance.randrange(DRAWN_MAX)] = one

    def taken(self) -> tuple[list[Cell], list[Began], list[Left]]:
        """All of it, and begin anew."""
        largest = sorted(self._cells.items(), key=lambda one: one[1][0], reverse=True)
        kept: dict[Key, list[float]] = dict(largest[:WRITTEN_MAX])
        for (queue_id, workflow_id, _), (seconds, turns) in largest[WRITTEN_MAX:]:
            rest = kept.setdefault((queue_id, workflow_id, REST), [0.0, 0])
            rest[0] += seconds
            rest[1] += turns
        cells = [Cell(*key, round(seconds * 1e6), int(turns)) for key, (seconds, turns) in kept.items()]
        began = [one for drawn in self._began.values() for one in drawn]
        left = [one for drawn in self._left.values() for one in drawn]
        self._cells, self._began, self._left = {}, {}, {}
        return cells, began, left


class Usage:
    """One worker's count, and the loop that writes it.

    Args:
        held: The shards in hand now.
        named: Names of queues, and of workflows, by id.
    """

    def __init__(
        self, store: Store, metrics: Metrics, *, owner: UUID, clock: Clock, chance: random.Random,
        held: Callable[[], Iterable[Held]], queues: Callable[[], Mapping[int, str]],
        workflows: Callable[[], Mapping[int, str]],
    ) -> None:  # fmt: skip
        self._store = store
        self._metrics = metrics
        self._owner = owner
        self._monotonic = clock.monotonic
        self._held = held
        self._queues = queues
        self._workflows = workflows
        self.tally = Tally(chance)
        self._counted_at = clock.monotonic()  # of all that is in hand
        self._tenants: set[str] = set()
        self._unwritten: list[Cell] = []  # the store was away
        self._failed = metrics.counter("seawall_usage_writes_failed_total", "Writes of slot time that failed.")

    def left(self, execution: Execution) -> None:
        """A run gave its slot back."""
        since = max(self._counted_at, execution.refill.read_at)
        key = execution.accounted
        self.tally.add(key, self._monotonic() - since, 1)
        self.tally.left(key[0], execution.id)

    async def run(self, heart: Heart) -> None:
        """The supervised loop."""
        write_at = self._monotonic() + WRITE_S
        while True:
            if self._monotonic() >= write_at:
                write_at = self._monotonic() + WRITE_S
                await self._write(heart)
            else:
                await heart.beat()
            await asyncio.sleep(min(BEAT_S, max(0.01, write_at - self._monotonic())))

    async def _write(self, heart: Heart) -> None:
        heart.touch()
        try:
            await patiently(heart, self.write(), what=DEPENDENCY)
            await heart.beat()
        except (Unavailable, Uncertain) as error:
            heart.unready(str(error))

    async def write(self) -> None:
        """Count up to now, and write it all.

        Raises:
            Unavailable: Nothing was written; it goes with the next.
            Uncertain: It may have been; it counts once at most.
        """
        self._count()
        fresh, began, left = self.tally.taken()
        self._expose(fresh)
        cells, self._unwritten = merged([*self._unwritten, *fresh]), []
        if not cells:
            return
        try:
            await add(self._store, self._owner, cells, began, left)
        except Unavailable:
            self._failed.value += 1
            self._unwritten = cells[:CELLS_MAX]
            raise
        except Unstorable as error:  # a statistic is nothing to stop for
            self._failed.value += 1
            log.warning("slot time wasn't written", extra=fields(cause=error.detail))

    def _count(self) -> None:
        """What is in hand has held its slot until now."""
        now, since = self._monotonic(), self._counted_at
        for held in self._held():
            for execution in held.inflight.values():
                self.tally.add(execution.accounted, now - max(since, execution.refill.read_at), 0)
        self._counted_at = now

    def _expose(self, cells: Iterable[Cell]) -> None:
        by_tenant: Counter[str] = Counter()
        for cell in cells:
            seconds = cell.slot_us / 1e6
            self._metrics.counter(
                "seawall_slot_seconds_total", "Time in which runs held slots.",
                queue=self._queues().get(cell.queue_id, "?"), workflow=self._workflows().get(cell.workflow_id, "?"),
            ).value += seconds  # fmt: skip
            by_tenant[cell.tenant] += cell.slot_us
        for tenant, _ in by_tenant.most_common(NAMED_EACH_MAX):
            if len(self._tenants) < NAMED_TENANTS_MAX and tenant != REST:
                self._tenants.add(tenant)
        for tenant, slot_us in by_tenant.items():
            label = tenant if tenant in self._tenants else OTHERS
            self._metrics.counter(
                "seawall_tenant_slot_seconds_total", "Time in which runs of the largest tenants held slots.",
                tenant=label,
            ).value += slot_us / 1e6  # fmt: skip


def merged(cells: Iterable[Cell]) -> list[Cell]:
    """Each key once: one statement can't change a row twice."""
    found: dict[Key, tuple[int, int]] = {}
    for cell in cells:
        slot_us, turns = found.get(cell[:3], (0, 0))
        found[cell[:3]] = (slot_us + cell.slot_us, turns + cell.turns)
    return [Cell(*key, slot_us, turns) for key, (slot_us, turns) in found.items()]
