"""Each moment of a schedule has one run, whoever is there to begin it, and none while the former one goes on."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from seawall import App, Context, Event
from seawall.guard import Supervisor
from seawall.guard.spell import Spells
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import SystemClock
from seawall.kernel.error import Rejected, Unavailable
from seawall.kernel.metric import Metrics
from seawall.kernel.placement import COST
from seawall.store import cron, pool
from seawall.store.change import Author
from seawall.store.pool import Store
from seawall.worker import cancel as looking
from seawall.worker import cron as crons
from worker.rig import QUICK, Rig

START = datetime.now(UTC)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crons, "LOOK_S", 0.05)
    monkeypatch.setattr(crons, "SYNC_S", 0.2)
    monkeypatch.setattr(looking, "LOOK_S", 0.05)


def ticking(app: App, begun: list[Event], **given: Any) -> asyncio.Event:
    go = asyncio.Event()

    @app.cron("0 3 1 1 *", tz="Europe/Berlin", **given)
    async def tick(event: Event, ctx: Context) -> None:
        begun.append(event)
        await go.wait()

    return go


async def due(rig: Rig, *, ago_s: int = 1) -> None:
    """Have a moment of each schedule pass, each time another one."""
    await rig.until(lambda: rig.db.fetchval("select count(*) from cron_line"))
    await rig.db.execute(
        "update cron_line set moment = $1::timestamptz - $2 * interval '1 second', due_at = now()", START, ago_s
    )


async def ended(rig: Rig, count: int) -> list[asyncpg.Record]:
    await rig.until(lambda: rig.db.fetchval("select count(*) = $1 from run_done", count))
    rows: list[asyncpg.Record] = await rig.db.fetch("select * from run_done order by id")
    return rows


async def sources(rig: Rig, tenants: Sequence[str]) -> None:
    for tenant in tenants:
        await rig.db.execute(
            "insert into source (id, name, kind, tenant, token_hash, settings, version)"
            " values ($1, $2, 'none', $2, $3, '{}', 1)", uuid.uuid4(), tenant, uuid.uuid4().bytes,
        )  # fmt: skip


async def test_a_moment_begins_a_run_and_the_next_one_is_known(rig: Rig) -> None:
    app, begun = App(), list[Event]()
    go = ticking(app, begun, catch_up="one")
    go.set()
    async with rig.running(app):
        await due(rig)
        (row,) = await ended(rig, 1)
        line = await rig.db.fetchrow("select * from cron_line")
    (event,) = begun
    assert event.type == "cron.tick" and event.tenant == "default" and event.source == ":cron"
    assert event.json["cron"] == "tick" and "T" in event.json["moment"] and event.json["last"] is None
    assert row["status"] == 5 and line["run_id"] == row["id"] and line["begun"] == 1
    assert await rig.db.fetchval("select moment > now() and due_at = moment from cron_line")


async def test_how_often_schedules_are_looked_at_may_be_changed_while_it_runs(rig: Rig) -> None:
    app = App()
    ticking(app, [])
    async with rig.worker(app) as worker:
        worker.reload(replace(QUICK, timer_s=0.2))
        assert worker._crons._look_s() == 0.4


async def test_each_look_at_schedules_asks_how_soon_the_next_one_is() -> None:
    asked, thrice = list[None](), asyncio.Event()

    def look_s() -> float:
        asked.append(None)
        if len(asked) == 3:
            thrice.set()
        return 0.0

    metrics, clock = Metrics(), SystemClock()
    async with Store(pool.Settings(dsn="postgresql://nobody@127.0.0.1:1/none"), role="test") as store:
        spells = Spells(Alerts(metrics, clock), clock)
        made = crons.Crons(store, [], metrics, clock=clock, spells=spells, ready=lambda: True, look_s=look_s)
        supervisor = Supervisor(metrics)
        supervisor.add("worker.cron", made.run)
        async with supervisor, asyncio.timeout(20):
            await thrice.wait()


async def test_of_many_workers_one_begins_each_moment(rig: Rig) -> None:
    """For many tenants at once, each of which has its own place between two moments."""
    app, begun = App(), list[Event]()
    go = ticking(app, begun, per_tenant=True)
    go.set()
    await rig.registered(app)
    tenants = [f"t{n}" for n in range(30)]
    await sources(rig, tenants)
    async with rig.running(app), rig.worker(app), rig.worker(app):
        await rig.until(lambda: rig.db.fetchval("select count(*) = 30 from cron_line"))
        assert await rig.db.fetchval("select count(distinct due_at) from cron_line") == 30
        for count, ago_s in ((30, 3), (60, 2)):
            await due(rig, ago_s=ago_s)
            await ended(rig, count)
        await rig.db.execute("update source set removed_at = now() where name = 't7'")
        await rig.until(lambda: rig.db.fetchval("select count(*) = 29 from cron_line"))
    assert sorted(event.tenant for event in begun) == sorted(tenants * 2)
    assert await rig.db.fetchval("select count(distinct (tenant, moment)) from cron_moment") == 60


async def test_work_that_takes_longer_than_its_schedule_never_piles_up(rig: Rig) -> None:
    app, begun = App(), list[Event]()
    go = ticking(app, begun)
    async with rig.running(app):
        await due(rig, ago_s=5)
        await rig.until(lambda: begun)
        for count, ago_s in enumerate((4, 3, 2), start=1):
            await due(rig, ago_s=ago_s)
            await rig.until(lambda count=count: rig.db.fetchval("select skipped >= $1 from cron_line", count))
        assert len(begun) == 1 and await rig.db.fetchval("select count(*) from run") == 1
        go.set()
        await ended(rig, 1)
        await due(rig)
        await ended(rig, 2)
    assert begun[1].json["last"] == begun[0].json["moment"]


async def test_the_former_run_is_cancelled_or_waited_for_as_the_schedule_says(rig: Rig) -> None:
    app, begun = App(), list[Event]()
    go = ticking(app, begun, overlap="cancel")

    @app.cron("0 3 1 1 *", overlap="queue")
    async def patient(event: Event, ctx: Context) -> str:
        await ctx.step(go.wait)
        moment: str = event.json["moment"]
        return moment

    async with rig.running(app):
        for ago_s in (3, 2):
            await due(rig, ago_s=ago_s)
            await rig.until(lambda: rig.db.fetchval("select bool_and(due_at > now()) from cron_line"))
        cancelled = (await ended(rig, 1))[0]
        assert (cancelled["status"], cancelled["error"]) == (7, crons.OVERTAKEN)
        assert await rig.db.fetchval("select blocked from cron_line where name = 'patient'")
        assert await rig.db.fetchval("select begun from cron_line where name = 'patient'") == 1
        go.set()
        done = await ended(rig, 4)
    assert sorted(row["status"] for row in done) == [5, 5, 5, 7]
    assert await rig.db.fetchval("select not blocked and begun = 2 from cron_line where name = 'patient'")


async def test_a_moment_is_one_run_though_its_worker_fails_in_the_middle_or_its_line_goes_back(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, begun, go_on = App(), list[Event](), cron.go_on
    go = ticking(app, begun)
    go.set()
    failures = 2

    async def fails(*given: Any) -> None:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise Unavailable("PostgreSQL", "cut off")
        await go_on(*given)

    monkeypatch.setattr(cron, "go_on", fails)
    async with rig.running(app):
        await due(rig)
        await ended(rig, 1)
        assert failures < 0
        await due(rig)
        await rig.until(lambda: rig.db.fetchval("select due_at > now() from cron_line"))
    assert len(begun) == 1
    assert (
        await rig.db.fetchval("select count(*) from event")
        == 1
        == await rig.db.fetchval("select count(*) from run_done")
    )


async def test_a_paused_schedule_is_still_paused_when_its_workflow_comes_back(rig: Rig) -> None:
    """It went away with its workflow, and what came back with the next deploy began runs that somebody had stopped."""
    tick = cron.Declared("tick", "* * * * *", "UTC", "skip", "one", "default")
    app = App()
    ticking(app, [])
    await rig.registered(app)
    async with Store(pool.Settings(dsn=rig.database.dsn), role="test") as store:
        await cron.declare(store, [tick, tick._replace(name="other")])
        author = Author("ann", SystemClock())
        await cron.pause(store, "tick", author, paused=True, timeout_s=5)
        await rig.db.execute("update workflow set active = false")
        await cron.declare(store, [tick._replace(name="third")])
        assert [(line.name, line.paused) for line in await cron.page(store, timeout_s=5)] == [
            ("third", False), ("tick", True),
        ]  # fmt: skip
        await rig.db.execute("update workflow set active = true")
        await cron.declare(store, [tick])
        assert [(line.name, line.paused) for line in await cron.page(store, timeout_s=5)] == [("tick", True)]
        await cron.pause(store, "tick", author, paused=False, timeout_s=5)
        await rig.db.execute("update workflow set active = false")
        await cron.declare(store, [tick._replace(name="third")])
        assert [line.name for line in await cron.page(store, timeout_s=5)] == ["third"]


async def test_a_schedule_stands_still_while_it_is_paused_and_begins_by_hand(rig: Rig) -> None:
    app, begun, clock = App(), list[Event](), SystemClock()
    go = ticking(app, begun, catch_up="all")
    go.set()
    author = Author("alice", clock)
    async with rig.running(app), Store(pool.Settings(dsn=rig.database.dsn), role="test") as store:
        await rig.until(lambda: rig.db.fetchval("select count(*) from cron_line"))
        assert await cron.pause(store, "tick", author, paused=True, timeout_s=5) == ("on", "paused")
        await due(rig, ago_s=20)
        await rig.until(lambda: rig.db.fetchval("select due_at > now() from cron_line"))
        (shown,) = await cron.page(store, timeout_s=5)
        assert (shown.paused, shown.begun, shown.missed, shown.lines) == (True, 0, 0, 1)
        assert await cron.pause(store, "tick", author, paused=False, timeout_s=5) == ("paused", "on")
        with pytest.raises(Rejected):
            await cron.pause(store, "no such", author, paused=True, timeout_s=5)
        async with store.transaction() as session:
            line = await cron.one(session, "tick", None)
            run = cron.Begin("tick", line["tenant"], line["now_us"], rig.ids.next(), b'{"moment": "now"}')
            assert len(await cron.begin(session, [run])) == 1
        await ended(rig, 1)
    assert [event.json for event in begun] == [{"moment": "now"}]


async def test_a_clock_that_leapt_and_came_back_makes_no_schedule_stand_still(rig: Rig) -> None:
    app, begun = App(), list[Event]()
    ticking(app, begun).set()
    async with rig.running(app):
        await due(rig)
        await ended(rig, 1)
        await rig.db.execute(
            "update cron_line set moment = moment + interval '3 years', due_at = due_at + interval '3 years'"
        )
        await rig.until(lambda: rig.db.fetchval("select due_at < now() + interval '366 days' from cron_line"))
    assert len(begun) == 1


async def test_a_moment_that_has_come_has_its_run_though_the_schedule_is_changed_before_anybody_looks(rig: Rig) -> None:
    """It came while a deploy was under way, whose workers declare another schedule."""
    before, app, begun = App(), App(), list[Event]()
    ticking(before, begun).set()
    async with rig.running(before):
        await rig.until(lambda: rig.db.fetchval("select count(*) from cron_line"))
    await due(rig, ago_s=3)
    ticking(app, begun, catch_up="all", overlap="queue").set()
    async with rig.running(app):
        await ended(rig, 1)
    assert await rig.db.fetchval("select begun = 1 and moment > now() from cron_line")


async def test_a_schedule_that_was_changed_goes_by_the_new_one_and_one_that_is_gone_goes(rig: Rig) -> None:
    app, begun = App(), list[Event]()
    ticking(app, begun).set()
    async with rig.running(app):
        await rig.until(lambda: rig.db.fetchval("select count(*) from cron_line"))
    changed = App()

    @changed.cron("30 4 * * *", tz="Asia/Kathmandu", tenant="acme")
    async def tick(event: Event, ctx: Context) -> None: ...

    async with rig.running(changed):
        local = "select to_char(moment at time zone 'Asia/Kathmandu', 'HH24:MI') || tenant from cron_line"
        await rig.until(lambda: rig.db.fetchval("select count(*) = 1 and min(tenant) = 'acme' from cron_line"))
        assert await rig.db.fetchval(local) == "04:30acme"
    await rig.db.execute("delete from worker; update workflow set active = false")  # no worker has had it for a day
    other = App()

    @other.cron("* * * * *")
    async def tock(event: Event, ctx: Context) -> None: ...

    async with rig.running(other):
        await rig.until(lambda: rig.db.fetchval("select array_agg(name) = '{tock}' from cron_line"))
        assert await rig.db.fetchval("select array_agg(name) from cron") == ["tock"]


async def test_who_looks_while_another_one_begins_a_run_sees_that_it_goes_on(rig: Rig) -> None:
    """Forced order: the second's statement has its snapshot, the first commits a run of a line that is due still."""
    app = App()
    ticking(app, list[Event](), catch_up="all").set()
    async with rig.running(app):
        await rig.until(lambda: rig.db.fetchval("select count(*) from cron_line"))
    await rig.db.execute("update cron_line set due_at = now() - interval '1 second'")
    await rig.db.execute(
        "create function public.now() returns timestamptz language plpgsql volatile as"
        " $$ begin perform pg_advisory_xact_lock_shared(7); return pg_catalog.now(); end $$"
    )
    gate = await asyncpg.connect(rig.database.dsn)
    async with Store(pool.Settings(dsn=rig.database.dsn), role="test") as store, gate.transaction():
        await gate.execute("select pg_advisory_xact_lock(7)")
        await gate.execute(
            "insert into run (id, event_id, workflow_id, tenant, queue_id, shard, vt)"
            " values (999, gen_random_uuid(), 1, 'x', 1, 0, 0); update cron_line set run_id = 999"
        )
        async with store.transaction() as session:
            await session.execute("select set_config('search_path', 'public, pg_catalog', true)")
            looking = asyncio.create_task(cron.due(session, ["tick"]))
            await rig.until(lambda: rig.db.fetchval("select count(*) from pg_locks where not granted"))
            await gate.execute("commit; begin")
            rows, running = await looking
    assert [row["run_id"] for row in rows] == [999] and running == {999}
    await gate.close()


async def test_a_workflow_isnt_frozen_between_the_look_at_a_moment_and_its_run(rig: Rig) -> None:
    """Forced order. The moment would pass without a run, and without being counted."""
    app = App()
    ticking(app, list[Event]()).set()
    async with rig.running(app):
        await rig.until(lambda: rig.db.fetchval("select count(*) from cron_line"))
    await rig.db.execute("update cron_line set moment = now(), due_at = now()")
    async with Store(pool.Settings(dsn=rig.database.worker_dsn), role="test") as store:
        async with store.transaction() as session:
            ((line,), _) = await cron.due(session, ["tick"])
            freezing = await asyncpg.connect(rig.database.dsn)
            frozen = asyncio.create_task(freezing.execute("update workflow set frozen = true"))
            await rig.until(lambda: rig.db.fetchval("select count(*) from pg_locks where not granted"))
            run = cron.Begin("tick", line["tenant"], line["moment_us"], rig.ids.next(), b"{}")
            assert len(await cron.begin(session, [run])) == 1
        await frozen
        async with store.transaction() as session:
            assert await cron.due(session, ["tick"]) == ([], set())
        await rig.db.execute("update workflow set frozen = false")
        async with store.transaction() as session, freezing.transaction():
            await freezing.execute("update workflow set frozen = true")
            assert await cron.due(session, ["tick"]) == ([], set()), "nobody waits for it"
    await freezing.close()


async def test_a_moment_begins_behind_what_its_queue_has_served_and_one_turn_behind_another(
    rig: Rig, store: Store
) -> None:
    """Where nothing was ready, it went before all that anybody had there from then on."""
    app = App()
    ticking(app, list[Event]()).set()
    async with rig.running(app):
        await rig.until(lambda: rig.db.fetchval("select count(*) from cron_line"))
    await rig.db.execute("update shard_lease set begun_vt = 5000 * $1::bigint", COST)
    async with store.transaction() as session:
        await cron.begin(session, [cron.Begin("tick", "default", us, rig.ids.next(), b"{}") for us in (1, 2)])
    rows = await rig.db.fetch("select vt from run order by vt")
    assert [row["vt"] for row in rows] == [5001 * COST, 5002 * COST]
