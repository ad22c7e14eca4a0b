"""PostgreSQL's queue of notifications is full: shards change hands all the same."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest

from router.test_notify_full import fill, small_queue
from seawall.store import pool
from seawall.store.lease import Lease, leave, release
from seawall.store.pool import Store
from seawall.testing.postgres import PostgresServer

HELD = "select count(*) from shard_lease where owner = $1"


@pytest.fixture
async def db(server: PostgresServer) -> AsyncIterator[asyncpg.Connection]:
    await small_queue(server)
    made = await asyncpg.connect(server.dsn(database="seawall"))
    yield made
    await made.close()


async def test_shards_are_given_back_while_nobody_can_be_told(server: PostgresServer, db: asyncpg.Connection) -> None:
    """Nothing of one that is being given up is read: its runs stood for as long as that went on, and at a stop all that
    was in hand became suspect."""
    owner = uuid.uuid4()
    leases = await holding(db, owner, queues=1)
    async with Store(pool.Settings(dsn=server.dsn(database="seawall")), role="test") as store:
        listener = await fill(server.dsn())
        try:
            await release(store, leases, owner=owner)
            assert await db.fetchval(HELD, owner) == 0
            await leave(store, owner)
            assert await db.fetchval("select serves = '{}' from worker where owner = $1", owner)
        finally:
            await listener.close()


async def test_very_many_queues_are_given_back_at_once(server: PostgresServer, db: asyncpg.Connection) -> None:
    """One notification has room for 8000 bytes."""
    owner = uuid.uuid4()
    leases = await holding(db, owner, queues=3000)
    async with Store(pool.Settings(dsn=server.dsn(database="seawall")), role="test") as store:
        await release(store, leases, owner=owner)
        assert await db.fetchval(HELD, owner) == 0
        await leave(store, owner)
        assert await db.fetchval("select serves = '{}' from worker where owner = $1", owner)


async def holding(db: asyncpg.Connection, owner: uuid.UUID, *, queues: int) -> list[Lease]:
    """A worker with one shard of each of so many queues."""
    await db.execute(f"insert into queue (name) select 'q' || n from generate_series(1, {queues}) n")
    await db.execute(
        "insert into worker (owner, workflow_ids, serves) select $1, '{}', array_agg(id) from queue", owner
    )
    rows = await db.fetch(
        "insert into shard_lease (queue_id, shard, epoch, owner, expires_at, timeline)"
        " select id, 0, 1, $1, 'infinity', store_timeline() from queue returning queue_id, shard, epoch", owner,
    )  # fmt: skip
    return [Lease(*row) for row in rows]
