"""The schema is applied once, whole files at a time, by one process; what can't be understood is refused."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import asyncpg
import pytest

from seawall import migrate
from seawall.kernel.error import Misconfigured, Unavailable
from seawall.migrate import Version, runner
from seawall.store import pool
from seawall.store.statement import statements
from seawall.testing.postgres import Database, PostgresServer

ONE = Version(1, "one", "create table one (i int); create table one_more (i int)")
TWO = Version(2, "two", "alter table one add column word text")
BROKEN = Version(2, "broken", "create table half (i int); select 1 / 0")


@pytest.fixture
async def empty(database: Database) -> AsyncIterator[pool.Settings]:
    """A database without our schema."""
    name = f"{database.name}_empty"
    admin = await asyncpg.connect(database.dsn)
    await admin.execute(f"create database {name}")
    # The grants name tables of the real schema, so they only fit that one.
    yield pool.Settings(dsn=database.dsn.replace(f"/{database.name}?", f"/{name}?"))
    await admin.execute(f"drop database {name} with (force)")
    await admin.close()


async def _value(settings: pool.Settings, sql: str) -> object:
    async with pool.Store(settings, role="test") as store:
        return await store.value(sql)


def _with(*more: Version) -> list[Version]:
    known = migrate.versions()
    return [*known, *(Version(len(known) + v.number, v.name, v.sql) for v in more)]


async def test_an_empty_database_gets_all_versions_and_the_next_start_none(empty: pool.Settings) -> None:
    assert await migrate.apply(empty, known=_with(ONE, TWO)) == [*(v.name for v in migrate.versions()), "one", "two"]
    assert await migrate.apply(empty, known=_with(ONE, TWO)) == []
    assert await _value(empty, "select count(*) from schema_version") == len(_with(ONE, TWO))
    assert await _value(empty, "select count(word) from one") == 0


async def test_a_file_that_fails_leaves_nothing_of_itself_and_all_before_it(empty: pool.Settings) -> None:
    with pytest.raises(Exception, match="division by zero"):
        await migrate.apply(empty, known=_with(ONE, BROKEN))
    assert await _value(empty, "select to_regclass('one') is not null and to_regclass('half') is null")
    assert await migrate.apply(empty, known=_with(ONE, TWO)) == ["two"]


async def test_a_database_of_a_newer_seawall_is_refused(empty: pool.Settings) -> None:
    await migrate.apply(empty, known=_with(ONE))
    with pytest.raises(Misconfigured, match=r"made by a newer Seawall.*upgrade Seawall"):
        await migrate.apply(empty)


async def test_an_applied_file_that_changed_is_refused(empty: pool.Settings) -> None:
    await migrate.apply(empty, known=_with(ONE))
    with pytest.raises(Misconfigured, match="another text"):
        await migrate.apply(empty, known=_with(Version(1, "one", "create table one (i bigint)")))


async def test_a_server_that_is_too_old_is_refused(empty: pool.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "MAJOR_MIN", 99)
    with pytest.raises(Misconfigured, match="99 or newer is needed"):
        await migrate.apply(empty)


async def test_of_many_at_once_one_applies_and_the_others_wait(empty: pool.Settings) -> None:
    done = await asyncio.gather(*(migrate.apply(empty, known=_with(ONE)) for _ in range(4)))
    assert sorted(map(len, done)) == [0, 0, 0, len(_with(ONE))]


async def test_waiting_says_for_whom_and_has_an_end(empty: pool.Settings) -> None:
    said: list[str] = []
    async with pool.Store(empty, role="holder") as store, store.own_connection() as session:
        assert await session.value(statements("schema")["lock_schema"])
        with pytest.raises(Unavailable, match=r"schema lock.*seawall-holder"):
            await migrate.apply(empty, settings=migrate.Settings(wait_s=0.6), waiting=said.append)
    assert len(said) == 1
    assert "seawall-holder (pid " in said[0]
    assert await migrate.apply(empty)


# ── The worker's role ──────────────────────────────────────────────────────────────────────────────────────────────
NOTHING = (
    "source",
    "source_secret",
    "source_version",
    "collector",
    "log_position",
    "dedupe",
    "router_note",
    "retention",
    "flag",
    "alert",
    "watch_lease",
    "bulk",
    "bulk_run",
    "run_frozen",
    "replay",
    "replay_run",
    "governor",
    "deferred",
)
READ = ("duplicate", "ticket", "schema_version", "correlation", "log_progress", "drain", "workflow_hand", "approval")
ALL = (
    "run", "run_done", "step", "shard_lease", "lease_taken", "refill", "reply", "worker", "wait", "rate", "cron",
    "cron_line", "cron_moment", "run_until", "run_child", "progress",
)  # fmt: skip
REGISTER = ("queue", "workflow", "slot_use")
LIVE = ("store_life",)
TELL = ("change",)
SAY = ("wait_shape", "queue_sample", "event")


@pytest.mark.parametrize(
    ("table", "allowed"),
    [
        *((t, set()) for t in NOTHING),
        *((t, {"select"}) for t in READ),
        *((t, {"select", "insert", "update", "delete"}) for t in ALL),
        *((t, {"select", "insert", "update"}) for t in REGISTER),
        *((t, {"select", "update"}) for t in LIVE),
        *((t, {"insert"}) for t in TELL),
        *((t, {"select", "insert"}) for t in SAY),
    ],
)
async def test_the_worker_may_do_exactly_what_it_needs(database: Database, table: str, allowed: set[str]) -> None:
    connection = await asyncpg.connect(database.worker_dsn)
    try:
        for right in ("select", "insert", "update", "delete", "truncate"):
            has = await connection.fetchval("select has_table_privilege($1, $2)", table, right)
            assert has == (right in allowed), f"{right} on {table}"
    finally:
        await connection.close()


async def test_the_worker_asks_people_and_decides_nothing(database: Database) -> None:
    connection = await asyncpg.connect(database.worker_dsn)
    try:
        for right, columns in (
            ("insert", {"run_id", "name", "nth", "key", "question", "people", "expires_at"}),
            ("update", {"over"}),
        ):
            rows = await connection.fetch(
                "select attname from pg_attribute where attrelid = 'approval'::regclass and attnum > 0"
                " and has_column_privilege('approval', attnum, $1)",
                right,
            )
            assert {row["attname"] for row in rows} == columns
    finally:
        await connection.close()


async def test_each_table_of_the_schema_is_granted_or_denied_on_purpose(database: Database) -> None:
    connection = await asyncpg.connect(database.dsn)
    tables = await connection.fetch(
        "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')"
        " and not relispartition"
    )
    await connection.close()
    assert {r["relname"] for r in tables} == {*NOTHING, *READ, *ALL, *REGISTER, *LIVE, *TELL, *SAY}


async def test_the_worker_is_nobody_special(database: Database) -> None:
    connection = await asyncpg.connect(database.worker_dsn)
    try:
        row = await connection.fetchrow("select * from pg_roles where rolname = current_user")
        assert row is not None
        assert not any(row[f"rol{what}"] for what in ("super", "createrole", "createdb", "replication", "bypassrls"))
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("create table mine (i int)")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("set role seawall")
        assert await connection.fetchval("select nextval('run_number')")
    finally:
        await connection.close()


async def test_an_owner_who_may_not_create_roles_is_told_what_to_do(
    server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    admin = await asyncpg.connect(server.dsn(database="seawall"))
    await admin.execute("drop owned by seawall_worker; drop role seawall_worker; create role plain login")
    await admin.execute("create database plain owner plain")
    settings = pool.Settings(dsn=server.dsn(database="plain", role="plain"))
    caplog.set_level(logging.INFO, "seawall")
    assert await migrate.apply(settings)
    assert any("create role seawall_worker login" in r.message for r in caplog.records)
    await admin.execute("create role seawall_worker login")
    await admin.close()
    assert await migrate.apply(settings) == []
    worker = pool.Settings(dsn=server.dsn(database="plain", role="seawall_worker"))
    assert await _value(worker, "select count(*) from run") == 0
    with pytest.raises(Unavailable, match="permission denied"):
        await _value(worker, "select count(token_hash) from source")
