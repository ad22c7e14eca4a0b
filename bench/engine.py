"""What bench/queues.py and bench/wait.py run on: a database, a worker in this process, and a router in another one.

Runs come in two ways. ``preload`` writes them as a router would have, in one statement, since a million through the
router would take minutes that nobody measures. ``Feeder`` sends events through a real router, at a fixed rate and open
loop: each counts from the moment at which it was due, so that a stall isn't hidden by waiting for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import multiprocessing
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as Pipe
from typing import Any

import asyncpg
import uvloop
from bench.result import tree_cpu_s

from seawall import App, migrate
from seawall.guard import Supervisor
from seawall.kernel.clock import SystemClock
from seawall.kernel.event import EventIds, Record, encode
from seawall.kernel.metric import Counter, Metrics
from seawall.router import Router
from seawall.router import Settings as RouterSettings
from seawall.store import pool
from seawall.store.pool import Store
from seawall.testing import MemoryJournal
from seawall.testing.postgres import PostgresServer
from seawall.worker import Settings, Worker

CHUNK = 100_000
SPACING = 1000
"""Virtual time between two runs of one tenant, as a router would place them."""

HEADERS = b"\0".join(b"X-Header-%d\0value-%d" % (n, n) for n in range(12))
PATIENCE_S = 120

PRELOAD = """
with made as (
  select ((floor(extract(epoch from now()) / 86400)::bigint) << 44) | nextval('run_number') as id,
         -- Version 7 ids, a millisecond apart; made here, since a million rows would take Python a minute.
         (lpad(to_hex(floor(extract(epoch from now()) * 1000)::bigint - $1 + n), 12, '0') || '7' ||
          substr(md5(n::text), 1, 3) || '8' || substr(md5(random()::text), 1, 15))::uuid as event_id, n
  from generate_series(1, $1::int) n
), events as (
  insert into event (id, source_id, source, tenant, type, status, received_at, headers, body, target, peer, key_id,
                     config_version, log_id, segment, "offset")
  select event_id, event_id, 'bench', $4, $5, 1, now(), $3,
         convert_to(replace($2, '"#"', ($7::bigint + n)::text), 'utf8'), '', '', 0, 0, event_id, 0, 0
  from made
)
insert into run (id, event_id, workflow_id, tenant, queue_id, shard, vt)
select m.id, m.event_id, w.id, $4, w.queue_id, m.n % 4, (extract(epoch from now()) * 1e6)::bigint + ($7 + m.n) * $6
from made m cross join workflow w where w.name = $5 and w.active
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """Events of one type at a fixed rate."""

    type: str
    rate: int  # a second
    tenants: int = 1  # taken in turns
    body: dict[str, Any] = field(default_factory=dict)


class Engine:
    """One database, and workers of one app in this process.

    Args:
        name: Of the database.
        app: Its workflows' names are the event types that start them.
    """

    def __init__(self, server: PostgresServer, name: str, app: App) -> None:
        self.server = server
        self.app = app
        self.name = name
        self.dsn = server.dsn(database=name)
        self.db: asyncpg.Connection

    async def __aenter__(self) -> Engine:
        admin = await asyncpg.connect(self.server.dsn())
        await admin.execute(f"create database {self.name}")
        await admin.close()
        await migrate.apply(pool.Settings(dsn=self.dsn))
        async with self.worker():
            pass  # registers the workflows
        self.db = await asyncpg.connect(self.dsn, command_timeout=600)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.db.close()

    async def preload(self, type: str, runs: int, *, body: dict[str, Any], tenant: str = "flood") -> None:
        """Bring the number of pending runs up to ``runs``, and the server to rest. ``"#"`` in the body becomes the
        run's number, from 1."""
        have = await self.db.fetchval("select count(*) from run")
        for done in range(have, runs, CHUNK):
            count = min(CHUNK, runs - done)
            await self.db.execute(PRELOAD, count, json.dumps(body), HEADERS, tenant, type, SPACING, done)
        await self.rest()

    async def rest(self) -> None:
        """What is left to autovacuum and the checkpointer is done now, not within somebody's window."""
        await self.db.execute("vacuum (analyze)")
        await self.db.execute("checkpoint")

    async def clear(self) -> None:
        """No runs, no events."""
        await self.db.execute("truncate run, run_done, event, step, wait, refill")

    @contextlib.asynccontextmanager
    async def worker(self, settings: Settings | None = None) -> AsyncIterator[Counter]:
        """A worker that has all shards; yields its counter of runs that succeeded."""
        metrics = Metrics()
        worker = Worker(
            pool.Settings(dsn=self.dsn), self.app, settings or Settings(), clock=SystemClock(), metrics=metrics,
            owner=uuid.uuid4(),
        )  # fmt: skip
        ended = metrics.counter("seawall_runs_ended_total", "", status="succeeded")
        async with worker:
            supervisor = Supervisor(metrics)
            worker.register(supervisor)
            async with supervisor:
                queues = {workflow.queue for workflow in self.app.workflows}
                while len(worker._leases.held()) < 4 * len(queues):
                    await asyncio.sleep(0.005)
                yield ended

    def cpu(self) -> tuple[float, float]:
        """CPU seconds of this process and of PostgreSQL so far."""
        return time.process_time(), tree_cpu_s(self.server.pid)

    async def starts_ms(self, type: str, since: float, count: int) -> list[float]:
        """Milliseconds from due to started of the events of a type that were due since then, when all have ended.

        Raises:
            TimeoutError: They haven't.
        """
        async with asyncio.timeout(PATIENCE_S):
            while True:
                rows = await self.db.fetch(
                    "select extract(epoch from d.started_at - e.received_at) * 1000 from event e"
                    " join run_done d on d.event_id = e.id where e.type = $1 and e.received_at >= to_timestamp($2)",
                    type, since,
                )  # fmt: skip
                if len(rows) >= count:
                    return sorted(float(r[0]) for r in rows)
                await asyncio.sleep(0.2)


# ── The router and who feeds it, in a process of their own ───────────────────────────────────────────────────────────


class Feeder:
    """A router over a log in memory, in a process of its own, as this one sees it."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    async def feed(self, *flows: Flow, seconds: float) -> tuple[float, dict[str, int]]:
        """Send flows side by side; returns when all are sent: since when (wall clock), and how many of each type."""
        self._pipe.send((flows, seconds))
        found: tuple[float, dict[str, int]] = await asyncio.to_thread(self._pipe.recv)
        return found


@contextlib.contextmanager
def feeder(engine: Engine) -> Iterator[Feeder]:
    """A feeder of this engine's database."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, engine.dsn), daemon=True)
    process.start()
    try:
        yield Feeder(here)
    finally:
        here.send(None)
        process.join(10)
        process.terminate()


def _serve(pipe: Pipe, dsn: str) -> None:
    # Between windows nobody works here, and the router's alerts say so.
    logging.getLogger("seawall").setLevel(logging.CRITICAL)
    uvloop.run(_route(pipe, dsn))


async def _route(pipe: Pipe, dsn: str) -> None:
    clock, metrics = SystemClock(), Metrics()
    journal = MemoryJournal(records_max=1_000_000)
    reader = journal.reader()

    async def logs() -> dict[str, Any]:
        return {"bench": reader}

    async with (
        Store(pool.Settings(dsn=dsn), role="router") as store,
        Router(store, logs, RouterSettings(), clock=clock, metrics=metrics) as router,
    ):
        supervisor = Supervisor(metrics)
        router.register(supervisor)
        async with supervisor:
            while (order := await asyncio.to_thread(pipe.recv)) is not None:
                flows, seconds = order
                pipe.send(await _feed(journal, EventIds(clock), flows, seconds))


async def _feed(
    journal: MemoryJournal, ids: EventIds, flows: tuple[Flow, ...], seconds: float
) -> tuple[float, dict[str, int]]:
    """Events in order of the moments at which they are due; those are what they count from."""
    due = sorted((n / flow.rate, n, i) for i, flow in enumerate(flows) for n in range(int(flow.rate * seconds)))
    bodies = [json.dumps({"type": flow.type, **flow.body}).encode() for flow in flows]
    begin, wall = time.perf_counter() + 0.05, time.time() + 0.05
    for after_s, n, i in due:
        while (left := begin + after_s - time.perf_counter()) > 0:
            await asyncio.sleep(left)
        flow = flows[i]
        record = Record(
            id=ids.next(), source_id=bytes(16), kind="none", tenant=f"t{n % flow.tenants}", source="bench",
            received_us=int((wall + after_s) * 1e6), headers=HEADERS, body=bodies[i], peer="127.0.0.1",
        )  # fmt: skip
        journal.submit(encode(record), lambda _: None)
    return wall - 0.001, {flow.type: int(flow.rate * seconds) for flow in flows}
