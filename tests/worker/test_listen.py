"""A run that waits for an event hears each that counts, once, and hears that none came only when that is certain."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from router.rig import Rig as Routing
from router.rig import append, record
from seawall import App, Context, Event, Retry
from seawall.kernel.error import Unavailable, Uncertain
from seawall.kernel.selection import of_runs
from seawall.store import bulk, cancel, pool
from seawall.store import wait as waits
from seawall.store.change import Author
from seawall.worker import ear, execution
from worker.rig import CLOCK, Rig


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "REST_S", 0.02)
    monkeypatch.setattr(ear, "HELD_LOOK_US", 100_000)


@pytest.fixture
async def routing(rig: Rig) -> AsyncIterator[Routing]:
    yield Routing(rig.database.dsn, rig.db)


def answer(id: str, **more: Any) -> Any:
    return record(tenant="default", body=json.dumps({"type": "incident.answered", "key": id, **more}).encode())


def listening(app: App, **given: Any) -> None:
    @app.workflow(on="test.thing")
    async def open_incident(event: Event, ctx: Context) -> Any:
        heard = await ctx.wait_for("incident.answered", key=event.json["id"], **given)
        return None if heard is None else heard.json


async def waiting(rig: Rig, runs: list[int]) -> None:
    """Until all of these runs have been put away."""

    async def away() -> bool:
        count = await rig.db.fetchval("select count(*) from run where id = any($1::bigint[]) and state = 1", runs)
        return bool(count == len(runs))

    await rig.until(away)


async def test_each_run_hears_the_event_with_its_key_and_goes_on_at_once(rig: Rig, routing: Routing) -> None:
    app, journal = App(), routing.log()
    listening(app)
    async with rig.running(app) as worker, routing.router():
        runs = await rig.add("open_incident", [{"id": f"i{n}"} for n in range(20)])
        await waiting(rig, runs)
        await rig.until(lambda: worker._bench.count == 0)
        strange = [answer("i3", n=0)]
        strange[0] = record(tenant="other", body=strange[0].body)  # of another tenant: not theirs
        nobodys = [record(tenant="default", body=b'{"type":"incident.answered"}'), answer("nobody")]
        await append(journal, *strange, *nobodys, *(answer(f"i{n}", n=n) for n in range(20)), answer("i3", n=-1))
        done = await rig.ended(runs)
    assert [json.loads(done[run]["result"])["n"] for run in runs] == list(range(20))
    assert await rig.db.fetchval("select count(*) from wait") == 0


async def test_events_and_waits_that_come_at_the_same_time_miss_each_other_never(rig: Rig, routing: Routing) -> None:
    """Neither has to be first: each of 200 events is routed while its run opens its wait."""
    app, journal = App(), routing.log()
    listening(app, lookback=60)
    async with rig.running(app), routing.router():
        (first,) = await rig.add("open_incident", [{"id": "first"}])
        await waiting(rig, [first])  # the router knows by which field is waited
        await append(journal, answer("first"))
        runs: list[int] = []
        for start in range(0, 200, 20):
            ids = [f"i{n}" for n in range(start, start + 20)]
            made, _ = await asyncio.gather(
                rig.add("open_incident", [{"id": id} for id in ids]), append(journal, *map(answer, ids))
            )
            runs += made
        done = await rig.ended([first, *runs], timeout_s=30)
    assert [json.loads(done[run]["result"])["key"] for run in runs] == [f"i{n}" for n in range(200)]


async def test_a_wait_looks_back_as_far_as_it_says_and_hears_an_event_once(rig: Rig, routing: Routing) -> None:
    app, journal = App(), routing.log()

    @app.workflow(on="test.thing")
    async def twice(event: Event, ctx: Context) -> Any:
        heard = [await ctx.wait_for("incident.answered", key="x", lookback=3600) for _ in range(2)]
        late = await ctx.wait_for("incident.answered", key="x", timeout=0.1, lookback=3600)
        return [None if one is None else one.json["n"] for one in [*heard, late]]

    async with rig.running(app), routing.router():
        (early,) = await rig.add("twice", [{}])
        await waiting(rig, [early])
        await append(journal, answer("x", n=1), answer("x", n=2))
        (later,) = await rig.add("twice", [{}])
        done = await rig.ended([early, later])
    assert {row["result"] for row in done.values()} == {b"[1,2,null]"}


@pytest.mark.slow
async def test_a_timeout_waits_for_what_is_not_routed_yet(rig: Rig, routing: Routing) -> None:
    """The router is away when the event comes, and when the time is over: it was accepted in time, so it counts."""
    app, journal = App(), routing.log()
    listening(app, timeout=3.0)
    async with rig.running(app):
        async with routing.router():
            runs = await rig.add("open_incident", [{"id": "in time"}, {"id": "never"}])
            await waiting(rig, runs)
            await rig.until(lambda: rig.db.fetchval("select count(*) from log_progress"))
        await append(journal, answer("in time"))
        await asyncio.sleep(4.0)  # nothing says that a time is over that nobody may end
        assert await rig.db.fetchval("select count(*) from wait where over or event_id is not null") == 0
        async with routing.router():
            done = await rig.ended(runs)
    assert json.loads(done[runs[0]]["result"])["key"] == "in time"
    assert done[runs[1]]["result"] == b"null"


async def test_the_end_of_a_wait_is_held_for_a_bounded_time(
    rig: Rig, routing: Routing, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(waits, "HOLD_S", 1.0)
    app = App()
    listening(app, timeout=0.1)
    async with rig.running(app):
        runs = await rig.add("open_incident", [{"id": "x"}])
        done = await rig.ended(runs)
    assert done[runs[0]]["result"] == b"null"
    assert "a wait ended though routing is behind" in caplog.text


async def test_an_event_that_comes_while_its_run_is_in_hand_wakes_it_all_the_same(rig: Rig, routing: Routing) -> None:
    """Between the opening of the wait and the moment when the run is put away."""
    app, journal, go = App(), routing.log(), asyncio.Event()

    @app.workflow(on="test.thing")
    async def busy(event: Event, ctx: Context) -> Any:
        async def other() -> None:
            await go.wait()

        heard, _ = await asyncio.gather(ctx.wait_for("incident.answered", key="x"), ctx.step(other))
        assert heard is not None
        return heard.json["n"]

    async with rig.running(app), routing.router():
        (run,) = await rig.add("busy", [{}])
        await rig.until(lambda: rig.db.fetchval("select count(*) from wait"))
        await append(journal, answer("x", n=5))
        await rig.until(lambda: rig.db.fetchval("select count(*) from wait where event_id is not null"))
        assert await rig.db.fetchval("select wakes from run where id = $1", run) == 1
        go.set()
        assert (await rig.ended([run]))[run]["result"] == b"5"


async def test_what_was_heard_is_remembered_and_not_asked_for_again(rig: Rig, routing: Routing) -> None:
    app, journal = App(), routing.log()

    @app.workflow(on="test.thing")
    async def careful(event: Event, ctx: Context) -> Any:
        heard = await ctx.wait_for("incident.answered", key="x")
        assert heard is not None
        await ctx.sleep(0.1)
        return [heard.id, heard.type, heard.source, dict(heard.headers), heard.body.decode()]

    async with rig.running(app), routing.router():
        (run,) = await rig.add("careful", [{}])
        await waiting(rig, [run])
        came = answer("x")
        await append(journal, came)
        done = (await rig.ended([run]))[run]
    result = json.loads(done["result"])
    assert result[0].replace("-", "") == came.id.hex()
    assert result[1:] == ["incident.answered", "shop", {}, came.body.decode()]


async def test_a_wait_outlives_all_processes(rig: Rig, routing: Routing) -> None:
    app, journal = App(), routing.log()
    listening(app)
    async with rig.running(app), routing.router():
        runs = await rig.add("open_incident", [{"id": "x"}])
        await waiting(rig, runs)
    async with routing.router():
        await append(journal, answer("x"))
        await rig.until(lambda: rig.db.fetchval("select count(*) from run where state = 0"))
    async with rig.running(app):
        done = await rig.ended(runs)
    assert json.loads(done[runs[0]]["result"])["key"] == "x"


async def test_fields_that_come_from_data_are_refused_before_they_are_too_many(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them would cost something for each event of the type, for ever."""
    monkeypatch.setattr(waits, "SHAPES_PER_TYPE_MAX", 2)
    app = App()

    @app.workflow(on="test.thing", retry=Retry(attempts=1))
    async def strange(event: Event, ctx: Context) -> None:
        await ctx.wait_for("incident.answered", match={event.json["id"]: 1}, timeout=3600)

    async with rig.running(app):
        good = await rig.add("strange", [{"id": "a"}, {"id": "b"}])
        await waiting(rig, good)
        (bad,) = await rig.add("strange", [{"id": "c"}])
        done = (await rig.ended([bad]))[bad]
        more = await rig.add("strange", [{"id": "a"}])
        await waiting(rig, more)
    assert done["status"] == 6 and "belongs into a value" in done["error"]
    assert await rig.db.fetchval("select count(*) from wait_shape") == 2


async def test_a_worker_that_stands_still_in_the_middle_holds_up_no_router(rig: Rig, routing: Routing) -> None:
    """It has the lock on what an event is waited for by: the server takes that from it."""
    app, journal = App(), routing.log()
    listening(app)
    async with rig.running(app), routing.router():
        runs = await rig.add("open_incident", [{"id": "x"}])
        await waiting(rig, runs)
        async with pool.Store(pool.Settings(dsn=rig.database.worker_dsn), role="still") as store:
            with contextlib.suppress(Unavailable, Uncertain):
                async with store.transaction(timeout_s=30) as session:
                    key = await rig.db.fetchval("select key from wait")
                    await waits.lock(session, [key])
                    await append(journal, answer("x"))
                    done = await rig.ended(runs)
    assert json.loads(done[runs[0]]["result"])["key"] == "x"


async def test_a_wait_beside_a_task_that_sleeps_is_open_before_its_run_is_put_away(rig: Rig, routing: Routing) -> None:
    """The workflow's own task waits for an event, and what it began sleeps already while that wait is being opened."""
    app, journal = App(), routing.log()

    @app.workflow(on="test.thing")
    async def reminded(event: Event, ctx: Context) -> Any:
        reminder = asyncio.create_task(ctx.sleep(hours=1))
        heard = await ctx.wait_for("incident.answered", key="x")
        reminder.cancel()
        return None if heard is None else heard.json["n"]

    async with rig.running(app), routing.router():
        (run,) = await rig.add("reminded", [{}])
        await waiting(rig, [run])
        assert await rig.db.fetchval("select count(*) from wait") == 1
        await append(journal, answer("x", n=5))
        assert (await rig.ended([run]))[run]["result"] == b"5"


async def test_a_store_that_lost_by_which_fields_is_waited_is_told_again(rig: Rig, routing: Routing) -> None:
    """A fail-over to a replica that lagged: the worker remembers what the store and its routers don't know any more."""
    app, journal = App(), routing.log()
    listening(app)
    async with rig.running(app), routing.router():
        (first,) = await rig.add("open_incident", [{"id": "a"}])
        await waiting(rig, [first])
        await append(journal, answer("a"))
        await rig.ended([first])
        await rig.db.execute("delete from wait_shape")
        await rig.db.execute("delete from correlation")
        (later,) = await rig.add("open_incident", [{"id": "b"}])
        await waiting(rig, [later])
        await append(journal, answer("b"))
        done = await rig.ended([later])
    assert json.loads(done[later]["result"])["key"] == "b"


async def test_events_that_can_be_waited_for_in_many_ways_are_routed_all_the_same(rig: Rig, routing: Routing) -> None:
    """A lock for each way and event would be more than a server has."""
    journal = routing.log()
    names = [f"f{n}" for n in range(waits.SHAPES_PER_TYPE_MAX)]
    await rig.db.executemany(
        "insert into wait_shape (type, fields) values ('incident.answered', array[$1])",
        [(f"/{name}",) for name in names],
    )
    async with routing.router():
        await append(journal, *(answer(f"i{n}", **dict.fromkeys(names, n)) for n in range(400)))
        await rig.until(lambda: rig.db.fetchval("select count(*) = 400 from event"), 20)


async def test_names_that_the_store_can_not_keep_are_refused_and_others_wait_on(rig: Rig, routing: Routing) -> None:
    app = App()

    @app.workflow(on="test.thing", retry=Retry(attempts=1))
    async def strange(event: Event, ctx: Context) -> None:
        await ctx.wait_for("incident.answered", match=event.json, timeout=3600)

    async with rig.running(app):
        chance = random.Random(5)
        long = {"".join(chr(chance.randrange(0x4E00, 0x9FFF)) for _ in range(190)): 1 for _ in range(8)}
        bad = await rig.add("strange", [{"a\0b": 1}, {"a\u200bb": 1}, long])
        good = await rig.add("strange", [{"a": 1}])
        await waiting(rig, good)
        done = await rig.ended(bad)
    assert {row["status"] for row in done.values()} == {6}


async def test_new_fields_are_known_only_when_each_batch_from_before_has_ended(rig: Rig) -> None:
    """Also one that has read what it goes by, and has written nothing yet, so that it has no number either."""
    batch = await asyncpg.connect(rig.database.dsn)
    async with pool.Store(pool.Settings(dsn=rig.database.worker_dsn), role="test") as store:
        try:
            transaction = batch.transaction()
            await transaction.start()
            await batch.execute("lock table log_position in row exclusive mode")
            known = await waits.know_shape(store, "incident.answered", ["/key"])
            assert known is not None and len(known.batches) == 1
            assert not await waits.passed(store, known)
            await transaction.rollback()
            assert await waits.passed(store, known)
        finally:
            await batch.close()


async def test_ways_to_wait_that_come_at_once_are_numbered_as_they_become_visible(rig: Rig) -> None:
    """A router compares the newest alone."""
    first = await asyncpg.connect(rig.database.worker_dsn)
    async with pool.Store(pool.Settings(dsn=rig.database.worker_dsn), role="test") as store:
        try:
            transaction = first.transaction()
            await transaction.start()
            await first.execute("select pg_advisory_xact_lock(7203002)")
            await first.execute("insert into wait_shape (type, fields) values ('first', '{/key}')")
            second = asyncio.create_task(waits.know_shape(store, "second", ["/key"]))
            await asyncio.sleep(0.2)
            assert not second.done()
            await transaction.commit()
            await second
        finally:
            await first.close()
    assert [row["type"] for row in await rig.db.fetch("select type from wait_shape order by id")] == ["first", "second"]


@pytest.mark.slow
@pytest.mark.parametrize("lookback", [0.0, 60.0])
async def test_an_event_ends_one_of_the_waits_of_a_run_that_want_it(
    rig: Rig, routing: Routing, lookback: float
) -> None:
    app, journal = App(), routing.log()

    @app.workflow(on="test.thing")
    async def both(event: Event, ctx: Context) -> Any:
        wait = {"key": "x", "lookback": lookback, "timeout": 3.0}
        heard = await asyncio.gather(*(ctx.wait_for("incident.answered", **wait) for _ in range(3)))
        return sorted(0 if one is None else one.json["n"] for one in heard)

    async with rig.running(app), routing.router():
        (run,) = await rig.add("both", [{}])
        await waiting(rig, [run])
        await append(journal, answer("x", n=1), answer("x", n=2))
        runs = [run]
        if lookback:
            await rig.until(lambda: rig.db.fetchval("select count(*) = 2 from correlation"))
            runs += await rig.add("both", [{}])
        done = await rig.ended(runs)
    assert {row["result"] for row in done.values()} == {b"[0,1,2]"}


async def test_a_wait_that_is_opened_while_its_run_ends_is_not_left_behind_for_ever(rig: Rig) -> None:
    app, event = App(), asyncio.Event()

    @app.workflow(on="test.thing")
    async def busy(event_: Event, ctx: Context) -> None:
        await event.wait()

    async with rig.running(app) as worker:
        (run,) = await rig.add("busy", [{}])
        await rig.until(lambda: worker._bench.count == 1)
        opening = await asyncpg.connect(rig.database.worker_dsn)
        async with opening.transaction():
            await opening.execute("update run set listens = true where id = $1", run)
            await opening.execute(
                "insert into wait (run_id, name, nth, key, since_us) values ($1, 'w', 0, '\\x00', 0)", run
            )
            event.set()
            await rig.until(lambda: rig.db.fetchval("select count(*) from pg_locks where not granted"))
        await opening.close()
        await rig.ended([run])
    async with pool.Store(pool.Settings(dsn=rig.database.dsn), role="test") as store:
        for after, found in [(run, (0, 0)), (0, (1, 0))]:
            assert await waits.prune_ended(store, after=after, rows_max=10) == found
    assert await rig.db.fetchval("select count(*) from wait") == 0


async def test_what_a_run_heard_before_it_was_cancelled_it_still_has_when_it_is_tried_again(
    rig: Rig, routing: Routing
) -> None:
    app, journal = App(), routing.log()
    listening(app)
    async with pool.Store(pool.Settings(dsn=rig.database.dsn), role="test") as store, routing.router():
        async with rig.running(app):
            runs = await rig.add("open_incident", [{"id": "x"}])
            await waiting(rig, runs)
        await append(journal, answer("x"))
        await rig.until(lambda: rig.db.fetchval("select event_id is not null from wait"))
        async with store.transaction() as session:
            marked = await cancel.mark(session, runs, "by mistake")
        await cancel.settle(store, marked, timeout_s=5)
        wish = replace(of_runs("state=cancelled", now_us=CLOCK.wall_us()), since_us=0)
        author = Author("ann", CLOCK, "")
        await bulk.make(store, bulk.Wish(act=bulk.Act.RETRY, narrow=wish, text="", expected=1), author, timeout_s=5)
        await rig.until(lambda: rig.db.fetchval("select count(*) from run"))
        async with rig.running(app):
            done = await rig.ended(runs)
    assert json.loads(done[runs[0]]["result"])["key"] == "x"
