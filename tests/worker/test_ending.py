"""A run whose total time is over ends, wherever it is: in hand, asleep, between two attempts, in a line, held. One that
has not begun does not."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from seawall import App, Context, Event, Retry
from seawall.kernel.cause import Cause
from seawall.store import cancel, until
from seawall.store.pool import Store
from seawall.store.statement import statements
from seawall.worker import cancel as looking
from seawall.worker import execution
from worker.rig import QUICK, Rig

TIMED_OUT = (6, Cause.TOTAL_TIMEOUT)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "LOOK_S", 0.05)
    monkeypatch.setattr(execution, "REST_S", 0.02)


async def end(rig: Rig, run: int) -> tuple[int, int]:
    done = (await rig.ended([run]))[run]
    assert await rig.db.fetchval("select count(*) from run where id = $1", run) == 0
    return done["status"], done["cause"]


async def late(rig: Rig, *runs: int) -> None:
    """Their time is over."""
    noted = "select count(*) = $2 from run_until where run_id = any($1)"
    await rig.until(lambda: rig.db.fetchval(noted, runs, len(runs)))
    await rig.db.execute("update run_until set until = now() where run_id = any($1)", runs)


def patient(app: App, **options: Any) -> asyncio.Event:
    """A workflow that hangs in a step, sleeps, or fails, as its event says."""
    inside = asyncio.Event()

    @app.workflow(on="test.thing", total_timeout_s=3600, **options)
    async def patient(event: Event, ctx: Context) -> str:
        inside.set()
        if event.json == "sleep":
            await ctx.sleep(days=300)
        if event.json == "fail":
            raise RuntimeError("not now")
        try:
            await ctx.step(asyncio.Event().wait, name="hang")
        finally:
            await ctx.step(str, 5, name="close")
        return "done"

    return inside


@pytest.mark.parametrize("where", ["hang", "sleep", "fail"])
async def test_a_run_whose_time_is_over_fails_wherever_it_is(rig: Rig, where: str) -> None:
    app = App()
    patient(app, retry=Retry(attempts=5, first_s=3600))
    async with rig.running(app):
        (run,) = await rig.add("patient", [where], ticket=True)
        if where != "hang":
            await rig.until(lambda: rig.db.fetchval("select state = 1 from run where id = $1", run))
        await late(rig, run)
        assert await end(rig, run) == TIMED_OUT
    row = await rig.db.fetchrow("select error from run_done")
    assert row["error"].startswith("TimeoutError: it took longer than 3600 s altogether")
    assert await rig.db.fetchval("select count(*) from run_until") == 0
    assert await rig.db.fetchval("select count(*) from step where name = 'close'") == (where == "hang")


async def test_time_begins_with_the_first_start_once_and_is_over_though_no_worker_comes_back(rig: Rig) -> None:
    app = App()
    inside = patient(app)
    await rig.registered(app)
    (run,) = await rig.add("patient", ["hang"])
    await asyncio.sleep(0.1)
    assert await rig.db.fetchval("select count(*) from run_until") == 0  # queued, for however long
    async with rig.running(app, replace(QUICK, drain_s=0.0)):
        await inside.wait()
        moment = await rig.db.fetchval("select until from run_until")
        inside.clear()
    async with rig.running(app, replace(QUICK, drain_s=0.0)):
        await inside.wait()
        assert await rig.db.fetchval("select until from run_until where run_id = $1", run) == moment
    async with rig.worker(App()):  # nobody here has its workflow or leases its shard
        await late(rig, run)
        assert await end(rig, run) == TIMED_OUT


@pytest.mark.parametrize("state", [0, 2, 3])
async def test_one_that_stands_still_by_somebodys_hand_ends_too(rig: Rig, store: Store, state: int) -> None:
    """A queue that is paused, a run that is held, a line: all of it counts, once a run has begun."""
    app = App()
    patient(app)
    await rig.registered(app)
    (run,) = await rig.add("patient", ["sleep"])
    await rig.db.execute("update run set state = $1", state)
    async with store.own_connection() as session:
        await until.begin(session, [until.Begun(run, 1, None)])
    await late(rig, run)
    marked, _ = await until.expire(store)
    assert [one.id for one in (await cancel.settle(store, marked, timeout_s=5)).ended] == [run]
    assert await end(rig, run) == TIMED_OUT


async def test_an_end_that_comes_first_stands_and_no_row_is_waited_for(rig: Rig, store: Store) -> None:
    """Forced: the run's row is held by a flush that ends it while its time is over."""
    app = App()
    patient(app)
    await rig.registered(app)
    (run,) = await rig.add("patient", ["sleep"])
    async with store.own_connection() as session:
        await until.begin(session, [until.Begun(run, 1, None)])
    await late(rig, run)
    flushing = await asyncpg.connect(rig.database.dsn)
    try:
        transaction = flushing.transaction()
        await transaction.start()
        await flushing.execute("delete from run where id = $1", run)
        assert await until.expire(store) == (cancel.Marked(), {})
        assert await rig.db.fetchval("select count(*) from run_until") == 1  # it comes again
        await transaction.commit()
    finally:
        await flushing.close()
    assert await until.expire(store) == (cancel.Marked(), {})
    assert await rig.db.fetchval("select count(*) from run_until") == 0


async def test_a_mark_that_comes_while_a_run_is_read_is_no_new_beginning(rig: Rig, store: Store) -> None:
    app = App()
    patient(app)
    await rig.registered(app)
    (run,) = await rig.add("patient", ["sleep"])
    async with store.own_connection() as session:
        await until.begin(session, [until.Begun(run, 1, None)])
        await late(rig, run)
        marked, _ = await until.expire(store)
        assert marked.cancelling == [run]
        await until.begin(session, [until.Begun(run, 60_000, None), until.Begun(12345, 60_000, None)])
    assert await rig.db.fetchval("select count(*) from run_until") == 0


async def test_a_run_in_hand_is_told_by_who_waits_for_it_and_its_parent_hears(rig: Rig) -> None:
    app = App()
    patient(app)

    @app.workflow(on="test.thing", retry=Retry(attempts=1))
    async def parent(event: Event, ctx: Context) -> None:
        await ctx.run("patient", event.json)

    async with rig.running(app):
        run, other = await rig.add("parent", ["sleep", "hang"])
        found = "select array_agg(run_id) from run_until where parent_id = any($1) having count(*) = 2"
        await late(rig, *await rig.until(lambda: rig.db.fetchval(found, [run, other])))
        done = await rig.ended([run, other])
    assert all("is failed: TimeoutError: it took longer" in row["error"] for row in done.values())
    assert {row["cause"] for row in done.values()} == {Cause.NON_RETRYABLE}


async def test_moments_of_ended_runs_are_forgotten_and_a_retry_begins_anew(rig: Rig, store: Store) -> None:
    app = App()

    @app.workflow(on="test.thing", total_timeout_s=3600, retry=Retry(attempts=1))
    async def quick(event: Event, ctx: Context) -> None:
        raise RuntimeError("no")

    async with rig.running(app):
        runs = await rig.add("quick", [1, 2])
        await rig.ended(runs)
    assert await rig.db.fetchval("select count(*) from run_until") == 2
    queue = await rig.db.fetchval("select queue_id from workflow")
    again = await store.row(statements("bulk")["retry"], [runs[0]], [runs[0]], [queue], [0], [0], [0])
    assert again is not None and again["done"] == [runs[0]]
    assert await rig.db.fetchval("select array_agg(run_id) from run_until") == [runs[1]]
    assert await until.prune_ended(store, after=0, rows_max=1) == (1, runs[1])
    assert await until.prune_ended(store, after=runs[1], rows_max=1) == (0, 0)
