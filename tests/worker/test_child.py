"""A run that another one begins, begins once, and its end is heard once, whatever happens to either."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from seawall import App, Context, Event, Retry, RunFailed
from seawall.kernel.error import Uncertain
from seawall.kernel.placement import COST, Placement
from seawall.kernel.seam.child import Child
from seawall.store import cancel, child, pool
from seawall.store.flush import Rows, flush
from seawall.store.pool import Session, Store
from seawall.store.queue import virtual_now
from seawall.store.statement import statements
from seawall.worker import bench, ending, execution, kin, timer
from seawall.workflow import child as children
from worker.rig import Rig

AWAY = "state = 1 and run_after > now() + interval '1 minute'"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "REST_S", 0.02)
    monkeypatch.setattr(children, "FIRST_LOOK_US", 50_000)


def patient_parents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who isn't told looks by itself minutes later."""
    monkeypatch.setattr(execution, "REST_S", 1.0)
    monkeypatch.setattr(children, "LOOK_MIN_US", children.LOOK_MAX_US)


async def placed(rig: Rig, store: Store, workflow: str, count: int) -> list[int]:
    """Runs of another tenant, where a router begins them."""
    place = Placement()
    place.observe(*await virtual_now(store))
    queue: int = await rig.db.fetchval("select queue_id from workflow where name = $1", workflow)
    vts = [place.next(queue, "neighbour", backlog=False) for _ in range(count)]
    return [(await rig.add(workflow, [n], shard=n % 4, vt=vt, hint=False))[0] for n, vt in enumerate(vts)]


def family(app: App, go: asyncio.Event) -> None:
    @app.workflow(on="child", queue="others", retry=Retry(attempts=2, first_s=0.01))
    async def double(event: Event, ctx: Context) -> int:
        await ctx.step(go.wait)
        if event.json < 0:
            raise ValueError(f"{event.json} is below 0")
        value: int = 2 * event.json
        return value

    @app.workflow(on="test.thing", retry=Retry(attempts=1))
    async def parent(event: Event, ctx: Context) -> Any:
        try:
            return await asyncio.gather(*(ctx.run("double", n) for n in event.json))
        except RunFailed as error:
            return [error.status, error.error]


async def test_a_run_that_begins_others_is_locked_in_the_order_of_those_that_its_children_wake(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else who tells parents that their children have ended, and a flush that puts these parents away, wait in a
    circle."""
    app, flushed = App(), list[Rows]()
    family(app, asyncio.Event())
    patient_parents(monkeypatch)

    async def noted(session: Session, rows: Rows, *, again: bool = False) -> object:
        flushed.append(rows)
        return await flush(session, rows, again=again)

    monkeypatch.setattr("seawall.worker.flush.flush", noted)
    async with rig.worker(app) as worker:
        await rig.until(lambda: len(worker._leases.held()) == 8)
        (run,) = await rig.add("parent", [[1, 2]])
        await rig.until(lambda: rig.db.fetchval(f"select {AWAY} from run where id = $1", run))
    [rows] = [rows for rows in flushed if rows.agains]
    assert rows.listeners == [run]


async def test_a_run_waits_without_a_slot_for_those_that_it_begins(rig: Rig) -> None:
    app, go = App(), asyncio.Event()
    family(app, go)
    async with rig.worker(app) as worker:
        await rig.until(lambda: len(worker._leases.held()) == 8)
        (run,) = await rig.add("parent", [[1, 2, 3]])
        await rig.until(lambda: rig.db.fetchval("select state = 1 from run where id = $1", run))
        await rig.until(lambda: worker._bench.count == 3)
        go.set()
        done = await rig.ended([run])
    assert json.loads(done[run]["result"]) == [2, 4, 6]
    assert await rig.db.fetchval("select count(*) from run_done") == 4
    assert await rig.db.fetchval("select count(*) from event where source = ':run' and type = 'run.double'") == 3


async def test_what_a_run_returned_is_there_when_who_waited_is_called_again(rig: Rig) -> None:
    """It couldn't be read: who slept, or waited for another one, behind a first that had returned something, failed."""
    app = App()

    @app.workflow(on="child", queue="others")
    async def give(event: Event, ctx: Context) -> Any:
        return event.json

    @app.workflow(on="test.thing", retry=Retry(attempts=1))
    async def parent(event: Event, ctx: Context) -> Any:
        values = [await ctx.run("give", value) for value in event.json]
        await ctx.sleep(seconds=0.1)
        return values

    given = [5, "text", [1, {"a": None}], None, {}, 0.5, True]
    async with rig.worker(app):
        await rig.until(lambda: rig.db.fetchval("select count(*) = 2 from workflow"))
        (run,) = await rig.add("parent", [given])
        done = (await rig.ended([run]))[run]
        assert (done["error"], json.loads(done["result"] or b"null")) == (None, given)


@pytest.mark.parametrize("how", ["failed", "cancelled"])
async def test_an_end_that_is_none_is_raised_where_it_was_waited_for(rig: Rig, how: str) -> None:
    app, go = App(), asyncio.Event()
    family(app, go)
    async with rig.worker(app), Store(pool.Settings(dsn=rig.database.dsn), role="test") as store:
        await rig.until(lambda: rig.db.fetchval("select count(*) from workflow"))
        (run,) = await rig.add("parent", [[-1]])
        begun = await rig.until(lambda: rig.db.fetchval("select id from run where id <> $1", run))
        if how == "cancelled":
            async with store.transaction() as session:
                marked = await cancel.mark(session, [begun], "cancelled: wrong")
            await cancel.settle(store, marked, timeout_s=5)
        else:
            go.set()
        done = await rig.ended([run])
    said = {"failed": ["failed", "ValueError: -1 is below 0"], "cancelled": ["cancelled", "cancelled: wrong"]}[how]
    assert json.loads(done[run]["result"]) == said


async def test_a_replay_of_an_event_begins_runs_of_its_own(rig: Rig) -> None:
    """Else it would find those of the first run, as they had ended, and fail as that had, mended or not."""
    app, begun, broken = App(), list[Any](), True

    @app.workflow(on="child", retry=Retry(attempts=1))
    async def note(event: Event, ctx: Context) -> str:
        begun.append(event.json)
        if broken:
            raise RuntimeError("broken")
        return "mended"

    @app.workflow(on="test.thing", retry=Retry(attempts=2, first_s=0.01))
    async def parent(event: Event, ctx: Context) -> Any:
        await ctx.start("note", "started")
        if ctx.attempt == 1:
            raise RuntimeError("once more")
        return await ctx.run("note", "waited for")

    async with rig.running(app):
        (first,) = await rig.add("parent", [None])
        assert (await rig.ended([first]))[first]["status"] == 6
        await rig.until(lambda: rig.db.fetchval("select count(*) = 3 from run_done"))
        broken = False
        again = await rig.db.fetchval(
            "insert into run (id, event_id, workflow_id, tenant, queue_id, shard, vt)"
            " select d.id + 100, d.event_id, w.id, d.tenant, w.queue_id, 0, 0"
            " from run_done d join workflow w on w.id = d.workflow_id where d.id = $1 returning id", first,
        )  # fmt: skip
        assert (await rig.ended([again]))[again]["result"] == b'"mended"'
        await rig.until(lambda: rig.db.fetchval("select count(*) = 6 from run_done"))
    assert sorted(begun) == ["started", "started", "waited for", "waited for"]


@pytest.mark.parametrize("how", ["cancelled", "marked", "dead"])
async def test_who_waits_hears_of_an_end_that_no_flush_brought_about(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A cancellation ends it in the store, or a worker does that never had it in hand, or a takeover of suspects. The
    sweep may have forgotten whose child it was before any of them tells who waits."""
    patient_parents(monkeypatch)

    async def behind_the_sweep(store: Store, *given: Any, **more: Any) -> set[int]:
        await rig.until(lambda: store.value("select not exists (select 1 from run_child)"))
        return await child.who_began(store, *given, **more)

    monkeypatch.setattr(ending, "SWEEP_S", 0.05)
    monkeypatch.setattr(cancel, "who_began", behind_the_sweep)
    monkeypatch.setattr(timer, "who_began", behind_the_sweep)
    app = App()

    @app.workflow(on="child", queue="others")
    async def patient(event: Event, ctx: Context) -> None:
        await ctx.sleep(days=1)

    @app.workflow(on="test.thing", retry=Retry(attempts=1))
    async def parent(event: Event, ctx: Context) -> Any:
        try:
            return await ctx.run("patient")
        except RunFailed as error:
            return error.status

    async with rig.worker(app), Store(pool.Settings(dsn=rig.database.dsn), role="test") as store:
        await rig.until(lambda: rig.db.fetchval("select count(*) = 2 from workflow"))
        (run,) = await rig.add("parent", [None])
        await rig.until(lambda: rig.db.fetchval(f"select count(*) = 2 from run where {AWAY}"))
        begun = await rig.db.fetchval("select id from run where id <> $1", run)
        if how == "cancelled":
            async with store.transaction() as session:
                marked = await cancel.mark(session, [begun], "cancelled: wrong")
            await cancel.settle(store, marked, timeout_s=5)
            done = await rig.ended([run])
        elif how == "marked":
            await rig.db.execute("update run set state = 9, cancelled = 'wrong', run_after = null where id = $1", begun)
            done = await rig.ended([run])
        else:
            change = "update run set shard = -1, deaths = 3, state = 0, run_after = null where id = $1"
            await rig.db.execute(change, begun)
            async with rig.worker(app, solo_queue="others"):
                done = await rig.ended([run])
    assert json.loads(done[run]["result"]) == ("dead" if how == "dead" else "cancelled")


async def test_who_waits_is_told_of_the_end_alone(rig: Rig) -> None:
    """Told, it is called again with all that it has done: one that polls would have that done each time."""
    app = App()

    @app.workflow(on="child", queue="others", retry=Retry(attempts=2, first_s=0.01))
    async def poll(event: Event, ctx: Context) -> str:
        for _ in range(3):
            await ctx.sleep(seconds=0.1)
        if ctx.attempt == 1:
            raise RuntimeError("once more")
        await ctx.sleep(days=1)
        return "never"

    @app.workflow(on="test.thing", retry=Retry(attempts=1))
    async def parent(event: Event, ctx: Context) -> Any:
        return await ctx.run("poll")

    async with rig.worker(app) as worker:
        await rig.until(lambda: rig.db.fetchval("select count(*) = 2 from workflow"))
        (run,) = await rig.add("parent", [None])
        await rig.until(lambda: rig.db.fetchval(f"select count(*) = 1 from run where {AWAY} and attempt = 1"))
        await rig.until(lambda: not worker._timers._parents)
        assert await rig.db.fetchval("select wakes from run where id = $1", run) == 0


async def test_who_is_held_while_that_ends_what_it_waits_for_goes_on_when_it_is_released(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient_parents(monkeypatch)
    app, go = App(), asyncio.Event()

    @app.workflow(on="child", queue="others")
    async def quick(event: Event, ctx: Context) -> int:
        await ctx.step(go.wait)
        return 5

    @app.workflow(on="test.thing", retry=Retry(attempts=1))
    async def parent(event: Event, ctx: Context) -> Any:
        return await ctx.run("quick")

    async with rig.worker(app), Store(pool.Settings(dsn=rig.database.dsn), role="test") as store:
        await rig.until(lambda: rig.db.fetchval("select count(*) = 2 from workflow"))
        (run,) = await rig.add("parent", [None])
        await rig.until(lambda: rig.db.fetchval(f"select {AWAY} from run where id = $1", run))
        hold = await store.row(statements("bulk")["hold"], [run])
        assert hold is not None and hold["done"] == [run]
        go.set()
        await rig.until(lambda: rig.db.fetchval("select wakes = 1 and state = 2 from run where id = $1", run))
        released = await store.row(statements("bulk")["release"], [run], [run], [0])
        assert released is not None and released["done"] == [run]
        assert (await rig.ended([run]))[run]["result"] == b"5"


async def test_it_begins_once_though_its_parent_fails_or_the_store_does_not_answer(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, begun, start, asked = App(), list[Any](), child.start, 0

    async def lost(*given: Any) -> Any:
        nonlocal asked
        asked += 1
        found = await start(*given)
        if asked == 1:
            raise Uncertain("the answer was lost")
        return found

    @app.workflow(on="child")
    async def note(event: Event, ctx: Context) -> None:
        begun.append(event.json)

    @app.workflow(on="test.thing", retry=Retry(attempts=3, first_s=0.01))
    async def parent(event: Event, ctx: Context) -> list[int]:
        ids = [await ctx.start(note, n) for n in range(2)]
        if ctx.attempt < 3:
            raise RuntimeError("once more")
        return [*ids, await ctx.start("note", 2)]

    monkeypatch.setattr(bench, "start", lost)
    async with rig.running(app):
        (run,) = await rig.add("parent", [None])
        done = await rig.ended([run])
        ids = json.loads(done[run]["result"])
        await rig.ended(ids)
    assert sorted(begun) == [0, 1, 2] and len(set(ids)) == 3


async def test_a_parent_that_nobody_tells_looks_by_itself_and_survives_all_processes(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, go = App(), asyncio.Event()
    family(app, go)

    async def silent(*_: Any, **__: Any) -> None: ...

    monkeypatch.setattr("seawall.worker.timer.tell_parents", silent)
    monkeypatch.setattr(children, "LOOK_MIN_US", 300_000)
    async with rig.worker(app):
        await rig.until(lambda: rig.db.fetchval("select count(*) from workflow"))
        (run,) = await rig.add("parent", [[4]])
        await rig.until(lambda: rig.db.fetchval("select state = 1 from run where id = $1", run))
    go.set()
    async with rig.worker(app):
        done = await rig.ended([run])
    assert json.loads(done[run]["result"]) == [8]
    assert await rig.db.fetchval("select count(*) from run_done") == 2


async def test_a_parent_of_many_looks_at_those_that_go_on_together(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time one of thousands had ended, it looked at all others one by one."""
    patient_parents(monkeypatch)
    app, go, looks, start = App(), [asyncio.Event() for _ in range(40)], 0, child.start

    async def counted(*given: Any) -> Any:
        nonlocal looks
        looks += 1
        return await start(*given)

    monkeypatch.setattr(bench, "start", counted)

    @app.workflow(on="child", queue="others")
    async def one(event: Event, ctx: Context) -> int:
        await ctx.step(go[event.json].wait)
        number: int = event.json
        return number

    @app.workflow(on="test.thing", retry=Retry(attempts=1))
    async def parent(event: Event, ctx: Context) -> int:
        return sum(await asyncio.gather(*(ctx.run("one", n) for n in range(len(go)))))

    away = f"select waits from run where id = $1 and waits > $2 and {AWAY}"
    async with rig.worker(app):
        await rig.until(lambda: rig.db.fetchval("select count(*) = 2 from workflow"))
        (run,) = await rig.add("parent", [None])
        waits = await rig.until(lambda: rig.db.fetchval(away, run, 0))
        assert looks <= len(go) + kin.FEW
        looks = 0
        go[-1].set()
        await rig.until(lambda: rig.db.fetchval(away, run, waits))
        assert 0 < looks <= kin.FEW + 1
        for each in go:
            each.set()
        done = (await rig.ended([run]))[run]
        assert done["error"] is None and done["result"] == str(sum(range(len(go)))).encode()
    assert await rig.db.fetchval("select count(*) from run_done") == len(go) + 1


async def test_who_waits_holds_no_slot_while_the_clock_of_another_server_is_behind(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it waits for began an hour from now, by that clock: it was taken for young until then."""

    def later(found: Child) -> Child:
        return msgspec.structs.replace(found, began_us=found.now_us + 3_600_000_000)

    async def one(*given: Any) -> Any:
        found = await child.start(*given)
        return None if found is None else later(found)

    async def all(*given: Any, **named: Any) -> Any:
        return {id: later(found) for id, found in (await child.standing(*given, **named)).items()}

    monkeypatch.setattr(bench, "start", one)
    monkeypatch.setattr(bench, "standing", all)
    monkeypatch.setattr(execution, "REST_S", 1.0)
    app, go = App(), asyncio.Event()
    family(app, go)
    async with rig.worker(app):
        await rig.until(lambda: rig.db.fetchval("select count(*) = 2 from workflow"))
        (run,) = await rig.add("parent", [[4]])
        await rig.until(lambda: rig.db.fetchval("select waits > 0 from run where id = $1", run))
        go.set()
        assert json.loads((await rig.ended([run]))[run]["result"]) == [8]


async def test_a_run_that_begins_very_many_keeps_no_loop_of_its_worker_from_the_store(rig: Rig) -> None:
    app = App()

    @app.workflow(on="child")
    async def nothing(event: Event, ctx: Context) -> None: ...

    @app.workflow(on="test.thing")
    async def parent(event: Event, ctx: Context) -> int:
        return len(set(await asyncio.gather(*(ctx.start("nothing") for _ in range(150)))))

    async with rig.running(app) as worker:
        (run,) = await rig.add("parent", [None])
        done = await rig.ended([run])
        assert worker._store.waiting == 0
        await rig.until(lambda: rig.db.fetchval("select count(*) = 151 from run_done"))
    assert done[run]["result"] == b"150"


@pytest.mark.parametrize("first", ["neighbours", "family"])
async def test_a_family_that_begins_at_one_go_takes_turns_with_its_neighbours(
    rig: Rig, store: Store, first: str
) -> None:
    """All of it was one turn behind the first, and so before nearly all that any other tenant had there; and where
    nothing was ready, before all that anybody has there from then on."""
    app = App()

    @app.workflow(on="child", queue="others")
    async def nothing(event: Event, ctx: Context) -> None: ...

    @app.workflow(on="test.thing")
    async def parent(event: Event, ctx: Context) -> int:
        return len(await asyncio.gather(*(ctx.start("nothing") for _ in range(40))))

    async with rig.worker(app) as worker:
        await rig.until(lambda: len(worker._leases.held()) == 8)
        await rig.db.execute("update queue set paused = true where name = 'others'")
        await rig.until(lambda: any(rule.paused for rule in worker._leases.rules.values()))
        await rig.db.execute("update shard_lease set begun_vt = 5000 * $1::bigint", COST)
        theirs = await placed(rig, store, "nothing", 8) if first == "neighbours" else []
        await rig.ended(await rig.add("parent", [None]))
        theirs = theirs or await placed(rig, store, "nothing", 8)
        rows = await rig.db.fetch("select id from run order by vt, id")
    order = [row["id"] for row in rows]
    assert len(order) == 48
    assert max(order.index(run) for run in theirs) < 20


async def test_what_can_not_begin_says_why(rig: Rig) -> None:
    app = App()

    @app.workflow(on="test.thing", retry=Retry(attempts=1))
    async def parent(event: Event, ctx: Context) -> Any:
        return await ctx.run(event.json, 1)

    async with rig.running(app):
        runs = await rig.add("parent", ["nobody's", "", 5])
        done = await rig.ended(runs)
    errors = [done[run]["error"] for run in runs]
    assert "takes no new runs" in errors[0] and "no workflow" in errors[1] and "no workflow" in errors[2]
    assert await rig.db.fetchval("select count(*) from event where source = ':run'") == 0
