"""Where a run waits: its shard, and its virtual time, by which workers take runs in fair order.

Start-time fair queueing. Each queue has a clock ``now``: the virtual time of the run that is served next. A stream (one
tenant in one queue) that has runs waiting gets ``last + COST`` for its next one, a stream that has none gets ``now +
COST``: so a tenant with a million runs waiting stands far ahead on its own line, and a newcomer's first run goes before
all but the first of them. Workers just read in order of virtual time; nothing is counted when they do.

A backlog is a stream of its own: after an outage a tenant's fresh events don't queue behind its old ones. So are runs
that wait in a line for others of their key, and so are those that leave one: a million of them take no turns from their
tenant's other runs. Who wakes, and who is begun by another run or a schedule, is placed by the store, by the same clock
(``queue_now``, a function of the schema).

A tenant of weight 4 is charged a quarter for each run, so it has four turns for each of another's. A priority puts a
run up to so many turns before or behind its place, and charges nothing: it can't starve anybody.

``now`` is never more than ``AHEAD`` before what was begun last: a run that takes hours holds no clock. Else who comes
steadily, and is served at once, would be charged for each of those hours, and a newcomer's flood would go before all
that he sends from then on.

Streams live in memory and ``now`` is read from the store each second, so after a restart each stream begins at
``now`` again. That costs no fairness between tenants: a tenant's new runs then share its turns with its old ones. A
``now`` that is a second old only delays a newcomer by what the queue did in that second.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from zlib import crc32

COST = 1000
"""Virtual time of one run of a tenant of weight 1."""

WEIGHT_MAX, WEIGHTS_MAX = COST, 1000
PRIORITY_MAX = 10
STEP = 100 * COST
"""What one of priority is: a hundred turns."""

AHEAD = STEP
"""So much may newcomers go before what was begun last, and by that before some in hand, where a flood has all slots."""

STREAMS_MAX = 100_000

TURNS_MAX = 200
"""Tenants, by queue, of which it is known how far those are that woke; others begin at the queue's clock."""

Weights = Mapping[int, Mapping[str, int]]
"""By queue id and tenant; who isn't there has weight 1."""


class Placement:
    """Virtual times of the queues, as one process hands them out."""

    def __init__(self) -> None:
        self._now: dict[int, int] = {}
        self._last: dict[tuple[int, str, bool, str], int] = {}
        self._top: dict[int, int] = {}
        self._weights: Weights = {}

    def observe(
        self, ready: Mapping[int, int | None], weights: Weights | None = None, begun: Mapping[int, int] | None = None
    ) -> None:
        """Take over what the store says: by queue, the virtual time of the run that is served next, None when none is
        ready. Its place without its priority, that is.

        Args:
            weights: In force from now on. What was handed out before stays where it is.
            begun: By queue, the furthest virtual time of what was begun.
        """
        self._weights = weights or {}
        for queue_id, vt in ready.items():
            # An empty queue has served all that was handed out, by us and by routers before us. Time never goes back:
            # runs of failed attempts, which wake with their old virtual time, would else hand newcomers a place before
            # everybody.
            served = max(self._top.get(queue_id, 0), (begun or {}).get(queue_id, 0)) if vt is None else vt
            self._now[queue_id] = max(self._now.get(queue_id, 0), served)

    def next(self, queue_id: int, tenant: str, *, backlog: bool, apart: str = "", priority: int = 0) -> int:
        """The virtual time of a stream's next run.

        Args:
            apart: What else makes it a stream of its own; "": nothing.
            priority: -10 to 10; higher goes first.
        """
        stream = (queue_id, tenant, backlog, apart)
        weights = self._weights.get(queue_id)
        cost = COST if weights is None else COST // weights.get(tenant, 1)
        vt = max(self._now.get(queue_id, 0), self._last.get(stream, 0)) + cost
        if len(self._last) >= STREAMS_MAX and stream not in self._last:
            self._forget()
        self._last[stream] = vt
        self._top[queue_id] = max(self._top.get(queue_id, 0), vt)
        return max(0, vt - priority * STEP) if priority else vt

    def _forget(self) -> None:
        """Drop streams that ``now`` has passed, for they would begin there anyhow; and if that is not half of them,
        those that were first seen longest ago."""
        self._last = {s: vt for s, vt in self._last.items() if vt > self._now.get(s[0], 0)}
        for stream in list(self._last)[: max(0, len(self._last) - STREAMS_MAX // 2)]:
            del self._last[stream]


class Turns:
    """How far those runs are that woke, by queue and tenant, as far as one process has woken them: the next ones go
    behind them. Else each statement that wakes some of many would put its first beside the first of all others."""

    def __init__(self) -> None:
        self._last: dict[tuple[int, str], int] = {}

    def columns(self) -> tuple[list[int], list[str], list[int]]:
        """For a statement that wakes runs: queues, tenants, and where the last one of each is."""
        return [queue_id for queue_id, _ in self._last], [tenant for _, tenant in self._last], [*self._last.values()]

    def saw(self, woken: Iterable[tuple[int, str, int, int]]) -> None:
        """Note where runs are now, once that is committed: else it leaves a gap behind which their tenant would wait.

        Args:
            woken: Queue, tenant, virtual time without its priority, and the queue's clock.
        """
        now: dict[int, int] = {}
        for queue_id, tenant, vt, clock in woken:
            self._last[queue_id, tenant] = max(vt, self._last.pop((queue_id, tenant), 0))
            now[queue_id] = clock
        ahead = [(stream, vt) for stream, vt in self._last.items() if vt > now.get(stream[0], 0)]
        self._last = dict(ahead[-TURNS_MAX:])


def without_delay(vt: int, priority: int) -> int:
    """A place without what a low priority puts it back; a high one's isn't known to be reached before it is."""
    return vt + min(0, priority) * STEP


def shard_of(event_id: bytes, tenant: bytes, shards: int) -> int:
    """A shard from 0, evenly spread whatever the number of tenants, and the same whenever it is asked."""
    return crc32(event_id, crc32(tenant)) % max(1, shards)
