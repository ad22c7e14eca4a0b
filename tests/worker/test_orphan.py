"""A run that another one waits for ends with it, however that ends and whoever dies meanwhile; one that was only begun
goes on. And families are bounded."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from seawall import App, Context, Event, Retry, RunFailed
from seawall.kernel.cause import Cause
from seawall.kernel.error import Fenced
from seawall.kernel.placement import COST
from seawall.store import cancel, child
from seawall.store.lease import Shard, take
from seawall.store.pool import Store
from seawall.store.statement import statements
from seawall.worker import cancel as looking
from seawall.worker import ending, execution
from seawall.workflow import child as children
from worker.rig import QUICK, Rig

ORPHANED = (7, Cause.PARENT_ENDED)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "LOOK_S", 0.05)
    monkeypatch.setattr(execution, "REST_S", 0.02)
    monkeypatch.setattr(children, "FIRST_LOOK_US", 50_000)
    monkeypatch.setattr(ending, "SWEEP_S", 0.05)


def family(app: App, over: asyncio.Event | None = None) -> asyncio.Event:
    """A parent with a child that sleeps or hangs, as its event says, and with one that it only begins. One that doesn't
    wait to the end ends when it is ``over``."""
    go, over = asyncio.Event(), over or asyncio.Event()

    @app.workflow(on="child")
    async def patient(event: Event, ctx: Context) -> int:
        first = await ctx.step(int, 5, name="first")
        if event.json == "sleep":
            await ctx.sleep(days=30)
        elif event.json == "beget":
            await ctx.run("patient", "sleep")
        else:
            await ctx.step(go.wait, name="hang")
        return first

    @app.workflow(on="test.thing", retry=Retry(attempts=1), total_timeout_s=3600)
    async def parent(event: Event, ctx: Context) -> Any:
        await ctx.start("patient", "sleep")
        if event.json == "race":
            waiting = asyncio.create_task(ctx.run("patient", "sleep"))
            await ctx.step(over.wait)
            return f"won, while it is {waiting.done()} that the other one is done"
        child = "beget" if event.json == "grand" else "sleep" if event.json in ("sleep", "late") else "hang"
        if event.json == "fail":
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(ctx.run("patient", child))
                tasks.create_task(fail(ctx))
        return await ctx.run("patient", child)

    async def fail(ctx: Context) -> None:
        await ctx.step(over.wait)
        raise RuntimeError("no")

    return go


async def begun(rig: Rig, run: int, count: int) -> list[int]:
    """Runs that a run began, and those began, when there are as many, the first one first."""
    ids = "select array_agg(id order by id) from run where id <> $1 having count(*) = $2"
    return await rig.until(lambda: rig.db.fetchval(ids, run, count))


async def end(rig: Rig, run: int) -> tuple[int, int]:
    done = (await rig.ended([run]))[run]
    return done["status"], done["cause"]


async def cancelled(store: Store, runs: Sequence[int]) -> None:
    async with store.transaction(timeout_s=5) as session:
        marked = await cancel.mark(session, runs, "cancelled: enough")
    await cancel.settle(store, marked, timeout_s=5)


async def retried(rig: Rig, store: Store, run: int) -> None:
    queue = await rig.db.fetchval("select min(queue_id) from workflow")
    shard = run % 4
    again = await store.row(statements("bulk")["retry"], [run], [run], [queue], [shard], [0], [0])
    assert again is not None and again["done"] == [run]


@pytest.mark.parametrize("how", ["sleep", "hang", "fail", "late", "race", "grand"])
async def test_who_was_waited_for_ends_with_its_parent_and_who_was_begun_goes_on(
    rig: Rig, store: Store, how: str
) -> None:
    app, over = App(), asyncio.Event()
    family(app, over)
    async with rig.running(app):
        (run,) = await rig.add("parent", [how])
        left, *waited_for = await begun(rig, run, 3 if how == "grand" else 2)
        over.set()
        if how in ("sleep", "hang", "grand"):
            await rig.until(lambda: rig.db.fetchval("select state = 1 from run where id = $1", run))
            await cancelled(store, [run])
        elif how == "late":
            await rig.db.execute("update run_until set until = now()")
        assert [await end(rig, id) for id in waited_for] == [ORPHANED] * len(waited_for)
        assert (await rig.ended([run]))[run]["status"] == {"race": 5, "fail": 6, "late": 6}.get(how, 7)
        why = await rig.db.fetchval("select error from run_done where id = $1", waited_for[0])
        assert why == f"run {run}, which had begun it, has ended"
        await rig.until(lambda: rig.db.fetchval("select count(*) = 0 from run_child"))
    assert await rig.db.fetchval("select array_agg(id) from run") == [left]


@pytest.mark.parametrize("crash", [False, True])
async def test_no_worker_is_needed_and_after_a_crash_the_sweep_of_the_next_one_is_enough(
    rig: Rig, store: Store, monkeypatch: pytest.MonkeyPatch, crash: bool
) -> None:
    """A crash right behind the parent's end: nothing is remembered of it but rows."""
    # Nobody looks by itself: who is in hand in the moment of the crash is only marked.
    monkeypatch.setattr(execution, "REST_S", 1.0)
    monkeypatch.setattr(children, "LOOK_MIN_US", children.LOOK_MAX_US)
    app = App()
    family(app)
    async with rig.running(app):
        (run,) = await rig.add("parent", ["grand"])
        left, *others = await begun(rig, run, 3)
        away = "select count(*) = 4 from run where state = 1 and run_after > now() + interval '1 minute'"
        await rig.until(lambda: rig.db.fetchval(away))
    async with store.transaction(timeout_s=5) as session:
        marked = await cancel.mark(session, [run], "cancelled: enough")
    if crash:
        assert await rig.db.fetchval("select count(*) from run") == 3
        async with rig.worker(App()):  # whatever it runs itself
            assert [await end(rig, id) for id in others] == [ORPHANED] * 2
    else:
        assert [one.id for one in (await cancel.settle(store, marked, timeout_s=5)).ended] == [run]
        assert [await end(rig, id) for id in others] == [ORPHANED] * 2
    assert await rig.db.fetchval("select array_agg(id) from run") == [left]


async def test_a_parent_that_is_tried_again_goes_on_with_those_that_ended_with_it(rig: Rig, store: Store) -> None:
    app = App()
    go = family(app)
    async with rig.running(app):
        (run,) = await rig.add("parent", ["hang"])
        _, other = await begun(rig, run, 2)
        await rig.until(lambda: rig.db.fetchval("select state = 1 from run where id = $1", run))
        await cancelled(store, [run])
        assert await end(rig, other) == ORPHANED
        await retried(rig, store, run)
        await rig.until(lambda: rig.db.fetchval("select count(*) = 1 from run_child where run_id = $1", other))
        go.set()
        assert (await rig.ended([other, run]))[run]["result"] == b"5"
    assert await rig.db.fetchval("select count(*) from step where run_id = $1 and name = 'first'", other) == 1


async def wants(rig: Rig, store: Store, run: int) -> child.Wanted:
    """What a run of shard 0, which is leased now, may begin."""
    queue_id = await rig.db.fetchval("select queue_id from run where id = $1", run)
    taken = await take(store, Shard(queue_id, 0), owner=uuid.uuid4(), ttl_s=0, deaths_max=3)
    return child.Wanted(
        event_id=rig.ids.next(), other_id=rig.ids.next(), workflow="patient", tenant="default", parent=run,
        lease=taken.lease, nesting=1, payload=b"1", turn=1, with_parent=True,
    )  # fmt: skip


async def test_who_lost_its_lease_begins_nothing_and_ties_nothing_to_itself(rig: Rig, store: Store) -> None:
    """It stood still, say, while its run was cancelled: what it began then would go on, and nobody would ask for it."""
    app = App()
    family(app)
    await rig.registered(app)
    (run,) = await rig.add("parent", ["sleep"], shard=0)
    zombie = await wants(rig, store, run)
    wanted = replace(await wants(rig, store, run), event_id=zombie.event_id)
    with pytest.raises(Fenced):
        await child.start(store, zombie)
    assert await rig.db.fetchval("select count(*) from event where source = ':run'") == 0
    found = await child.start(store, wanted)
    assert found is not None
    await rig.db.execute("delete from run_child")
    with pytest.raises(Fenced):
        await child.start(store, zombie)
    assert await rig.db.fetchval("select count(*) from run_child") == 0
    again = await child.start(store, wanted)
    assert again is not None and again.run == found.run
    shards = await rig.db.fetch("select vt, shard from run order by vt")
    assert [row["shard"] for row in shards] == [0, found.run % 4] and shards[1]["vt"] == shards[0]["vt"] + COST


async def test_nobody_comes_back_for_a_parent_that_is_gone(rig: Rig, store: Store) -> None:
    """Its last execution may still look, when its child has ended with it already."""
    app = App()
    family(app)
    await rig.registered(app)
    (run,) = await rig.add("parent", ["sleep"])
    wanted = await wants(rig, store, run)
    found = await child.start(store, wanted)
    assert found is not None and found.status == 0
    await rig.db.execute("delete from run where id = $1", run)
    orphans = await cancel.orphans(store, of=[run, 12345])
    assert (await cancel.settle(store, orphans.marked, timeout_s=5)).ended[0].id == found.run
    again = await child.start(store, wanted)
    assert again is not None and again.status == 7
    assert await rig.db.fetchval("select count(*) from run") == 0


async def test_a_row_that_is_being_flushed_is_not_waited_for_and_comes_again(rig: Rig, store: Store) -> None:
    app = App()
    family(app)
    await rig.registered(app)
    runs = await rig.add("parent", ["sleep"] * 3)
    await rig.db.execute("insert into run_child values (1, $1), (1, $2), ($2, 999)", runs[0], runs[1])
    flushing = await asyncpg.connect(rig.database.dsn)
    try:
        transaction = flushing.transaction()
        await transaction.start()
        await flushing.execute("update run set waits = 1 where id = $1", runs[0])
        found = await cancel.orphans(store, after=cancel.BEFORE_ALL)
        assert (found.marked.cancelling, found.seen, found.last) == ([runs[1]], 3, cancel.BEFORE_ALL)
        assert await rig.db.fetch("select run_id from run_child") == [(runs[0],)]
        await transaction.rollback()
        # Another process looks already: nobody else does.
        await flushing.execute("select pg_advisory_lock(7203005)")
        # Nor is the place lost at which it was: of many workers that meet none would ever come to the end.
        met = await cancel.orphans(store, after=(7, 7))
        assert (met.seen, met.last) == (0, (7, 7))
    finally:
        await flushing.close()
    assert (await cancel.orphans(store, after=cancel.BEFORE_ALL)).marked.cancelling == [runs[0]]


async def test_a_sweep_of_more_than_one_stretch_goes_on_where_it_was(rig: Rig, store: Store) -> None:
    app = App()
    family(app)
    await rig.registered(app)
    parent, *runs = await rig.add("parent", ["sleep"] * 4)
    pairs = [(parent, runs[0]), (parent, runs[1]), (parent + (1 << 50), runs[2])]
    await rig.db.executemany("insert into run_child values ($1, $2)", pairs)
    first = await cancel.orphans(store, after=cancel.BEFORE_ALL, rows_max=2)
    assert (first.marked.cancelling, first.last) == ([], pairs[1])
    second = await cancel.orphans(store, after=first.last, rows_max=2)
    assert (second.marked.cancelling, second.last) == ([runs[2]], cancel.BEFORE_ALL)


async def test_an_end_that_was_none_is_asked_for_anew_by_the_next_attempt(rig: Rig, store: Store) -> None:
    app, broken = App(), True

    @app.workflow(on="child", retry=Retry(attempts=1))
    async def flaky(event: Event, ctx: Context) -> str:
        if broken:
            raise RuntimeError("broken")
        return "mended"

    @app.workflow(on="test.thing", retry=Retry(attempts=1))
    async def parent(event: Event, ctx: Context) -> Any:
        return await ctx.run("flaky")

    async with rig.running(app):
        (run,) = await rig.add("parent", [None])
        assert await end(rig, run) == (6, Cause.NON_RETRYABLE)
        broken = False
        await retried(rig, store, await rig.db.fetchval("select id from run_done where id <> $1", run))
        await retried(rig, store, run)
        assert await rig.until(lambda: rig.db.fetchval("select result from run_done where id = $1", run)) == b'"mended"'


async def test_families_are_bounded_and_the_error_says_who_begot_whom(rig: Rig) -> None:
    app = App()

    @app.workflow(on="test.thing", retry=Retry(attempts=3, first_s=0.0))
    async def russian(event: Event, ctx: Context) -> Any:
        try:
            return await ctx.run("doll", 1)
        except RunFailed as error:
            return error.error

    @app.workflow(on="child")
    async def doll(event: Event, ctx: Context) -> Any:
        try:
            return await ctx.run("doll", event.json + 1)
        except RunFailed as error:
            return error.error

    @app.workflow(on="test.thing")
    async def many(event: Event, ctx: Context) -> int:
        for n in range(event.json):
            await ctx.start("nothing", n)
            if n == 1 and ctx.attempt == 1:
                raise RuntimeError("once more")
        return event.json

    @app.workflow(on="child")
    async def nothing(event: Event, ctx: Context) -> None: ...

    async with rig.running(app, replace(QUICK, nesting_max=3, children_max=4)):
        (run,) = await rig.add("russian", [None])
        error = json.loads((await rig.ended([run]))[run]["result"])
        ids = [row["id"] for row in await rig.db.fetch("select id from run_done order by id")]
        chain = " > ".join([f"russian ({run})", *(f"doll ({id})" for id in ids if id != run)])
        assert error == f"NonRetryable: runs are nested 4 deep, worker.nesting_max is 3: {chain}" and len(ids) == 4
        enough, too_many = await rig.add("many", [4, 5])
        done = await rig.ended([enough, too_many])
    assert done[enough]["result"] == b"4"
    assert done[too_many]["cause"] == Cause.NON_RETRYABLE and "more than 4 others" in done[too_many]["error"]


async def test_a_word_that_is_none_is_refused_before_anything_begins(rig: Rig) -> None:
    app = App()

    @app.workflow(on="test.thing", retry=Retry(attempts=1))
    async def parent(event: Event, ctx: Context) -> Any:
        return await ctx.start("parent", 1, on_parent_end=event.json)

    async with rig.running(app):
        (run,) = await rig.add("parent", ["terminate"])
        assert 'on_parent_end=\'terminate\': "cancel" or "leave"' in (await rig.ended([run]))[run]["error"]
