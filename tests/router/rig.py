"""A router over a memory journal and a real PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from seawall.guard import Supervisor
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import SystemClock
from seawall.kernel.event import EventIds, Record, encode
from seawall.kernel.metric import Metrics
from seawall.kernel.placement import Placement
from seawall.kernel.seam.flag import Switch, always
from seawall.kernel.seam.journal import JournalReader, Position
from seawall.router import Router, Settings
from seawall.store import pool
from seawall.store.pool import Store
from seawall.testing import MemoryJournal
from seawall.testing.postgres import Database

SOURCE = b"\x01" * 16
CLOCK = SystemClock()
IDS = EventIds(CLOCK)


def record(**values: Any) -> Record:
    """A record of a plain source, received now."""
    given: dict[str, Any] = {
        "id": IDS.next(), "source_id": SOURCE, "kind": "none", "tenant": "acme", "source": "shop",
        "received_us": CLOCK.wall_us(), "body": b'{"type":"order.paid"}', "peer": "127.0.0.1",
    }  # fmt: skip
    return Record(**{**given, **values})


async def append(journal: MemoryJournal, *payloads: Record | bytes) -> list[Position]:
    """Put records, or raw payloads, into the log."""
    done: list[Any] = []
    for payload in payloads:
        journal.submit(payload if isinstance(payload, bytes) else encode(payload), done.append)
    while len(done) < len(payloads):
        await asyncio.sleep(0)
    return done


async def until(check: Callable[[], Any], *, timeout_s: float = 20.0) -> None:
    """Await a condition, sync or async, that another process or task brings about."""
    async with asyncio.timeout(timeout_s):
        while True:
            found = check()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return
            await asyncio.sleep(0.01)


@dataclass
class Rig:
    """A database, logs and as many routers over them as a test starts."""

    dsn: str
    database: asyncpg.Connection
    logs: dict[str, JournalReader] = field(default_factory=dict)
    metrics: Metrics = field(default_factory=Metrics)

    def log(self, name: str = "c1", **limits: int) -> MemoryJournal:
        journal = MemoryJournal(**limits)
        self.logs[name] = journal.reader()
        return journal

    async def find(self) -> Mapping[str, JournalReader]:
        return self.logs

    @contextlib.asynccontextmanager
    async def router(
        self, *, clock: Any = CLOCK, metrics: Metrics | None = None, runs_expected: bool = False,
        alerts: Alerts | None = None, draining: Switch = always, placement: type[Placement] = Placement,
        **settings: Any,
    ) -> AsyncIterator[Supervisor]:  # fmt: skip
        metrics = metrics or self.metrics
        async with (
            Store(pool.Settings(dsn=self.dsn, statement_timeout_s=2.0), role="router") as store,
            Router(
                store,
                self.find,
                Settings(**settings),
                clock=clock,
                metrics=metrics,
                runs_expected=runs_expected,
                alerts=alerts,
                draining=draining,
                placement=placement,
            ) as router,
        ):
            supervisor = Supervisor(metrics)
            router.register(supervisor)
            async with supervisor:
                yield supervisor

    async def workflow(self, pattern: str, *, name: str = "flow", queue: str = "default", version: str = "1") -> int:
        queue_id = await self.database.fetchval(
            "insert into queue (name) values ($1) on conflict (name) do update set name = excluded.name returning id",
            queue,
        )
        await self.database.execute("update workflow set active = false where name = $1", name)
        id: int = await self.database.fetchval(
            "insert into workflow (name, version, pattern, queue_id, active) values ($1, $2, $3, $4, true)"
            " returning id",
            name, version, pattern, queue_id,
        )  # fmt: skip
        return id

    async def count(self, table: str, where: str = "true") -> int:
        number: int = await self.database.fetchval(f"select count(*) from {table} where {where}")
        return number

    async def arrived(self, count: int, *, table: str = "event", timeout_s: float = 20.0) -> None:
        """Wait until so many rows are there."""

        async def there() -> bool:
            return await self.count(table) >= count

        await until(there, timeout_s=timeout_s)

    async def event(self, id: bytes) -> asyncpg.Record:
        row = await self.database.fetchrow("select * from event where id = $1", id_uuid(id))
        assert row is not None, "no such event"
        return row

    def number(self, name: str, **labels: str) -> float:
        """A metric's value."""
        wanted = tuple(sorted(labels.items()))
        return sum(s.value for s in self.metrics.samples() if s.name == name and (not wanted or s.labels == wanted))


def id_uuid(id: bytes) -> Any:
    from uuid import UUID

    return UUID(bytes=id)


@contextlib.asynccontextmanager
async def opened(database: Database) -> AsyncIterator[Rig]:
    connection = await asyncpg.connect(database.dsn)
    try:
        yield Rig(database.dsn, connection)
    finally:
        await connection.close()
