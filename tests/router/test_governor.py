"""One router decides for all drains, by what the store and the workers say; what is set by hand counts before it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from router.rig import Rig
from seawall.guard import Supervisor
from seawall.guard.governor import Act, Course, Reserve
from seawall.guard.spell import Spells
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import SystemClock
from seawall.kernel.metric import Metrics
from seawall.router import Settings, governor
from seawall.router.governor import DrainGovernor
from seawall.store import drain, pool
from seawall.store.drain import Done, Facts
from seawall.store.pool import Store

CLOCK = SystemClock()
SETTINGS = Settings(governor_window_s=1.0, governor_store_s=5.0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(governor, "EVERY_S", 0.05)


@pytest.fixture
async def store(rig: Rig) -> AsyncIterator[Store]:
    async with Store(pool.Settings(dsn=rig.dsn), role="test") as made:
        yield made


@contextlib.asynccontextmanager
async def governing(store: Store, settings: Settings = SETTINGS, **options: Any) -> AsyncIterator[DrainGovernor]:
    metrics = Metrics()
    alerts = options.pop("alerts", None) or Alerts(metrics, CLOCK)
    made = DrainGovernor(store, settings, clock=CLOCK, metrics=metrics, spells=Spells(alerts, CLOCK), **options)
    supervisor = Supervisor(metrics)
    supervisor.add("router.governor", made.run)
    async with supervisor:
        yield made


async def acts(rig: Rig) -> str:
    return str(await rig.database.fetchval("select act from governor"))


async def test_a_drain_rises_while_all_is_well_and_stops_at_its_goal(rig: Rig, store: Store) -> None:
    async with store.transaction() as session:
        await drain.put(session, "replay:1", Course(rate=10.0, floor=1.0, goal=12.5))
        await drain.put(session, "replay:2", Course(rate=10.0, floor=10.0, goal=10.0))
    async with governing(store, replace(SETTINGS, backlog_rate=700), spool_rate=4000):
        await until(rig, "select rate >= 12.4 from drain where name = 'replay:1'")
        await until(rig, "select rate = 12.5 from drain where name = 'replay:1'")
    assert await rig.database.fetchval("select rate from drain where name = 'replay:2'") == 10.0
    assert await rig.database.fetchval("select rate from drain where name = 'backlog'") == 700.0
    assert await rig.database.fetchval("select rate from drain where name = 'spool'") == 4000.0


async def test_a_slow_store_cuts_a_drain_and_one_at_its_floor_raises_an_alert(rig: Rig, store: Store) -> None:
    alerts = Alerts(Metrics(), CLOCK)
    async with store.transaction() as session:
        await drain.put(session, "replay:1", Course(rate=10.0, floor=5.0, goal=100.0))
    async with governing(store, replace(SETTINGS, governor_store_s=1e-6), alerts=alerts):
        await until(rig, "select rate = 5 from drain where name = 'replay:1'")
        assert await acts(rig) == "cut"
        assert "store" in str(await rig.database.fetchval("select said from governor"))
        await eventually(alerts.active)  # behind the commit that makes the rate known
    assert [alert.name for alert in alerts.active()] == ["drain-at-floor"]


async def test_one_router_decides_and_another_follows_when_it_is_gone(rig: Rig, store: Store) -> None:
    async with governing(store) as first:
        await eventually(lambda: first.leads)
        async with governing(store) as second:
            await asyncio.sleep(0.5)
            assert first.leads and not second.leads
            await rig.database.execute("update governor set owner = gen_random_uuid(), expires_at = now() + '2 s'")
            await eventually(lambda: not first.leads)
            await eventually(lambda: first.leads or second.leads)
            assert first.leads != second.leads


async def test_what_is_set_by_hand_meanwhile_stays_and_a_former_leader_writes_nothing(rig: Rig, store: Store) -> None:
    owner = uuid4()
    async with store.transaction() as session:
        await drain.put(session, "replay:1", Course(rate=10.0, floor=1.0, goal=100.0))
    assert await drain.lead(store, owner, ttl_s=5.0) == (True, None)
    (read,) = await drain.drains(store)

    async def steer(who: Any, row: drain.Drain) -> float | None:
        await drain.steer(store, who, [(row, 55.0)], act=Act.RAISE, share=0.5, said="", reserve=7.0)
        return await drain.rate(store, "replay:1")

    assert await steer(uuid4(), read) == 10.0
    async with store.transaction() as session:
        await drain.put(session, "replay:1", Course(rate=20.0, floor=1.0, goal=100.0))
    assert await steer(owner, read) == 20.0
    (read,) = await drain.drains(store)
    assert await steer(owner, read) == 55.0
    assert await drain.lead(store, owner, ttl_s=5.0) == (True, 7.0), "a reserve's level outlives who measures it"


async def test_a_drain_that_was_lifted_and_set_anew_begins_as_it_was_set(rig: Rig, store: Store) -> None:
    """A replay that is paused and resumed within a window begins slowly again, and not where it had risen to."""
    async with store.transaction() as session:
        await drain.put(session, "replay:1", Course(rate=10.0, floor=1.0, goal=12.5))
    async with governing(store):
        await until(rig, "select rate = 12.5 from drain where name = 'replay:1'")
        async with store.transaction() as session:
            await drain.lift(session, "replay:1")
            await drain.put(session, "replay:1", Course(rate=1.0, floor=1.0, goal=12.5))
            # What it was raised to, also when nobody looks before it is raised again.
            await session.execute(
                "create table raised as select 0::float8 as rate limit 0;"
                "create function note() returns trigger language plpgsql as"
                " $$ begin insert into raised values (new.rate); return new; end $$;"
                "create trigger note after update on drain for each row when (new.name = 'replay:1')"
                " execute function note()"
            )
        await until(rig, "select exists (select 1 from raised where rate > 1)")
        assert await rig.database.fetchval("select min(rate) from raised where rate > 1") == pytest.approx(1.2, abs=0.1)


async def test_wal_that_is_written_is_what_the_reserve_is_used_by(rig: Rig, store: Store) -> None:
    before = await drain.facts(store, live_s=15.0, window_s=10.0, start_s=10.0)
    await rig.database.execute(
        "create table big (x text); insert into big select repeat(md5(n::text), 30) from generate_series(1, 2000) n"
    )
    now = await drain.facts(store, live_s=15.0, window_s=10.0, start_s=10.0)
    assert now.written - before.written > 100_000
    reserve = Reserve(100_000.0, 100_000.0, 0.0).used(now.written - before.written, 1.0)
    assert reserve.level == 0.0


def test_a_breaker_that_opens_slows_down_once_and_one_that_stays_open_does_not() -> None:
    closed, open = Facts(written=0, done={}, broken=[]), Facts(written=0, done={}, broken=["http_request crm"])
    assert (governor._broken_signal(closed, open).share or 0) > 1
    assert governor._broken_signal(open, open).share == 0
    assert governor._broken_signal(open, closed).share == 0


async def test_fresh_work_that_starts_late_is_a_signal_and_a_throttled_queue_is_not_fresh(
    rig: Rig, store: Store
) -> None:
    for name, starts in (("prompt", [10] * 20), ("late", [10] * 10 + [9000] * 10), ("few", [90_000])):
        await rig.workflow(name, name=name, queue=name)
        await rig.database.execute(
            "insert into queue_sample (queue_id, worker, starts_ms, ends_ms)"
            " select id, gen_random_uuid(), $2, '{}' from queue where name = $1", name, starts,
        )  # fmt: skip
    facts = await drain.facts(store, live_s=15.0, window_s=10.0, start_s=10.0)
    assert facts.slowest == ("late", 9.0, 10.0)
    assert governor._start_signal(facts).share == pytest.approx(0.9)
    await rig.database.execute("update queue set latency_ms = 60000 where name = 'late'")
    facts = await drain.facts(store, live_s=15.0, window_s=10.0, start_s=0.02)
    assert facts.slowest == ("prompt", 0.01, 0.02), "what is late by its own target counts"
    await rig.database.execute(
        "insert into drain (name, queue_id, rate, floor, goal) select 'queue:late', id, 1, 1, 1 from queue"
        " where name = 'late'"
    )
    assert (await drain.facts(store, live_s=15.0, window_s=10.0, start_s=10.0)).slowest == ("prompt", 0.01, 10.0)


def test_failures_are_a_share_of_what_the_same_workers_tried_in_the_window() -> None:
    one, two = uuid4(), uuid4()
    before = {one: Done(1000, 100)}
    now = {one: Done(1100, 105), two: Done(5000, 5000)}
    assert governor._failed_signal(before, now, Settings(governor_failed_share=0.1)).share == pytest.approx(0.5)
    assert governor._failed_signal(before, {one: Done(1010, 110)}, Settings()).share == 0, "ten say nothing"
    assert governor._failed_signal(before, {one: Done(50, 50)}, Settings()).share == 0, "it began anew"


def test_a_commit_that_fails_is_beyond_every_limit_and_no_commit_says_nothing() -> None:
    assert (governor._store_signal(None, SETTINGS).share or 0) > 1
    assert governor._store_signal([], SETTINGS).share is None
    assert governor._store_signal([0.1, 9.0, 2.5], SETTINGS).share == pytest.approx(0.5)


async def until(rig: Rig, sql: str) -> None:
    async with asyncio.timeout(20.0):
        while not await rig.database.fetchval(sql):
            await asyncio.sleep(0.05)


async def eventually(check: Any) -> None:
    async with asyncio.timeout(10.0):
        while not check():
            await asyncio.sleep(0.02)
