"""PostgreSQL's queue of notifications is full: somebody listens and doesn't take them, in whatever database."""

from __future__ import annotations

import asyncpg
import pytest

from router.rig import CLOCK, Rig, append, record, until
from seawall.kernel.alert import Alerts
from seawall.testing.postgres import PostgresServer


async def fill(dsn: str) -> asyncpg.Connection:
    """Listens in a transaction that stands open; returns when nobody can notify any more."""
    listener = await asyncpg.connect(dsn)
    await listener.execute("listen something")
    await listener.execute("begin")
    await listener.execute("select 1")
    other = await asyncpg.connect(dsn)
    try:
        with pytest.raises(asyncpg.ProgramLimitExceededError):
            for n in range(1000):
                await other.execute(f"notify something, '{n:07000}'")
    finally:
        await other.close()
    return listener


async def small_queue(server: PostgresServer) -> None:
    admin = await asyncpg.connect(server.dsn(database="seawall"))
    await admin.execute("alter system set max_notify_queue_pages = 64")
    await admin.close()
    server.stop()
    server.start()


async def test_events_are_routed_without_hints_while_the_queue_of_notifications_is_full(server: PostgresServer) -> None:
    dsn = server.dsn(database="seawall")
    await small_queue(server)
    listener = await fill(server.dsn())
    connection = await asyncpg.connect(dsn)
    rig = Rig(dsn, connection)
    try:
        await rig.workflow("*")
        await append(rig.log(), *[record() for _ in range(5)])
        alerts = Alerts(rig.metrics, CLOCK)
        async with rig.router(alerts=alerts):
            await rig.arrived(5)
            await until(alerts.active)
        assert [alert.name for alert in alerts.active()] == ["hints-refused"]
        assert await rig.count("event", "status = 1") == 5
        assert await rig.count("run") == 5
    finally:
        await connection.close()
        await listener.close()
