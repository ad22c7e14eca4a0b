"""A queue that has as many runs as it may: events for it are held and go on by themselves, and no other waits."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from router.rig import Rig, append, record, until
from seawall.guard.spell import Spells
from seawall.guard.supervisor import Supervisor
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import SystemClock
from seawall.kernel.metric import Metrics
from seawall.kernel.status import EventStatus
from seawall.router import depth
from seawall.router.alarm import FULL_S
from seawall.store.depth import Depth

CLOCK = SystemClock()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depth, "EVERY_S", 0.05)
    monkeypatch.setattr(depth, "BUSY_S", 0.02)
    monkeypatch.setattr(depth, "SHARE", 0)
    assert FULL_S > 1


async def bounded(rig: Rig, most: int, *, queue: str = "default") -> None:
    await rig.database.execute("update queue set depth_max = $1 where name = $2", most, queue)


async def counted(supervisor: Supervisor) -> None:
    """Wait until a router that has just begun knows of the bounds: it takes any number of runs before."""
    await until(lambda: supervisor.ready("router.depth"))


async def held(rig: Rig) -> list[Any]:
    rows: list[Any] = await rig.database.fetch(
        "select id, status, reason, cause from event where status = 2 order by id"
    )
    return rows


async def test_events_beyond_the_bound_are_held_and_their_runs_made_in_order_when_there_are_fewer(rig: Rig) -> None:
    await rig.workflow("order.paid")
    await bounded(rig, 3)
    journal = rig.log()
    alerts = Alerts(rig.metrics, CLOCK)
    records = [record() for _ in range(10)]
    async with rig.router(alerts=alerts):
        await append(journal, *records[:3])
        await until(lambda: len(alerts.active()) == 1)  # full, and now it knows
        await rig.arrived(3, table="run")
        await append(journal, *records[3:])
        await rig.arrived(10)
        assert await rig.count("run") == 3
        assert {row["id"].bytes for row in await held(rig)} == {one.id for one in records[3:]}
        assert {(row["cause"], row["reason"]) for row in await held(rig)} == {
            (37, "as many runs as it may have: queue default")
        }
        for left in range(6, -1, -1):
            gone = await rig.database.fetchval(
                "delete from run where id = (select min(id) from run) returning event_id"
            )
            assert gone == UUID(bytes=records[6 - left].id), "in the order in which they came"

            async def there(left: int = left) -> bool:
                return await rig.count("deferred") == left

            await until(there)
            assert await rig.count("run") == 3
        assert not await held(rig)
        assert await rig.count("event", "status = 1 and cause is null and reason is null") == 10


async def test_another_queue_of_the_same_event_does_not_wait_and_takes_its_event_out_last(rig: Rig) -> None:
    await rig.workflow("order.paid", name="slow", queue="bulk")
    await rig.workflow("order.*", name="quick", queue="quick")
    await bounded(rig, 1, queue="bulk")
    journal = rig.log()
    async with rig.router() as supervisor:
        await counted(supervisor)
        await append(journal, record())
        await rig.arrived(2, table="run")
        await append(journal, record(), record())
        await rig.arrived(4, table="run")
        assert await rig.count("run", "queue_id = (select id from queue where name = 'quick')") == 3
        assert [row["reason"] for row in await held(rig)] == ["as many runs as it may have: queue bulk"] * 2
        await rig.database.execute("update queue set depth_max_set = 0")  # by hand: no bound
        await rig.arrived(6, table="run")
        assert not await held(rig)


async def test_tenants_take_turns_in_coming_in_and_ones_flood_keeps_nobody_out(rig: Rig) -> None:
    await rig.workflow("order.paid")
    await bounded(rig, 1)
    journal = rig.log()
    async with rig.router() as supervisor:
        await counted(supervisor)
        await append(journal, *(record(tenant="noisy") for _ in range(30)))
        await rig.arrived(30)
        await append(journal, record(tenant="quiet"))
        await rig.arrived(31)

        async def quiet() -> bool:
            await rig.database.execute("delete from run where tenant = 'noisy'")
            return await rig.count("run", "tenant = 'quiet'") == 1

        await until(quiet)
        assert await rig.count("deferred") >= 26


def test_what_batches_make_is_counted_as_they_make_it_and_beside_a_count_too() -> None:
    metrics = Metrics()
    depths = depth.Depths(None, metrics, Spells(Alerts(metrics, CLOCK), CLOCK), clock=CLOCK)  # type: ignore[arg-type]
    before = [Depth(7, "bulk", 5, waiting=False, runs=2)]  # counted before any of it was committed
    depths._saw(before)
    with depth.Taking(depths) as batch:
        for _ in range(3):
            assert not batch.full
            batch.took(7)
            batch.took(8)  # has no bound
        assert batch.full == {7: "bulk"}
        depths._saw(before)
        assert depths.full
    depths._saw(before)  # the count began before the batch ended
    assert depths.full
    depths._late.clear()  # another one begins, as in `run`
    depths._saw([Depth(7, "bulk", 5, waiting=False, runs=4)])
    assert not depths.full
    with depth.Taking(depths) as batch:
        batch.put_off.add(7)
    depths._saw([Depth(7, "bulk", 5, waiting=False, runs=4)])  # before it was committed
    assert depths.full, "or a later run would be made before one that was put off"


async def test_records_that_are_read_again_put_off_nothing_twice(rig: Rig) -> None:
    await rig.workflow("order.paid")
    await bounded(rig, 2)
    journal = rig.log()
    records = [record(key=f"k{n}") for n in range(6)]
    async with rig.router() as supervisor:
        await counted(supervisor)
        await append(journal, *records)
        await rig.arrived(6)
    await rig.database.execute("update log_position set segment = 0, \"offset\" = 0, salt = ''")
    async with rig.router() as supervisor:
        await counted(supervisor)
        await append(journal, record(key="k5", body=records[5].body), record())
        await rig.arrived(7)
        await rig.arrived(1, table="duplicate")
        assert await rig.count("run") == 2 and await rig.count("deferred") == 5
        await rig.database.execute("update queue set depth_max = null")
        await rig.arrived(7, table="run")
    assert await rig.count("run") == 7 and not await held(rig)


async def test_an_event_that_is_held_for_another_reason_stays(rig: Rig) -> None:
    await rig.workflow("order.paid")
    await bounded(rig, 1)
    journal = rig.log()
    async with rig.router() as supervisor:
        await counted(supervisor)
        await append(journal, record(), record())
        await rig.arrived(2)
        await rig.database.execute("update event set cause = 35, reason = 'revoked' where status = 2")
        await rig.database.execute("update queue set depth_max = null")
        await rig.arrived(2, table="run")
    assert [(row["status"], row["cause"]) for row in await held(rig)] == [(EventStatus.HELD, 35)]
