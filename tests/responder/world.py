"""Puts into the store what router and workers would: events, tickets, runs, ends and replies."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import asyncpg

from seawall.kernel.clock import SystemClock
from seawall.kernel.event import EventIds, id_day
from seawall.kernel.status import CHANNEL_REPLY, DAY_SHIFT, EventStatus, RunStatus

NOWHERE = UUID(int=0)


class World:
    """One connection that writes."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.sql = connection
        self._ids = EventIds(SystemClock())
        self._numbers = itertools.count(1)
        self.source = uuid4()

    def id(self) -> bytes:
        return self._ids.next()

    async def workflow(self, name: str = "greet", version: str = "1") -> int:
        queue = await self.sql.fetchval(
            "insert into queue (name) values ('default') on conflict (name) do update set name = 'default' returning id"
        )
        return await self.sql.fetchval(
            "insert into workflow (name, version, pattern, queue_id, active) values ($1, $2, '*', $3, true)"
            " on conflict (name, version) do update set active = true returning id",
            name, version, queue,
        )  # fmt: skip

    async def event(
        self,
        id: bytes,
        *,
        status: EventStatus = EventStatus.ROUTED,
        reason: str | None = None,
        body: bytes = b"{}",
        type: str = "test",
        tenant: str = "default",
        source: str = "s",
        source_id: UUID | None = None,
        key: str | None = None,
    ) -> bytes:
        await self.sql.execute(
            "insert into event (id, source_id, source, tenant, type, status, reason, received_at, dedupe_key, headers,"
            " body, target, peer, key_id, config_version, log_id, segment, \"offset\")"
            " values ($1, $2, $3, $4, $5, $6, $7, now(), $8, $9, $10, '', '', 1, 1, $11, 1, 0)",
            UUID(bytes=id), source_id or self.source, source, tenant, type, int(status), reason, key,
            b"content-type\0text/plain", body, NOWHERE,
        )  # fmt: skip
        return id

    async def busy(self) -> bytes:
        """An event with a run that hasn't ended: only a reply can answer its ticket."""
        event = await self.event(self.id())
        await self.run(event)
        return event

    async def ticket(self, id: bytes, event_id: bytes) -> None:
        await self.sql.execute("insert into ticket values ($1, $2)", UUID(bytes=id), UUID(bytes=event_id))

    async def duplicate(self, id: bytes, first_id: bytes) -> None:
        await self.sql.execute("insert into duplicate values ($1, $2)", UUID(bytes=id), UUID(bytes=first_id))

    async def run(self, event_id: bytes, *, workflow: int | None = None, state: int = 0, shard: int = 0) -> int:
        id = (id_day(event_id) << DAY_SHIFT) | next(self._numbers)
        await self.sql.execute(
            "insert into run (id, event_id, workflow_id, tenant, queue_id, shard, state, vt)"
            " values ($1, $2, $3, 'default', 1, $4, $5, 0)",
            id, UUID(bytes=event_id), workflow or await self.workflow(), shard, state,
        )  # fmt: skip
        return id

    async def end(
        self,
        run: int,
        *,
        status: RunStatus = RunStatus.SUCCEEDED,
        result: bytes | None = None,
        error: str | None = None,
    ) -> None:
        await self.sql.execute(
            "with gone as (delete from run where id = $1 returning *)"
            " insert into run_done (id, event_id, workflow_id, tenant, status, attempt, result, error, created_at,"
            " started_at) select id, event_id, workflow_id, tenant, $2, 1, $3, $4, created_at, now() from gone",
            run, int(status), result, error,
        )  # fmt: skip

    async def reply(
        self, event_id: bytes, body: bytes, *, run: int = 1, status: int = 200, content_type: str = "application/json"
    ) -> None:
        await self.sql.execute(
            "insert into reply values ($1, $2, $3, $4, $5)", UUID(bytes=event_id), run, status, content_type, body
        )

    async def notify(self, event_ids: Iterable[bytes]) -> None:
        await self.sql.execute("select pg_notify($1, $2)", CHANNEL_REPLY, ",".join(id.hex() for id in event_ids))

    async def cut_listener(self) -> int:
        """pg_terminate_backend of every listening connection; returns how many there were."""
        return await self.sql.fetchval(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity"
            " where datname = current_database() and application_name = 'seawall-listener'"
        )


@asynccontextmanager
async def world(dsn: str) -> AsyncIterator[World]:
    connection = await asyncpg.connect(dsn)
    try:
        yield World(connection)
    finally:
        await connection.close()
