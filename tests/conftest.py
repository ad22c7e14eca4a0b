"""Real PostgreSQL for every test that wants one.

``database`` is what most tests need: a fresh database with the schema. ``server`` is for tests that kill, hang or
restart one. Each pytest process has a server of its own: initdb takes about half a second, so sharing one among
workers of pytest-xdist saves less than its locks would cost in trouble.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

import pooler
from seawall import migrate
from seawall.store import pool
from seawall.store.cluster import WORKER
from seawall.testing.postgres import Database, PostgresServer

TEMPLATE = "seawall"
_numbers = itertools.count()


async def _make_template(server: PostgresServer) -> None:
    admin = await asyncpg.connect(server.dsn())
    await admin.execute(f"create database {TEMPLATE}")
    await admin.close()
    await migrate.apply(pool.Settings(dsn=server.dsn(database=TEMPLATE)))


@pytest.fixture(scope="session")
def _prepared() -> Iterator[PostgresServer]:
    """Data with the template in it; not running."""
    server = PostgresServer(durable=False)
    try:
        with asyncio.Runner() as runner:
            server.prepare()
            server.start()
            runner.run(_make_template(server))
        server.stop()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def _shared_server(_prepared: PostgresServer) -> Iterator[PostgresServer]:
    """The server of this pytest process. It never syncs: nothing here may kill it."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(PostgresServer(durable=False, prepared=_prepared))
        if pooler.WANTED:
            stack.enter_context(pooler.everywhere(server))
        yield server


@contextlib.asynccontextmanager
async def _database(server: PostgresServer) -> AsyncIterator[Database]:
    name = f"test_{next(_numbers)}"
    admin = await asyncpg.connect(server.dsn())
    try:
        await admin.execute(f"create database {name} template {TEMPLATE}")
        yield Database(name, server.dsn(database=name), server.dsn(database=name, role=WORKER))
        # A kill test may have taken the connection with it; then the folder goes with its server.
        if not admin.is_closed():
            await admin.execute(f"drop database {name} with (force)")
    finally:
        admin.terminate()


@pytest.fixture
async def database(_shared_server: PostgresServer) -> AsyncIterator[Database]:
    """A fresh database with the schema, dropped after the test."""
    async with _database(_shared_server) as made:
        yield made


@pytest.fixture
def server(_prepared: PostgresServer) -> Iterator[PostgresServer]:
    """A running, durable server of the test's own, to kill, hang or restart: ``server.dsn(database="seawall")`` has the
    schema."""
    with PostgresServer(prepared=_prepared) as server:
        yield server
