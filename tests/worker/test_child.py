"""A run that another one begins, begins once, and its end is heard once, whatever happens to either."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from seawall import App, Context, Event, Retry, RunFailed
from seawall.kernel.error import Uncertain
from seawall.store import cancel, child, pool
from seawall.store.pool import Store
from seawall.worker import bench, execution
from seawall.workflow import child as children
from worker.rig import Rig


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "REST_S", 0.02)
    monkeypatch.setattr(children, "FIRST_LOOK_US", 50_000)


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

    async def silent(*_: Any) -> None: ...

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
