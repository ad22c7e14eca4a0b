"""Who waits for whom: victims beside a flood, a queue beside one that got slow, refills with little and much pending.

In each round windows take turns, so that a moment in which the machine is slow hits all of them:

- ``solo``: 100 events a second of 999 tenants, whose work takes 50 ms, and nothing else;
- ``flood``: the same, in one queue with the 1,000,000 pending runs of one more tenant. Each of those waits for 300 ms,
  as a call of somebody else's API does: a worker's 1,000 slots are always taken, and its core isn't;
- ``busy``: the same, where the flood's runs do nothing, so that worker and PostgreSQL take all the CPU that they get;
- ``even`` and ``slowed``: 50 events a second each into queues `quick`, which has 100 slots reserved, and `plain`, which
  has none, and 200 a second into `slow`, whose work takes 0.3 s, or 20 times as long at the same arrivals: then it
  takes all slots that it may;
- ``refill``: the worker's own statement for 250 runs, read forwards with 1,000 and with 1,000,000 pending.

Time to start is from the moment at which an event was due at the router's log to its run's first line.

    python bench/queues.py                                    # about eight minutes
    python bench/queues.py --rounds 1 --pending 50000 --seconds 3
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import statistics
import sys
import time
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.engine import Engine, Feeder, Flow, feeder
from bench.result import Row, fdatasync_p50_ms, publish, row

from seawall import App, Context, Event
from seawall.store import lease, pool
from seawall.store.pool import Session, Store
from seawall.store.run import BEGIN, Wish, prepare, refill
from seawall.testing.postgres import PostgresServer
from seawall.worker import fewer_collections

PENDING = 1_000_000
SHALLOW = 1_000
TENANTS = 999
FLOOD_S, SLOW_S, SLOWER = 0.3, 0.3, 20
SETTLE_S = 3.0
"""Until slots are as they will stay: the flood has all, or the slow queue's first runs have ended."""

REFILLS, REFILL_RUNS, SHARDS = 400, 250, 4
LOW_RATE = 20

crowd = App()
pair = App()
pair.queue("quick", reserved=100)
NEIGHBOURS = ("quick", "plain")


async def work(seconds: float) -> None:
    if seconds:
        await asyncio.sleep(seconds)


async def once(event: Event, ctx: Context) -> None:
    await ctx.step(work, event.json.get("s", 0))


for _name in ("flood", "busy", "victim"):
    crowd.workflow(on=_name, name=_name)(once)
for _name in ("quick", "plain", "slow"):
    pair.workflow(on=_name, name=_name, queue=_name)(once)


class Starts(NamedTuple):
    """Milliseconds to start in one window."""

    p50: float
    p99: float

    @classmethod
    def of(cls, took: Sequence[float]) -> Starts:
        return cls(statistics.median(took), took[min(len(took) - 1, int(len(took) * 0.99))])


class Cost(NamedTuple):
    """One refill of 250 runs."""

    worker_ms: float
    postgres_ms: float
    took_ms: float

    @property
    def cpu_ms(self) -> float:
        return self.worker_ms + self.postgres_ms


@dataclass
class Found:
    """What the windows of all rounds found, by name."""

    starts: dict[str, list[Starts]] = field(default_factory=dict)
    costs: dict[str, list[Cost]] = field(default_factory=dict)

    def started(self, name: str, took: Sequence[float], more: str = "") -> None:
        found = Starts.of(took)
        self.starts.setdefault(name, []).append(found)
        print(f"  {name:12} start p50 {found.p50:7.2f} ms  p99 {found.p99:7.2f} ms  {more}", flush=True)

    def cost(self, name: str, found: Cost) -> None:
        self.costs.setdefault(name, []).append(found)
        print(
            f"  {name:7} refill: worker {found.worker_ms:5.2f} + PostgreSQL {found.postgres_ms:5.2f} ms of CPU,"
            f" {found.took_ms:6.2f} ms",
            flush=True,
        )

    def ratio(self, over: str, under: str, what: str) -> float:
        """Median of each round's own ratio."""
        pairs = zip(self.starts[over], self.starts[under], strict=True)
        return statistics.median(getattr(a, what) / getattr(b, what) for a, b in pairs)

    def start(self, name: str, what: str) -> float:
        return statistics.median(getattr(s, what) for s in self.starts[name])

    def costly(self, what: str) -> tuple[float, float]:
        """With little pending, and the ratio of much to it."""
        pairs = list(zip(self.costs["shallow"], self.costs["deep"], strict=True))
        few = statistics.median(getattr(a, what) for a, _ in pairs)
        return few, statistics.median(getattr(b, what) / getattr(a, what) for a, b in pairs)


# ── Windows ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def victims(engine: Engine, feed: Feeder, found: Found, name: str, *, seconds: float) -> None:
    """Victims beside whatever is pending in this database."""
    async with engine.worker() as ended:
        await asyncio.sleep(SETTLE_S)
        count, cpu, begin = ended.value, engine.cpu(), time.perf_counter()
        since, sent = await feed.feed(Flow(type="victim", rate=100, tenants=TENANTS, body={"s": 0.05}), seconds=seconds)
        took, after = time.perf_counter() - begin, engine.cpu()
        rate = (ended.value - count) / took
        starts = await engine.starts_ms("victim", since, sent["victim"])
    cores = (after[0] - cpu[0] + after[1] - cpu[1]) / took
    found.started(name, starts, f"{rate:7,.0f} runs/s, {cores:.2f} cores of worker and PostgreSQL")


async def low(engine: Engine, feed: Feeder, found: Found, *, seconds: float) -> None:
    """Few events, and nothing else."""
    async with engine.worker():
        await feed.feed(Flow(type="victim", rate=LOW_RATE), seconds=1)
        since, sent = await feed.feed(Flow(type="victim", rate=LOW_RATE), seconds=seconds)
        found.started("low", await engine.starts_ms("victim", since, sent["victim"]))


async def beside(engine: Engine, feed: Feeder, found: Found, name: str, *, slow_s: float, seconds: float) -> None:
    """A quick queue beside one whose work takes ``slow_s``."""
    await engine.clear()
    await engine.rest()
    # Enough of it to take all slots at once, as it would by itself after some seconds: that is no part of this.
    await engine.preload("slow", 2000 if slow_s > 1 else 0, body={"s": slow_s})
    slow = Flow(type="slow", rate=200, tenants=10, body={"s": slow_s})
    async with engine.worker():
        await feed.feed(slow, seconds=SETTLE_S)
        flows = [Flow(type=queue, rate=50, tenants=10, body={"s": 0.05}) for queue in NEIGHBOURS]
        since, sent = await feed.feed(*flows, slow, seconds=seconds)
        for queue in NEIGHBOURS:
            found.started(f"{name} {queue}", await engine.starts_ms(queue, since, sent[queue]))


async def refills(engine: Engine, found: Found, name: str, *, pending: int) -> None:
    """The statement of a worker's refill, as it reads forwards."""
    owner, most = uuid.uuid4(), REFILL_RUNS // SHARDS
    known = await engine.db.fetch("select id, queue_id from workflow")
    async with Store(pool.Settings(dsn=engine.dsn), role="worker") as store:
        shards = [lease.Shard(known[0]["queue_id"], n) for n in range(SHARDS)]
        held = [(await lease.take(store, s, owner=owner, ttl_s=60, deaths_max=3)).lease for s in shards]
        try:
            async with store.own_connection() as session:
                await prepare(session)
                reader = Reader(
                    session,
                    held,
                    [r["id"] for r in known],
                    most=most,
                    turn=max(1, min(pending, 100_000) // REFILL_RUNS),
                )
                await reader.read(5)  # plans, caches
                before, begin = engine.cpu(), time.perf_counter()
                runs = await reader.read(REFILLS)
                took, after = time.perf_counter() - begin, engine.cpu()
        finally:
            await lease.release(store, held, owner=owner)
    each = runs / REFILL_RUNS
    found.cost(
        name,
        Cost((after[0] - before[0]) / each * 1e3, (after[1] - before[1]) / each * 1e3, took / each * 1e3),
    )


class Reader:
    """Refills one after another; after ``turn`` of them it begins again."""

    def __init__(
        self, session: Session, held: Sequence[lease.Lease], known: Sequence[int], *, most: int, turn: int
    ) -> None:
        self._session, self._held, self._known, self._most, self._turn = session, held, known, most, turn
        self._after: dict[int, tuple[int, int]] = {}
        self._number = 0

    async def read(self, count: int) -> int:
        """So many refills; returns how many runs they gave."""
        return sum([len(await self._once()) for _ in range(count)])

    async def _once(self) -> list[Any]:
        if self._number % self._turn == 0:
            self._after = {}
        self._number += 1
        wishes = [
            Wish(lease=held, number=self._number, after=self._after.get(held.shard, BEGIN), most=self._most, kept=0,
                 room=SHARDS * self._most)
            for held in self._held
        ]  # fmt: skip
        whole = SHARDS * self._most
        rows = await refill(
            self._session, wishes, known=self._known, keyed=[], without=[], shared=whole, bytes_max=64 << 20
        )
        assert len(rows) == whole, "nothing left to read"
        self._after.update((r.shard, (r.vt, r.id)) for r in rows)
        return rows


# ── The measurement ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """How much of it."""

    rounds: int
    pending: int
    seconds: float


async def measure(server: PostgresServer, asked: Asked) -> list[Row]:
    found = Found()
    async with AsyncExitStack() as stack:
        quiet, deep, busy, both = [
            await stack.enter_async_context(Engine(server, name, app))
            for name, app in (("quiet", crowd), ("deep", crowd), ("busy", crowd), ("pair", pair))
        ]
        feeds = {engine.name: stack.enter_context(feeder(engine)) for engine in (quiet, deep, busy, both)}
        for n in range(asked.rounds):
            print(f"round {n + 1} of {asked.rounds}", flush=True)
            await _round(found, quiet, deep, busy, feeds, asked, turned=bool(n % 2))
            for name, slow_s in (("even", SLOW_S), ("slowed", SLOW_S * SLOWER))[:: -1 if n % 2 else 1]:
                await beside(both, feeds["pair"], found, name, slow_s=slow_s, seconds=asked.seconds)
    return _rows(found)


async def _round(
    found: Found, quiet: Engine, deep: Engine, busy: Engine, feeds: dict[str, Feeder], asked: Asked, *, turned: bool
) -> None:  # fmt: skip
    await deep.preload("flood", asked.pending, body={"s": FLOOD_S})
    await busy.preload("busy", min(asked.pending, 200_000 + int(asked.seconds * 20_000)), body={})
    await quiet.preload("victim", SHALLOW, body={})
    for name, engine, pending in (("shallow", quiet, SHALLOW), ("deep", deep, asked.pending)):
        await refills(engine, found, name, pending=pending)
    await quiet.clear()
    await quiet.rest()
    windows = (("solo", quiet), ("flood", deep), ("busy", busy))
    for name, engine in reversed(windows) if turned else windows:
        await victims(engine, feeds[engine.name], found, name, seconds=asked.seconds)
    await low(quiet, feeds["quiet"], found, seconds=asked.seconds)


def _rows(found: Found) -> list[Row]:
    cpu, cpu_ratio = found.costly("cpu_ms")
    took, took_ratio = found.costly("took_ms")
    return [
        row("queues: fdatasync p50 (machine)", fdatasync_p50_ms(), "ms"),
        row("queues: due to start at 20/s, p50", found.start("low", "p50"), "ms", at_most=8),
        row("queues: victims alone, start p50", found.start("solo", "p50"), "ms"),
        row("queues: victims alone, start p99", found.start("solo", "p99"), "ms"),
        row("queues: beside the flood, start p50", found.start("flood", "p50"), "ms"),
        row("queues: … by the p50 alone", found.ratio("flood", "solo", "p50"), "ratio", at_most=1.3),
        row("queues: … p99 by the p99 alone", found.ratio("flood", "solo", "p99"), "ratio", at_most=3),
        row("queues: beside a flood that takes all CPU, start p50", found.start("busy", "p50"), "ms"),
        row("queues: … by the p50 alone (no bound)", found.ratio("busy", "solo", "p50"), "ratio"),
        *_beside(found),
        row("queues: CPU of a refill of 250, 1,000 pending", cpu, "ms"),
        row("queues: … with much pending, by that", cpu_ratio, "ratio", at_most=1.2),
        row("queues: time of a refill of 250, 1,000 pending", took, "ms"),
        row("queues: … with much pending, by that ", took_ratio, "ratio", at_most=1.2),
    ]


def _beside(found: Found) -> list[Row]:
    rows = []
    for queue in NEIGHBOURS:
        slowed, even = f"slowed {queue}", f"even {queue}"
        rows += [
            row(f"queues: {queue} beside a queue that got 20 times slower, p50", found.start(slowed, "p50"), "ms"),
            row(f"queues: … {queue} by its p50 before", found.ratio(slowed, even, "p50"), "ratio", at_most=1.05),
        ]
    return rows


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=4)
    arguments.add_argument("--pending", type=int, default=PENDING)
    arguments.add_argument("--seconds", type=float, default=6.0, help="of each window")
    asked = arguments.parse_args()
    fewer_collections()
    logging.getLogger("seawall").setLevel(logging.CRITICAL)  # that runs waited for the worker of the next window
    with PostgresServer(settings={"shared_buffers": "256MB", "max_wal_size": "4GB"}) as server:
        publish(uvloop.run(measure(server, Asked(rounds=asked.rounds, pending=asked.pending, seconds=asked.seconds))))


if __name__ == "__main__":
    main()
