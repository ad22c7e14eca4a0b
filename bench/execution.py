"""What a two-step run costs: CPU of worker and PostgreSQL, WAL, and what committing many outcomes at once brings.

    python bench/execution.py            # 5 rounds, about two minutes
    python bench/execution.py --profile  # one window of the worker under cProfile

Three variants take turns: ``group`` is the product; ``single`` is the same binary with one transaction for each step
and each end, on 16 connections; ``deep`` is the product with 1,000,000 runs pending instead of 20,000. Each window runs
until a fixed number of runs has ended and reports CPU from /proc, WAL from the server and the wall clock. Runs are
enqueued before their round: enqueueing isn't in the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import cProfile
import pstats
import statistics
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.engine import HEADERS, PRELOAD
from bench.result import Row, cpu_s, fdatasync_p50_ms, publish, row, tree

from seawall import App, Context, Event, migrate
from seawall.guard import Heart, Supervisor
from seawall.kernel.clock import SystemClock
from seawall.kernel.metric import Metrics
from seawall.store import pool
from seawall.testing.postgres import PostgresServer
from seawall.worker import Settings, Worker, fewer_collections
from seawall.worker.batch import Batch
from seawall.worker.flush import Flusher

SHALLOW = 20_000
DEEP = 1_000_000
WINDOW = 12_000
WINDOW_SINGLE = 2_000
WARM = 2_000
LANES = 16
BODY_BYTES = 1024

app = App()


async def look_up(event: dict[str, Any]) -> dict[str, Any]:
    return {"country": "FR", "amount": event["amount"]}


async def charge(found: dict[str, Any]) -> dict[str, Any]:
    return {"ok": True, "amount": found["amount"] + 1}


@app.workflow(on="bench.*", timeout_s=600)
async def two_steps(event: Event, ctx: Context) -> dict[str, Any]:
    found = await ctx.step(look_up, event.json)
    charged = await ctx.step(charge, found)
    return {"done": charged["amount"]}


# The leanest statements that one transaction per outcome allows, with the same fence.
ONE_STEP = """
with held as materialized (
  select 1 from shard_lease where queue_id = $1 and shard = $2 and epoch = $3 for key share
)
insert into step (run_id, name, nth, result, failed, epoch, attempt, started_at)
select $4, $5, $6, $7, $8, $9, $10, to_timestamp($11::bigint / 1e6) from held on conflict do nothing
"""
ONE_END = """
with held as materialized (
  select 1 from shard_lease where queue_id = $1 and shard = $2 and epoch = $3 for key share
), ended as (
  delete from run using held where id = $4 returning id, event_id, workflow_id, tenant, created_at
)
insert into run_done (id, event_id, workflow_id, tenant, status, attempt, result, error, created_at, started_at)
select id, event_id, workflow_id, tenant, $5, $6, $7, $8, created_at, to_timestamp($9::bigint / 1e6) from ended
"""


class OneByOne(Flusher):
    """Commits each outcome in a transaction of its own, on `LANES` connections at once: what group commit replaces."""

    dsn = ""

    async def run(self, heart: Heart) -> None:
        lanes = [asyncio.create_task(self._lane()) for _ in range(LANES)]
        try:
            while True:
                await heart.beat()
                for lane in lanes:
                    if lane.done():
                        lane.result()
                await asyncio.sleep(0.5)
        finally:
            for lane in lanes:
                lane.cancel()

    def _wake(self) -> None:
        super()._wake()
        self._sending.extend(self._pending.singles())
        self._pending = Batch()

    async def _lane(self) -> None:
        connection = await asyncpg.connect(self.dsn)
        try:
            while True:
                if not self._sending:
                    self._kick.clear()
                    await self._kick.wait()
                    continue
                batch = self._sending.popleft()
                await self._commit(connection, batch)
                self._confirm(batch)
        finally:
            connection.terminate()

    @staticmethod
    async def _commit(connection: asyncpg.Connection, batch: Batch) -> None:
        for step, run, _ in batch.steps:
            await connection.execute(ONE_STEP, *run.held.lease, *step)
        for end, run in batch.ends:
            await connection.execute(ONE_END, *run.held.lease, *end)
        for spent, _ in batch.spent:
            await connection.execute(
                "delete from refill where queue_id = $1 and shard = $2 and epoch = $3 and number = $4", *spent
            )


@dataclass(frozen=True, slots=True)
class Window:
    """What one window found, for each run."""

    runs_per_s: float
    worker_us: float
    postgres_us: float
    wal_bytes: float


def _body() -> bytes:
    return b'{"type":"order","amount":1234,"note":"' + b"x" * (BODY_BYTES - 40) + b'"}'


class Bench:
    """One server with a shallow and a deep database."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server

    async def prepare(self, name: str, runs: int) -> None:
        admin = await asyncpg.connect(self.server.dsn())
        await admin.execute(f"create database {name}")
        await admin.close()
        await migrate.apply(pool.Settings(dsn=self.server.dsn(database=name)))
        async with self.worker(name):
            pass  # registers the workflow
        await self.fill(name, runs)

    async def fill(self, name: str, runs: int) -> None:
        """Bring the number of pending runs up to ``runs``, and the server to rest."""
        db = await asyncpg.connect(self.server.dsn(database=name))
        have = await db.fetchval("select count(*) from run")
        for _ in range(have, runs, 100_000):
            count = min(100_000, runs - have)
            await db.execute(
                PRELOAD, count, _body().decode(), HEADERS, "default", two_steps.__name__, 1, have, timeout=600
            )  # fmt: skip
            have += 100_000
        # What the preload left to autovacuum and the checkpointer is done now, not within somebody's window.
        await db.execute("vacuum (analyze)", timeout=600)
        await db.execute("checkpoint", timeout=600)
        await db.close()

    @contextlib.asynccontextmanager
    async def worker(self, name: str, flusher: type[Flusher] = Flusher) -> Any:
        dsn = self.server.dsn(database=name)
        OneByOne.dsn = dsn
        metrics = Metrics()
        worker = Worker(
            pool.Settings(dsn=dsn), app, Settings(), clock=SystemClock(), metrics=metrics, owner=uuid.uuid4(),
            flusher=flusher,
        )  # fmt: skip
        ended = metrics.counter("seawall_runs_ended_total", "", status="succeeded")
        async with worker:
            supervisor = Supervisor(metrics)
            worker.register(supervisor)
            async with supervisor:
                while not worker._leases.held():
                    await asyncio.sleep(0.005)
                yield ended

    async def window(self, name: str, runs: int, flusher: type[Flusher] = Flusher) -> Window:
        """Run ``runs`` runs after a warm-up, and account for them."""
        db = await asyncpg.connect(self.server.dsn(database=name))
        warm = min(WARM, runs // 4)
        async with self.worker(name, flusher) as ended:
            while ended.value < warm:
                await asyncio.sleep(0.002)
            before, wal, begin = self._cpu(), await _wal(db), time.perf_counter()
            done = ended.value
            while ended.value < done + runs:
                await asyncio.sleep(0.005)
            took, after = time.perf_counter() - begin, self._cpu()
            count, wal = ended.value - done, await _wal(db) - wal
        await db.close()
        return Window(
            count / took, (after[0] - before[0]) / count * 1e6, (after[1] - before[1]) / count * 1e6, wal / count
        )

    def _cpu(self) -> tuple[float, float]:
        return time.process_time(), sum(cpu_s(pid) for pid in tree(self.server.pid))


async def _wal(db: asyncpg.Connection) -> int:
    value: int = await db.fetchval("select (pg_current_wal_lsn() - '0/0'::pg_lsn)::bigint")
    return value


def _show(name: str, found: Window) -> None:
    print(
        f"  {name:7} {found.runs_per_s:8,.0f} runs/s  worker {found.worker_us:6.1f} + PostgreSQL"
        f" {found.postgres_us:6.1f} = {found.worker_us + found.postgres_us:6.1f} us   WAL {found.wal_bytes:6,.0f} B",
        flush=True,
    )


async def measure(server: PostgresServer, *, rounds: int, deep: int) -> list[Row]:
    bench = Bench(server)
    await bench.prepare("shallow", SHALLOW)
    await bench.prepare("deep", deep)
    found: dict[str, list[Window]] = {"group": [], "single": [], "deep": []}
    for n in range(rounds):
        print(f"round {n + 1} of {rounds}", flush=True)
        await bench.fill("shallow", SHALLOW)
        await bench.fill("deep", deep)
        # One right after the other, in turns first: a machine that is slow for a while is slow for all three.
        variants = (
            ("deep", "deep", WINDOW, Flusher),
            ("group", "shallow", WINDOW, Flusher),
            ("single", "shallow", WINDOW_SINGLE, OneByOne),
        )
        for name, database, runs, flusher in variants if n % 2 else reversed(variants):
            found[name].append(await bench.window(database, runs, flusher))
            _show(name, found[name][-1])
    return _rows(found)


def _rows(found: dict[str, list[Window]]) -> list[Row]:
    group = found["group"]
    cpu = statistics.median(w.worker_us + w.postgres_us for w in group)
    faster = statistics.median(g.runs_per_s / s.runs_per_s for g, s in zip(group, found["single"], strict=True))
    depth = statistics.median(d.runs_per_s / g.runs_per_s for g, d in zip(group, found["deep"], strict=True))
    return [
        row("execution: fdatasync p50", fdatasync_p50_ms(), "ms"),
        row("execution: two-step runs", statistics.median(w.runs_per_s for w in group), "runs/s"),
        row("execution: worker CPU of a two-step run", statistics.median(w.worker_us for w in group), "us"),
        row("execution: PostgreSQL CPU of a two-step run", statistics.median(w.postgres_us for w in group), "us"),
        row("execution: CPU of a two-step run", cpu, "us", at_most=100),
        row("execution: WAL of a two-step run", statistics.median(w.wal_bytes for w in group), "B", at_most=1600),
        row("execution: group commit over one transaction per step", faster, "x", at_least=6),
        row("execution: rate with 1,000,000 pending over 20,000", depth, "x", at_least=0.8),
    ]


async def profile(server: PostgresServer) -> None:
    bench = Bench(server)
    await bench.prepare("shallow", SHALLOW)
    profiler = cProfile.Profile(time.process_time)
    profiler.enable()
    _show("profile", await bench.window("shallow", WINDOW))
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(45)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--deep", type=int, default=DEEP)
    arguments.add_argument("--profile", action="store_true")
    asked = arguments.parse_args()
    fewer_collections()
    with PostgresServer(settings={"shared_buffers": "256MB", "max_wal_size": "4GB"}) as server:
        if asked.profile:
            uvloop.run(profile(server))
        else:
            publish(uvloop.run(measure(server, rounds=asked.rounds, deep=asked.deep)))


if __name__ == "__main__":
    main()
