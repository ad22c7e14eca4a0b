"""Incident I5: after an outage, fresh events waited behind the backlog. Here they start as fast as ever meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncIterator

import pytest

from router.rig import CLOCK, Rig, append, opened, record, until
from seawall.kernel.seam.journal import Position
from seawall.store import position
from seawall.store.pool import Settings, Store
from seawall.testing import ManualClock, MemoryJournal
from seawall.testing.postgres import Database

MINUTE_US = 60_000_000


@pytest.fixture
async def rig(database: Database) -> AsyncIterator[Rig]:
    async with opened(database) as rig:
        yield rig


async def time_to_start_ms(rig: Rig, journal: MemoryJournal, count: int) -> float:
    """Median time from a record's sync to the notice that its run is there."""
    told = asyncio.Event()
    queue_id = await rig.database.fetchval("select id from queue where name = 'fresh'")

    def hear(_connection: object, _pid: int, _channel: str, payload: object) -> None:
        if str(queue_id) in [pair.split(":")[0] for pair in str(payload).split(",")]:
            told.set()

    await rig.database.add_listener("seawall_run", hear)
    took_ms = []
    for _ in range(count):
        told.clear()
        await append(journal, record(body=b'{"type":"fresh"}'))
        began = time.perf_counter()
        async with asyncio.timeout(10.0):
            await told.wait()
        took_ms.append((time.perf_counter() - began) * 1000)
    await rig.database.remove_listener("seawall_run", hear)
    return statistics.median(took_ms)


@pytest.mark.slow
async def test_fresh_events_are_as_fast_as_ever_while_a_backlog_drains(rig: Rig) -> None:
    await rig.workflow("old", name="old")
    await rig.workflow("fresh", name="fresh", queue="fresh")
    journal = rig.log(records_max=100_000, segment_bytes_max=256 * 1024)
    async with rig.router():
        await time_to_start_ms(rig, journal, 20)
        healthy_ms = await time_to_start_ms(rig, journal, 100)
    backlog = 18_000  # a minute at 300/s
    old_us = CLOCK.wall_us() - MINUTE_US
    await append(journal, *[record(body=b'{"type":"old"}', received_us=old_us) for _ in range(backlog)])
    began = time.monotonic()
    async with rig.router():
        await until(lambda: rig.number("seawall_router_splits_total") == 1, timeout_s=5.0)
        # The best of three windows, since tests share their machine: one that is in the way is so in each.
        draining_ms = min([await time_to_start_ms(rig, journal, 50) for _ in range(3)])
        took_s = time.monotonic() - began
        left = backlog - await rig.count("event", "type = 'old'")
        assert took_s < 5.0, "the claim is about the first five seconds"
        assert left > 0, "the backlog was gone before anything was measured"
        # 2 ms of grace: one scheduling delay on a machine of two busy cores.
        assert draining_ms <= 2 * healthy_ms + 2, f"{draining_ms:.1f} ms, healthy {healthy_ms:.1f} ms, {left} left"
        assert rig.number("seawall_router_lag_seconds") > 50
        await rig.arrived(backlog, timeout_s=60.0)

        async def one_range() -> bool:
            return await rig.count("log_position") == 1

        await until(one_range)
    assert await rig.count("event") == backlog + 270
    assert await rig.count("run") == backlog + 270


async def test_a_backlog_keeps_to_its_rate(rig: Rig) -> None:
    journal = rig.log()
    old_us = CLOCK.wall_us() - MINUTE_US
    await append(journal, *[record(received_us=old_us) for _ in range(1000)])
    began = time.monotonic()
    async with rig.router(batch_records=10, backlog_rate=400, backlog_batch=20):
        await rig.arrived(800)
        assert time.monotonic() - began > 800 / 400 * 0.9
        await rig.arrived(1000)


async def test_a_short_lag_is_routed_straight_on(rig: Rig) -> None:
    journal = rig.log()
    await append(journal, *[record(received_us=CLOCK.wall_us() - MINUTE_US) for _ in range(400)])
    async with rig.router():
        await rig.arrived(400)
    assert rig.number("seawall_router_splits_total") == 0


async def test_ranges_pile_up_to_their_limit_and_all_are_drained(rig: Rig) -> None:
    journal = rig.log(segment_bytes_max=2000)
    clock = ManualClock(wall_us=CLOCK.wall_us())
    async with rig.router(clock=clock, batch_records=5, backlog_rate=1, ranges_max=3, lag_split_s=10.0):
        for splits in (1, 2):
            await append(journal, *[record(received_us=clock.wall_us() - MINUTE_US) for _ in range(50)])
            await until(lambda splits=splits: rig.number("seawall_router_splits_total") == splits)
        await append(journal, *[record(received_us=clock.wall_us() - MINUTE_US) for _ in range(50)])
        await rig.arrived(50)
        assert await rig.count("log_position") == 3
    async with rig.router(clock=clock, batch_records=5, backlog_rate=1000, backlog_batch=30):
        # A clock that stands still allows one burst; then nothing.
        await rig.arrived(50 + 30)
    async with rig.router(backlog_rate=100_000):
        await rig.arrived(150)
        await until(lambda: rig.number("seawall_router_ranges_count") == 1)
    assert await rig.count("log_position") == 1


async def test_the_newest_of_the_older_ranges_goes_first(rig: Rig) -> None:
    journal = rig.log()
    places = [Position(journal.log_id, 1, 64)]
    for type in (b"oldest", b"older"):
        places += (await append(journal, *[record(body=b'{"type":"%b"}' % type) for _ in range(40)]))[-1:]
    async with Store(Settings(dsn=rig.dsn), role="test") as store:
        await position.begin(store, places[0])
        for start, end in itertools.pairwise(places):
            newest = (await position.ranges(store, journal.log_id))[-1]
            assert newest.at == start
            await position.split(store, newest, end)
    async with rig.router(backlog_rate=40, backlog_batch=40):
        await rig.arrived(40)
        assert await rig.count("event", "type = 'older'") == 40
        await rig.arrived(80)


async def test_a_backlog_that_is_switched_off_stays_whole_while_fresh_events_go_on(rig: Rig) -> None:
    """Incident I5: the backlog was drained into a second outage, and nobody could hold it back."""
    journal, on = rig.log(), [False]

    def draining(*, tenant: str = "", source: str = "") -> bool:
        return on[0]

    await append(journal, *[record(body=b'{"type":"old"}', received_us=CLOCK.wall_us() - MINUTE_US) for _ in range(30)])
    async with rig.router(batch_records=5, draining=draining, backlog_rate=100_000) as supervisor:
        await until(lambda: rig.number("seawall_router_splits_total") == 1)
        for n in range(1, 6):
            await append(journal, record(body=b'{"type":"fresh"}'))
            await rig.arrived(n)
        assert await rig.count("event", "type = 'old'") == 0
        assert all(loop.ready for loop in supervisor.health()), "it is no trouble of the router's"
        on[0] = True
        await rig.arrived(35)
    assert await rig.count("event", "type = 'old'") == 30


async def test_what_waits_is_told_while_nobody_knows_how_much_is_routed(rig: Rig) -> None:
    """The lag was 0 then, which said that all was read."""
    journal = rig.log()
    await append(journal, record())
    async with rig.router():
        await rig.arrived(1)
        await until(lambda: rig.number("seawall_router_ranges_count") == 1)
        async with rig.database.transaction():
            await rig.database.execute("lock table log_position in access exclusive mode")
            await append(journal, record())
            await until(lambda: rig.number("seawall_router_ranges_count") == 0, timeout_s=10)
            await until(lambda: rig.number("seawall_router_lag_seconds") > 0.5)
        await rig.arrived(2)
        await until(lambda: rig.number("seawall_router_lag_seconds") == 0)
