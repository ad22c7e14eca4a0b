"""The pool on a sick server: hung, killed, cut off in the moment of a commit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from seawall.kernel.error import Unavailable, Uncertain
from seawall.store.pool import Listener, Settings, Store
from seawall.testing.postgres import PostgresServer
from stall import Stopwatch
from store.proxy import Proxy

EPSILON_S = 0.5


@pytest.fixture
async def settings(server: PostgresServer) -> Settings:
    return Settings(
        dsn=server.dsn(database="seawall"), connections_max=3, statement_timeout_s=0.5, connect_timeout_s=5.0
    )


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    async with Store(settings, role="test") as store:
        await store.execute("create table t (i int primary key)", timeout_s=5)
        yield store


async def _fails_in_time(call: object, *kinds: type[Exception]) -> None:
    watch = Stopwatch()
    with pytest.raises(kinds):
        await call  # type: ignore[misc]
    assert watch.s < 0.5 + EPSILON_S


async def _transaction(store: Store) -> None:
    async with store.transaction() as session:
        await session.execute("insert into t values (1)")


async def test_on_a_hung_server_every_call_ends_in_time_and_no_connection_is_used_again(
    server: PostgresServer, store: Store, settings: Settings
) -> None:
    async with (
        store.own_connection() as session,
        Listener(settings, ["x"], lambda *_: None, role="t").subscribed() as c,
    ):
        await asyncio.gather(*(store.value("select 1", timeout_s=5) for _ in range(2)))  # all connections are there
        before = await session.value("select pg_backend_pid()")
        server.hang()
        try:
            await _fails_in_time(store.value("select 1"), Unavailable)
            await _fails_in_time(store.execute("insert into t values (1)"), Uncertain)
            await _fails_in_time(store.execute("insert into t values (1)"), Unavailable)  # can't connect
            await _fails_in_time(_transaction(store), Unavailable)
            await _fails_in_time(session.value("select 1"), Unavailable)
            await _fails_in_time(session.value("select 1"), Unavailable)
            assert not session.usable
            await _fails_in_time(c(0.5), Unavailable)
            impatient = replace(settings, connect_timeout_s=0.3)
            with pytest.raises(Unavailable):
                async with Listener(impatient, ["x"], lambda *_: None, role="t").subscribed():
                    pass
        finally:
            server.resume()
    async with asyncio.timeout(10):
        after = await _until_answered(store, "select pg_backend_pid()")
    assert after != before


async def _until_answered(store: Store, sql: str) -> object:
    while True:
        try:
            return await store.value(sql)
        except Unavailable:
            await asyncio.sleep(0.02)


async def test_after_kill_9_the_pool_heals_by_itself(server: PostgresServer, store: Store) -> None:
    await store.execute("insert into t values (7)")
    server.kill()
    for _ in range(3):
        with pytest.raises((Unavailable, Uncertain)):
            await store.execute("insert into t values (8)")
    server.start()
    async with asyncio.timeout(10):
        assert await _until_answered(store, "select count(*) from t where i = 7") == 1


async def test_a_terminated_backend_costs_one_call(store: Store) -> None:
    async with store.own_connection() as session:
        pid = await session.value("select pg_backend_pid()")
        await store.value("select pg_terminate_backend($1)", pid)
        with pytest.raises((Unavailable, Uncertain)):
            await session.execute("insert into t values (1)")
        assert not session.usable
    assert await store.value("select count(*) from t") == 0


@pytest.fixture
async def proxied(
    server: PostgresServer, settings: Settings, store: Store, tmp_path: Path
) -> AsyncIterator[tuple[Proxy, Store]]:
    async with Proxy(server.cluster.socket, tmp_path) as proxy:
        dsn = f"postgresql://seawall@/seawall?host={quote(str(tmp_path))}"
        async with Store(replace(settings, dsn=dsn, statement_timeout_s=3.0), role="proxied") as cut:
            await cut.value("select 1")
            yield proxy, cut


async def test_a_line_cut_after_commit_was_sent_is_uncertain_and_it_may_have_happened(
    proxied: tuple[Proxy, Store], store: Store
) -> None:
    proxy, cut = proxied
    proxy.cut = lambda data, way: "pass, cut" if way == "up" and b"commit" in data else "pass"
    with pytest.raises(Uncertain):
        await _transaction(cut)
    async with asyncio.timeout(5):
        while not await store.value("select count(*) from t"):
            pass


async def test_a_line_cut_before_the_commits_answer_is_uncertain(proxied: tuple[Proxy, Store], store: Store) -> None:
    proxy, cut = proxied
    proxy.cut = lambda data, way: "cut" if way == "down" and b"COMMIT" in data else "pass"
    with pytest.raises(Uncertain):
        await _transaction(cut)
    assert await store.value("select count(*) from t") == 1


async def test_a_line_cut_before_the_commit_is_sent_is_certain(proxied: tuple[Proxy, Store], store: Store) -> None:
    proxy, cut = proxied
    proxy.cut = lambda data, way: "cut" if way == "up" and b"insert" in data else "pass"
    with pytest.raises(Unavailable):
        await _transaction(cut)
    assert await store.value("select count(*) from t") == 0


async def test_a_line_cut_in_a_single_write_is_uncertain(proxied: tuple[Proxy, Store], store: Store) -> None:
    proxy, cut = proxied
    proxy.cut = lambda data, way: "cut" if way == "down" and b"INSERT" in data else "pass"
    with pytest.raises(Uncertain):
        await cut.execute("insert into t values (1)")
    assert await store.value("select count(*) from t") == 1


async def test_a_full_line_of_new_connections_is_unavailable_and_says_so(
    server: PostgresServer, settings: Settings
) -> None:
    many = [Store(replace(settings, connections_max=50), role="many") for _ in range(5)]
    server.hang()
    try:
        answers = await asyncio.gather(
            *(s.execute("insert into t values (1)") for s in many for _ in range(50)), return_exceptions=True
        )
    finally:
        server.resume()
        await asyncio.gather(*(s.close() for s in many))
    assert all(isinstance(answer, Unavailable) for answer in answers)  # never Uncertain: nothing was sent
    assert any("line of new connections is full" in str(answer) for answer in answers)
