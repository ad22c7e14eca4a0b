"""What the worker's tests share: events and runs as the router would make them, and a worker with its supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg

from seawall import App
from seawall.guard import Supervisor
from seawall.guard.budget import Budget
from seawall.kernel.clock import SystemClock
from seawall.kernel.event import EventIds, id_day
from seawall.kernel.metric import Metrics
from seawall.kernel.status import DAY_SHIFT
from seawall.store import pool
from seawall.testing.postgres import Database
from seawall.worker import Settings, Worker

TESTS = Path(__file__).parent.parent
CLOCK = SystemClock()
QUICK = Settings(
    poll_s=0.05,
    sweep_s=0.2,
    lease_ttl_s=1.5,
    renew_s=0.2,
    timer_s=0.05,
    drain_s=1.0,
    solo_idle_s=0.5,
    solo_memory_mb=512,
    cancel_grace_s=0.5,
)


def dies(status: int) -> None:
    raise AssertionError(f"the worker wanted to end the process with {status}")


class Rig:
    """One database, and its workers."""

    def __init__(self, database: Database, db: asyncpg.Connection) -> None:
        self.database = database
        self.db = db
        self.ids = EventIds(CLOCK)

    @contextlib.asynccontextmanager
    async def worker(self, app: App, settings: Settings = QUICK, **options: Any) -> AsyncIterator[Worker]:
        """A running worker, stopped cleanly at the end."""
        metrics = options.pop("metrics", Metrics())
        pace = options.pop("pace", None)
        options.setdefault("die", dies)
        made = Worker(
            pool.Settings(dsn=options.pop("dsn", self.database.worker_dsn)),
            app,
            settings,
            clock=CLOCK,
            metrics=metrics,
            owner=options.pop("owner", None) or uuid.uuid4(),
            **options,
        )
        async with made:
            supervisor = Supervisor(metrics, pace=pace)
            made.register(supervisor)
            made.supervisor = supervisor  # type: ignore[attr-defined]
            async with supervisor:
                yield made
                await made.stop(Budget(60.0, CLOCK))

    @contextlib.asynccontextmanager
    async def running(self, app: App, settings: Settings = QUICK, **options: Any) -> AsyncIterator[Worker]:
        """A worker that has registered its workflows and holds its shards."""
        async with self.worker(app, settings, **options) as made:
            await self.until(lambda: len(made._leases.held()) == 4)
            yield made

    async def registered(self, app: App) -> None:
        """Make an app's workflows known without running them."""
        from seawall.store.workflow import register
        from seawall.worker.lease import declared_of

        async with pool.Store(pool.Settings(dsn=self.database.worker_dsn), role="test") as store:
            declared = [declared_of(w) for w in app.workflows]
            await register(store, declared, owner=uuid.uuid4(), live_s=60.0)

    async def add(
        self,
        workflow: str,
        bodies: Sequence[object],
        *,
        version: str = "1",
        ticket: bool = False,
        shard: int | None = None,
        with_event: bool = True,
        vt: int | None = None,
        step: int = 0,
        hint: bool = True,
    ) -> list[int]:
        """One event and run for each body (JSON unless bytes), each ``step`` behind the former, hinted as by a router;
        returns the run ids."""
        row = await self.db.fetchrow(
            "select id, queue_id from workflow where name = $1 and version = $2", workflow, version
        )
        made = []
        async with self.db.transaction():
            for n, body in enumerate(bodies):
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                event = self.ids.next()
                if with_event:
                    await self.db.execute(
                        "insert into event (id, source_id, source, tenant, type, status, received_at, headers, body,"
                        ' target, peer, key_id, config_version, log_id, segment, "offset")'
                        " values ($1, $1, 'test', 'default', 'test.thing', 1, now(), $2, $3, '', '', 0, 0, $1, 0, 0)",
                        uuid.UUID(bytes=event),
                        b"X-Test\0yes\0Content-Type\0application/json",
                        data,
                    )
                number = await self.db.fetchval("select nextval('run_number')")
                run = (id_day(event) << DAY_SHIFT) | number
                await self.db.execute(
                    "insert into run (id, event_id, workflow_id, tenant, queue_id, shard, ticket, vt)"
                    " values ($1, $2, $3, 'default', $4, $5, $6, $7)",
                    run, uuid.UUID(bytes=event), row["id"], row["queue_id"],
                    n % 4 if shard is None else shard, ticket, (CLOCK.wall_us() if vt is None else vt) + n * step,
                )  # fmt: skip
                made.append(run)
        if hint:
            await self.db.execute("select pg_notify('seawall_run', $1)", f"{row['queue_id']}:{vt or 0}")
        return made

    async def until(self, holds: Callable[[], Any], timeout_s: float = 15.0) -> Any:
        """Wait until ``holds()`` (a coroutine function, or a plain one) gives something true."""
        async with asyncio.timeout(timeout_s):
            while True:
                value = holds()
                if asyncio.iscoroutine(value):
                    value = await value
                if value:
                    return value
                await asyncio.sleep(0.01)

    async def ended(self, runs: Sequence[int], timeout_s: float = 15.0) -> dict[int, asyncpg.Record]:
        """Wait for the end of all these runs; their rows."""

        async def rows() -> list[asyncpg.Record] | None:
            found = await self.db.fetch("select * from run_done where id = any($1::bigint[])", runs)
            return found if len(found) == len(runs) else None

        return {row["id"]: row for row in await self.until(rows, timeout_s)}


@contextlib.asynccontextmanager
async def opened(database: Database) -> AsyncIterator[Rig]:
    made = Rig(database, await asyncpg.connect(database.dsn))
    try:
        yield made
    finally:
        made.db.terminate()  # a test may have connected anew, after its server was killed


@contextlib.contextmanager
def process(rig: Rig, app: str, *, owner: uuid.UUID | None = None, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker in a process of its own (``worker/child.py``), killed at the end. ``app`` names a module of tests."""
    child = subprocess.Popen(
        [sys.executable, "-m", "worker.child", rig.database.worker_dsn, app, "--owner", (owner or uuid.uuid4()).hex],
        env={**os.environ, "PYTHONPATH": str(TESTS), **env}, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGCONT)
        child.kill()
        child.wait()
