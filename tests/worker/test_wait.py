"""A run that waits holds no slot, begins again where it was, and is late by little."""

from __future__ import annotations

import asyncio
import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from seawall import App, Context, Event, Retry
from seawall.kernel.metric import Metrics
from seawall.store import pool
from seawall.store.flush import Again, Rows, flush
from seawall.store.run import prepare
from seawall.store.statement import statements
from seawall.worker import execution
from worker.rig import Rig

AWAY = "select state = 1 and run_after > now() + interval '1 minute' from run where id = $1"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a run away also for a moment, so that no test has to wait long."""
    monkeypatch.setattr(execution, "REST_S", 0.02)


async def state_of(rig: Rig, run: int) -> tuple[int, int] | None:
    row = await rig.db.fetchrow("select state, waits from run where id = $1", run)
    return None if row is None else (row["state"], row["waits"])


async def test_a_run_that_sleeps_holds_no_slot_and_repeats_no_step(rig: Rig) -> None:
    app, calls, metrics = App(), [], Metrics()

    @app.workflow(on="test.thing")
    async def patient(event: Event, ctx: Context) -> Any:
        calls.append("called")
        await ctx.step(calls.append, "before", name="before")
        await ctx.sleep(minutes=30)
        await ctx.step(calls.append, "after", name="after")
        return "awake"

    async with rig.running(app, metrics=metrics) as worker:
        (run,) = await rig.add("patient", [{}])
        await rig.until(lambda: _is(rig, run, (1, 1)))
        await rig.until(lambda: worker._bench.count == 0)
        left = await rig.db.fetchval("select run_after - now() from run where id = $1", run)
        assert timedelta(minutes=29) < left <= timedelta(minutes=30, seconds=1)
        assert await rig.db.fetchval("select count(*) from refill") == 0
        # The moment is by the store's clock: when that has come to it, the run goes on.
        await let_pass(rig, run)
        done = (await rig.ended([run]))[run]
    assert (done["status"], done["result"], done["attempt"]) == (5, b'"awake"', 1)
    assert calls == ["called", "before", "called", "after"]


async def _is(rig: Rig, run: int, wanted: tuple[int, int]) -> bool:
    return await state_of(rig, run) == wanted


async def let_pass(rig: Rig, run: int) -> None:
    """As if the run's time had come: what it remembers and when it is woken move into the past."""
    rows = await rig.db.fetch("select name, nth from step where run_id = $1 and name like 'ctx.sleep%'", run)
    for row in rows:
        await rig.db.execute(
            "update step set result = $4 where run_id = $1 and name = $2 and nth = $3",
            run, row["name"], row["nth"], json.dumps({"until_us": 1}).encode(),
        )  # fmt: skip
    await rig.db.execute("update run set run_after = now() where id = $1", run)


async def test_sleeps_end_in_order_each_at_its_time(rig: Rig) -> None:
    app, woke = App(), []

    @app.workflow(on="test.thing")
    async def thrice(event: Event, ctx: Context) -> None:
        begin = await ctx.step(lambda: datetime.now(UTC).timestamp(), name="begin")
        for _ in range(3):
            await ctx.sleep(0.2)
        woke.append(datetime.now(UTC).timestamp() - begin)

    async with rig.running(app):
        (run,) = await rig.add("thrice", [{}])
        await rig.ended([run])
        assert await rig.db.fetchval("select count(*) from step where run_id = $1 and name = 'ctx.sleep'", run) == 3
    assert len(woke) == 1 and woke[0] >= 0.6


async def test_a_sleep_beside_a_step_waits_for_the_step(rig: Rig) -> None:
    app, go, calls = App(), asyncio.Event(), []

    async def slow() -> int:
        calls.append("step")
        await go.wait()
        return 7

    @app.workflow(on="test.thing")
    async def both(event: Event, ctx: Context) -> Any:
        calls.append("called")
        _, value = await asyncio.gather(ctx.sleep(hours=1), ctx.step(slow))
        return value

    async with rig.running(app):
        (run,) = await rig.add("both", [{}])
        await rig.until(lambda: "step" in calls)
        await asyncio.sleep(0.1)  # long enough to be put away, were the step not seen
        assert await state_of(rig, run) == (0, 0)
        go.set()
        await rig.until(lambda: _is(rig, run, (1, 1)))
        await let_pass(rig, run)
        done = (await rig.ended([run]))[run]
    assert done["result"] == b"7"
    assert calls == ["called", "step", "called"]


async def test_of_several_sleeps_the_first_that_ends_wakes_the_run(rig: Rig) -> None:
    app, seen = App(), []

    @app.workflow(on="test.thing")
    async def several(event: Event, ctx: Context) -> Any:
        async def one(name: str, seconds: float) -> str:
            await ctx.sleep(seconds)
            await ctx.step(seen.append, name, name=name)
            return name

        return await asyncio.gather(one("late", 3600), one("early", 0.15))

    async with rig.running(app):
        (run,) = await rig.add("several", [{}])
        await rig.until(lambda: seen == ["early"])
        await rig.until(lambda: rig.db.fetchval(AWAY, run))
        await let_pass(rig, run)
        done = (await rig.ended([run]))[run]
    assert done["result"] == b'["late","early"]'
    assert seen == ["early", "late"]


async def test_a_task_that_does_something_else_keeps_its_run_in_hand(rig: Rig) -> None:
    app, go, began = App(), asyncio.Event(), asyncio.Event()

    @app.workflow(on="test.thing")
    async def busy(event: Event, ctx: Context) -> Any:
        async def elsewhere() -> int:
            began.set()
            await go.wait()
            return await ctx.step(lambda: 1, name="one")

        other = asyncio.create_task(elsewhere())
        await ctx.sleep(0.1)
        return await other

    async with rig.running(app):
        (run,) = await rig.add("busy", [{}])
        await began.wait()
        await asyncio.sleep(0.3)
        assert await state_of(rig, run) == (0, 0)
        go.set()
        assert (await rig.ended([run]))[run]["result"] == b"1"


async def test_a_sleeping_run_outlives_its_worker(rig: Rig) -> None:
    app, calls = App(), []

    @app.workflow(on="test.thing", retry=Retry(attempts=2, first_s=0))
    async def patient(event: Event, ctx: Context) -> Any:
        await ctx.step(calls.append, "before", name="before")
        await ctx.sleep(days=2)
        if ctx.attempt == 1:
            raise ConnectionError("tried again, without another sleep")
        return "awake"

    async with rig.running(app):
        (run,) = await rig.add("patient", [{}])
        await rig.until(lambda: _is(rig, run, (1, 1)))
    await let_pass(rig, run)
    async with rig.running(app):
        done = (await rig.ended([run]))[run]
    assert (done["result"], done["attempt"], calls) == (b'"awake"', 2, ["before"])


async def test_what_is_cut_off_by_waiting_ends_at_once_and_takes_no_step(rig: Rig) -> None:
    app, ends = App(), []

    @app.workflow(on="test.thing")
    async def tidy(event: Event, ctx: Context) -> None:
        try:
            await ctx.sleep(hours=1)
        finally:
            ends.append("finally")
            await ctx.step(ends.append, "step", name="cleanup")

    async with rig.running(app) as worker:
        (run,) = await rig.add("tidy", [{}])
        await rig.until(lambda: _is(rig, run, (1, 1)))
        await rig.until(lambda: worker._bench.count == 0)
        await rig.until(lambda: ends == ["finally"])
        await let_pass(rig, run)
        await rig.ended([run])
    assert ends == ["finally", "finally", "step"]
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "run"]


async def test_a_step_can_not_sleep_and_says_so(rig: Rig) -> None:
    app = App()

    @app.workflow(on="test.thing", retry=Retry(attempts=1))
    async def wrong(event: Event, ctx: Context) -> None:
        async def step() -> None:
            await ctx.sleep(5)

        await ctx.step(step)

    async with rig.running(app):
        (run,) = await rig.add("wrong", [{}])
        done = (await rig.ended([run]))[run]
    assert done["status"] == 6 and "let the workflow wait between two steps" in done["error"]


async def test_a_wait_that_is_sent_twice_counts_once(rig: Rig) -> None:
    app = App()

    @app.workflow(on="test.thing")
    async def idle(event: Event, ctx: Context) -> None:
        await ctx.sleep(hours=1)

    async with rig.running(app) as worker:
        (run,) = await rig.add("idle", [{}])
        await rig.until(lambda: _is(rig, run, (1, 1)))
        lease = worker._leases.held()[0].lease
        async with (
            pool.Store(pool.Settings(dsn=rig.database.worker_dsn), role="test") as store,
            store.own_connection() as session,
        ):
            await prepare(session)
            await rig.db.execute("update run set state = 3 where id = $1", run)
            again = Again(run, 0, 5, 1, 0, failed=False)
            assert await flush(session, Rows(leases=[lease], agains=[again]), again=True) is None
        assert await state_of(rig, run) == (3, 1)


async def test_many_sleepers_wake_whatever_is_in_hand(rig: Rig) -> None:
    app = App()
    chance = random.Random(7)

    @app.workflow(on="test.thing")
    async def nap(event: Event, ctx: Context) -> Any:
        await ctx.sleep(event.json["seconds"])
        return event.json["n"]

    async with rig.running(app, metrics=(metrics := Metrics())):
        bodies = [{"n": n, "seconds": chance.uniform(0.5, 1.0)} for n in range(300)]
        runs = await rig.add("nap", bodies)
        done = await rig.ended(runs, timeout_s=30)
    assert {json.loads(row["result"]) for row in done.values()} == set(range(300))
    put_away = [s.value for s in metrics.samples() if s.name == "seawall_runs_put_away_total"]
    assert sum(put_away) >= 250


async def test_a_step_that_pauses_before_its_next_try_is_not_put_away_by_a_task_that_sleeps(rig: Rig) -> None:
    app, tries = App(), []

    def careless() -> int:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError("not yet")
        return len(tries)

    @app.workflow(on="test.thing")
    async def reminded(event: Event, ctx: Context) -> Any:
        reminder = asyncio.create_task(ctx.sleep(hours=1))
        value = await ctx.step(careless, retry=Retry(attempts=3, first_s=0.2))
        reminder.cancel()
        return value

    async with rig.running(app):
        (run,) = await rig.add("reminded", [{}])
        assert (await rig.ended([run]))[run]["result"] == b"3"


async def test_runs_of_a_queue_that_nobody_serves_cost_the_others_nothing(rig: Rig) -> None:
    """They are due for hours, and more of them than could be read over twice a second."""
    app = App()

    @app.workflow(on="test.thing")
    async def nap(event: Event, ctx: Context) -> None:
        await ctx.sleep(0.1)

    await rig.registered(app)
    await rig.db.execute(
        "insert into run (id, event_id, workflow_id, tenant, queue_id, shard, state, vt, run_after)"
        " select -n, gen_random_uuid(), 0, 'x', 999, 0, 1, 0, now() - interval '1 hour' from generate_series(1, 9999) n"
    )
    await rig.db.execute("analyze run")
    sql = statements("worker")["wake"]
    for n, value in enumerate(("'{1}'", "100", "100000", "100000", "'{1}'", "'{x}'", "'{1}'"), start=1):
        sql = sql.replace(f"${n}", value)
    plan = "\n".join(row[0] for row in await rig.db.fetch(f"explain (analyze, costs off, timing off) {sql}"))
    assert "run_due" in plan and "Removed" not in plan, plan
    async with rig.running(app):
        await rig.ended(await rig.add("nap", [{}] * 5))


async def test_putting_runs_away_and_waking_them_lock_them_in_one_order(rig: Rig) -> None:
    """An event that many runs wait for, in the moment in which they are put away."""
    app = App()

    @app.workflow(on="test.thing")
    async def idle(event: Event, ctx: Context) -> None:
        await ctx.sleep(hours=1)

    async with rig.running(app) as worker:
        low, high = sorted(await rig.add("idle", [{}] * 2))
        await rig.until(lambda: _is(rig, low, (1, 1)))
        await rig.until(lambda: _is(rig, high, (1, 1)))
        leases = [held.lease for held in worker._leases.held()]
        router = await asyncpg.connect(rig.database.dsn)
        async with (
            pool.Store(pool.Settings(dsn=rig.database.worker_dsn), role="test") as store,
            store.own_connection() as session,
        ):
            await prepare(session)
            async with router.transaction():
                await router.execute("select 1 from run where id = $1 for update", low)
                agains = [Again(run, 0, 5, 2, 0, failed=False) for run in (high, low)]
                flushing = asyncio.create_task(flush(session, Rows(leases=leases, agains=agains), again=True))
                await rig.until(lambda: rig.db.fetchval("select count(*) from pg_locks where not granted"))
                await router.execute("select 1 from run where id = $1 for update", high)
            assert await flushing is None
        await router.close()
