"""The pool keeps its bounds and its word on a healthy server; ``tests/fault/test_store_*.py`` do it on sick ones."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest

import pooler
from seawall.kernel.error import Unavailable, Uncertain, Unstorable
from seawall.store.driver import writes
from seawall.store.pool import Listener, Settings, Store, text_array
from seawall.testing.postgres import Database
from stall import Stopwatch


@pytest.fixture
async def settings(database: Database) -> Settings:
    return Settings(dsn=database.dsn, connections_max=2, statement_timeout_s=2.0)


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    async with Store(settings, role="test") as store:
        await store.execute("create table t (i int primary key, word text)")
        yield store


async def test_values_come_back_as_they_went_in(store: Store) -> None:
    assert await store.execute("insert into t values ($1, $2), ($3, $4)", 1, "a", 2, "b") == 2
    assert [tuple(r) for r in await store.fetch("select * from t order by i")] == [(1, "a"), (2, "b")]  # type: ignore[call-overload]
    assert (await store.row("select word from t where i = $1", 2))["word"] == "b"  # type: ignore[index]
    assert await store.row("select word from t where i = $1", 3) is None
    assert await store.value("select count(*) from t") == 2


async def test_a_transaction_that_raises_leaves_nothing_and_its_connection_serves_on(store: Store) -> None:
    before = await store.value("select pg_backend_pid()")
    with pytest.raises(KeyError):
        async with store.transaction() as session:
            await session.execute("insert into t values (1, 'x')")
            raise KeyError("the caller's own")
    assert await store.value("select count(*) from t") == 0
    assert await store.value("select pg_backend_pid()") == before


async def test_a_refused_value_is_unstorable_and_the_connection_serves_on(store: Store) -> None:
    before = await store.value("select pg_backend_pid()")
    await store.execute("insert into t values (1, 'x')")
    for values in ((1, "again"), (2, "nul \0"), (3, "surrogate \udc80"), (2**40, "too big"), ("no number", "x")):
        with pytest.raises(Unstorable):
            await store.execute("insert into t values ($1, $2)", *values)
    assert await store.value("select pg_backend_pid()") == before


async def test_an_own_connection_survives_a_refused_value(store: Store) -> None:
    async with store.own_connection() as session:
        with pytest.raises(Unstorable):
            await session.execute("insert into t values ($1, $2)", 1, "nul \0")
        assert session.usable
        assert await session.execute("insert into t values ($1, $2)", 1, "fine") == 1


async def test_a_swallowed_error_can_not_turn_a_rollback_into_a_commit(store: Store) -> None:
    with pytest.raises(Unavailable, match="rolled back"):
        async with store.transaction() as session:
            await session.execute("insert into t values (1, 'x')")
            with pytest.raises(Unstorable):
                await session.execute("insert into t values (1, 'y')")
    assert await store.value("select count(*) from t") == 0


async def test_a_bug_of_ours_is_not_taken_for_trouble_of_the_world(store: Store) -> None:
    with pytest.raises(asyncpg.InterfaceError, match="expects 1 argument"):
        await store.execute("insert into t values ($1)", 1, 2)


async def test_more_than_all_connections_waits_and_then_says_so(store: Store) -> None:
    async with store.own_connection(), store.own_connection():
        with pytest.raises(Unavailable, match="all 2 connections are busy"):
            await store.value("select 1", timeout_s=0.05)
    assert await store.value("select 1") == 1


async def test_a_statement_that_takes_too_long_is_given_up_and_its_connection_with_it(store: Store) -> None:
    before = await store.value("select pg_backend_pid()")
    watch = Stopwatch()
    with pytest.raises(Unavailable, match="no answer in time"):
        await store.value("select pg_sleep(20)", timeout_s=0.2)
    assert watch.s < 1.0
    assert await store.value("select pg_backend_pid()") != before


@pytest.mark.skipif(pooler.WANTED, reason="behind a pooler each statement is in a transaction: nothing was committed")
async def test_a_write_that_takes_too_long_is_uncertain(store: Store) -> None:
    with pytest.raises(Uncertain):
        await store.execute("insert into t select 1, pg_sleep(20)::text", timeout_s=0.1)


@pytest.mark.skipif(pooler.WANTED, reason="behind a pooler each statement is in a transaction: nothing was committed")
async def test_a_reading_call_that_writes_is_uncertain_too(store: Store) -> None:
    with pytest.raises(Uncertain):
        await store.value(
            "with s as (insert into t select 1, pg_sleep(20)::text returning 1) select * from s", timeout_s=0.1
        )


async def test_a_timeout_inside_a_transaction_is_certain_since_nothing_was_committed(store: Store) -> None:
    with pytest.raises(Unavailable):
        async with store.transaction(timeout_s=0.3) as session:
            await session.execute("insert into t values (1, 'x')")
            await session.value("select pg_sleep(20)")
    assert await store.value("select count(*) from t") == 0


async def test_a_transactions_time_is_for_all_of_it(store: Store) -> None:
    watch = Stopwatch()
    with pytest.raises(Unavailable):
        async with store.transaction(timeout_s=0.5) as session:
            for _ in range(100):
                await session.value("select pg_sleep(0.1)")
    assert watch.s < 1.5


async def test_a_long_transaction_outlives_the_servers_ordinary_limit(database: Database) -> None:
    store = Store(Settings(dsn=database.dsn, statement_timeout_s=0.2), role="test")
    async with store, store.transaction(timeout_s=5.0) as session:
        await session.value("select pg_sleep(0.6)")


async def test_cancelling_in_mid_query_never_poisons_the_pool(store: Store) -> None:
    for number in range(20):
        waiting = asyncio.create_task(store.value("select pg_sleep(20)"))
        async with asyncio.timeout(5):
            while not await store.value("select count(*) from pg_stat_activity where wait_event = 'PgSleep'"):
                pass
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await store.value("select $1::int", number) == number


async def test_cancelling_a_transaction_rolls_it_back(store: Store) -> None:
    inside = asyncio.Event()

    async def write() -> None:
        async with store.transaction() as session:
            await session.execute("insert into t values (1, 'x')")
            inside.set()
            await asyncio.Event().wait()

    writing = asyncio.create_task(write())
    await inside.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await store.execute("insert into t values (1, 'the lock is free')")


async def test_a_closed_pool_says_so_and_closes_twice(settings: Settings) -> None:
    store = Store(settings, role="test")
    await store.value("select 1")
    await store.close()
    await store.close()
    with pytest.raises(Unavailable, match="closed"):
        await store.value("select 1")


async def test_no_connection_is_left_behind(settings: Settings, store: Store) -> None:
    async with Store(replace(settings, connections_max=5), role="leaver") as other:
        await asyncio.gather(*(other.value("select pg_sleep(0.05)") for _ in range(5)))
    count = "select count(*) from pg_stat_activity where application_name = 'seawall-leaver'"
    async with asyncio.timeout(5):
        while await store.value(count):
            pass


@pytest.mark.skipif(pooler.WANTED, reason="a pooler has fewer connections to the server than we have to it")
async def test_too_many_connections_for_the_server_are_unavailable(settings: Settings, store: Store) -> None:
    patient = replace(settings, connections_max=200, statement_timeout_s=30.0)
    async with Store(patient, role="many") as many, contextlib.AsyncExitStack() as held:
        # One after the other: the server's line for new connections is short, and a full line is another answer.
        with pytest.raises(Unavailable, match="53300"):
            for _ in range(200):
                await held.enter_async_context(many.own_connection())
    assert await store.value("select 1") == 1


async def test_a_missing_server_is_unavailable() -> None:
    store = Store(Settings(dsn="postgresql://nobody@/none?host=/nonexistent"), role="test")
    with pytest.raises(Unavailable):
        await store.execute("insert into t values (1)")


async def test_a_listener_hears_and_proves_itself(settings: Settings, store: Store) -> None:
    heard: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    listener = Listener(settings, ["one", "two"], lambda c, p: heard.put_nowait((c, p)), role="test")
    async with listener.subscribed() as check:
        await check(10.0)
        await store.execute("select pg_notify('two', 'hello')")
        async with asyncio.timeout(10):
            assert await heard.get() == ("two", "hello")


async def test_a_listeners_lost_connection_fails_its_check(settings: Settings, store: Store) -> None:
    async with Listener(settings, ["one"], lambda _c, _p: None, role="ear").subscribed() as check:
        await store.value("select pg_terminate_backend(pid) from pg_stat_activity where application_name='seawall-ear'")
        with pytest.raises(Unavailable):
            async with asyncio.timeout(10):
                while True:
                    await check(1.0)


def test_a_statement_that_may_write_is_never_taken_for_a_reader() -> None:
    assert writes("with l as (select 1), s as (INSERT into step values (1)) select count(*) from l")
    assert writes("select pg_notify('x', '')")
    assert writes("select store_history()"), "rolled back through a pooler otherwise"
    assert writes("delete from run")
    assert not writes("-- router, each update; insert\nselect * from event where updated_at > $1")


def test_text_that_postgresql_can_not_keep_is_spelt_out() -> None:
    assert text_array(["a\0b", "\udc80", "é"]) == ["a\\x00b", "?", "é"]
