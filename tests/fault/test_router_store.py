"""The store is killed, hung, or out of connections: the router stays alive, says so, and goes on by itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import asyncpg
import pytest

from router.rig import Rig, append, record, until
from seawall.guard import Supervisor
from seawall.testing.postgres import PostgresServer


def not_ready(supervisor: Supervisor, name: str) -> str:
    """Why a loop isn't ready, "" when it is."""
    return next((loop.reason for loop in supervisor.health() if loop.name == name and not loop.ready), "")


@contextlib.asynccontextmanager
async def rigged(server: PostgresServer) -> AsyncIterator[Rig]:
    connection = await asyncpg.connect(server.dsn(database="seawall"))
    try:
        yield Rig(server.dsn(database="seawall"), connection)
    finally:
        connection.terminate()


async def test_a_killed_store_costs_time_and_nothing_else(server: PostgresServer) -> None:
    async with rigged(server) as rig:
        await rig.workflow("*")
        journal = rig.log()
        sent = 0
        async with rig.router(batch_records=20) as supervisor:
            for _ in range(3):
                for _ in range(10):
                    await append(journal, *[record(key=f"k{sent + n}") for n in range(20)])
                    sent += 20
                server.kill()
                await until(lambda: bool(not_ready(supervisor, "router.fresh.c1")), timeout_s=10.0)
                assert [loop for loop in supervisor.health() if loop.restarts] == []
                server.start()
                rig.database = await asyncpg.connect(server.dsn(database="seawall"))
                await rig.arrived(sent)
                await until(lambda: not any(not loop.ready for loop in supervisor.health()), timeout_s=10.0)
        assert await rig.count("event") == sent
        assert await rig.count("run") == sent
        assert await rig.count("duplicate") == 0
        rig.database.terminate()


async def test_a_hung_store_is_named_within_seconds_and_nothing_restarts(server: PostgresServer) -> None:
    async with rigged(server) as rig:
        journal = rig.log()
        await append(journal, record())
        async with rig.router(transaction_timeout_s=1.0) as supervisor:
            await rig.arrived(1)
            server.hang()
            await append(journal, *[record() for _ in range(5)])
            await until(lambda: "PostgreSQL" in not_ready(supervisor, "router.fresh.c1"), timeout_s=5.0)
            await asyncio.sleep(4.0)  # longer than a loop may be silent: it must not have been taken for hung
            assert [loop for loop in supervisor.health() if loop.restarts] == []
            server.resume()
            await rig.arrived(6)
        assert await rig.count("event") == 6


async def test_a_store_that_is_away_at_the_start_is_waited_for(server: PostgresServer) -> None:
    async with rigged(server) as rig:
        journal = rig.log()
        await append(journal, record())
        server.kill()
        async with rig.router() as supervisor:
            await until(lambda: "PostgreSQL" in not_ready(supervisor, "router.fresh.c1"), timeout_s=5.0)
            server.start()
            rig.database = await asyncpg.connect(server.dsn(database="seawall"))
            await rig.arrived(1)
        rig.database.terminate()


async def test_a_failure_that_the_router_survives_does_not_count_against_the_record(server: PostgresServer) -> None:
    """Restarts by hand while the store refuses all writes must not make the record at the position a dead letter."""
    async with rigged(server) as rig:
        journal = rig.log()
        first, second = record(), record()
        await append(journal, first)
        async with rig.router():
            await rig.arrived(1)
        await append(journal, second)
        await rig.database.execute(
            "create function away() returns trigger language plpgsql as $$ begin raise 'away' using errcode = '53100'; "
            "end $$; create trigger away before insert on event for each row execute function away()"
        )
        for _ in range(7):
            async with rig.router() as supervisor:
                await until(lambda supervisor=supervisor: "away" in not_ready(supervisor, "router.fresh.c1"))

                async def cleared() -> bool:
                    return await rig.count("log_position", "starts = 0") == 1

                await until(cleared)
        await rig.database.execute("drop trigger away on event")
        async with rig.router():
            await rig.arrived(2)
        assert (await rig.event(second.id))["status"] == 1


@pytest.mark.parametrize("restored_to", [0, 30])
async def test_a_store_restored_to_an_older_state_is_filled_again_from_the_log(
    server: PostgresServer, restored_to: int
) -> None:
    async with rigged(server) as rig:
        await rig.workflow("*")
        journal = rig.log()
        records = [record(key=f"k{n % 50}") for n in range(100)]
        await append(journal, *records[:restored_to])
        async with rig.router():
            await rig.arrived(restored_to)
        await rig.database.close()
        admin = await asyncpg.connect(server.dsn())
        await admin.execute("create database older template seawall")
        rig.database = await asyncpg.connect(server.dsn(database="seawall"))
        await append(journal, *records[restored_to:])
        async with rig.router():
            await rig.arrived(50)
            await rig.arrived(50, table="duplicate")
        await rig.database.close()
        rig.dsn = server.dsn(database="older")
        rig.database = await asyncpg.connect(rig.dsn)
        async with rig.router():
            await rig.arrived(50)
            await rig.arrived(50, table="duplicate")
        assert await rig.count("run") == 50
        await admin.close()
        rig.database.terminate()
