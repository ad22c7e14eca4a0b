"""Versions by hand: what is chosen stands, what is frozen is held, and a run is moved only out of nobody's hands."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import asyncpg
import pytest

from seawall import App, Context, Event
from seawall.kernel.error import Rejected
from seawall.store import version
from seawall.store.change import Author
from seawall.store.pool import Store
from seawall.store.workflow import Declared, register, seen
from worker.rig import CLOCK, Rig
from worker.test_presence import active

AUTHOR = Author("ann", CLOCK, "it pages everybody")


async def register_all(store: Store, owner: uuid.UUID, *versions: str) -> None:
    declared = [Declared("deploy", version, "x", "default") for version in versions]
    await register(store, declared, owner=owner, live_s=60)


async def choose(store: Store, choice: version.Choice) -> tuple[str, str]:
    return await version.choose(store, "deploy", choice, AUTHOR, timeout_s=5)


async def test_what_is_chosen_by_hand_stands_until_no_worker_has_it(rig: Rig, store: Store) -> None:
    first, second = uuid.uuid4(), uuid.uuid4()
    await register_all(store, first, "1", "2")
    assert await choose(store, version.previous) == ("version 2", "version 1, by hand")
    await register_all(store, second, "1", "2", "3")
    await seen(store, owner=first, live_s=60)
    assert await active(rig) == ["deploy@1"], "a newer version changes nothing"
    await register_all(store, first, "3")
    assert await active(rig) == ["deploy@1"], "somebody has it still"
    await rig.db.execute("update worker set seen_at = now() - interval '1 hour' where owner = $1", second)
    await seen(store, owner=first, live_s=60)
    assert await active(rig) == ["deploy@1"], "who is only away has it still"
    await register_all(store, second, "3")
    assert await active(rig) == ["deploy@3"], "nobody has it any more"
    line = await rig.db.fetchrow("select * from change where kind = 'workflow'")
    assert (line["what"], line["by"], line["before"], line["after"]) == (
        "deploy", "ann", "version 2", "version 1, by hand",
    )  # fmt: skip


async def test_a_choice_is_refused_that_would_only_have_runs_wait(rig: Rig, store: Store) -> None:
    owner = uuid.uuid4()
    await register_all(store, owner, "1")
    await register_all(store, owner, "2")
    for choice, status in ((version.version("1"), 409), (version.version("7"), 404), (version.previous, 409)):
        with pytest.raises(Rejected) as refused:
            await choose(store, choice)
        assert refused.value.status == status
    with pytest.raises(Rejected):
        await version.choose(store, "other", version.automatic, AUTHOR, timeout_s=5)
    assert await active(rig) == ["deploy@2"]
    assert await choose(store, version.version("2")) == ("version 2", "version 2, by hand")
    assert await choose(store, version.automatic) == ("version 2, by hand", "version 2")


def counting(version: str, queue: str, called: list[str], at: asyncio.Event, go_on: asyncio.Event) -> App:
    app = App()

    async def first() -> str:
        called.append(f"first of {version}")
        return "kept"

    async def second() -> str:
        at.set()
        await go_on.wait()
        return version

    @app.workflow(on="test.thing", name="flow", version=version, queue=queue)
    async def flow(event: Event, ctx: Context) -> list[str]:
        return [await ctx.step(first), await ctx.step(second)]

    return app


async def test_a_run_that_is_moved_into_a_queue_whose_worker_never_saw_it_repeats_no_step(
    rig: Rig, store: Store
) -> None:
    """Its number is above what was there when that worker took its shards: by that alone it would be taken for new."""
    called: list[str] = []
    at, go_on = asyncio.Event(), asyncio.Event()
    async with rig.running(counting("2", "other", called, asyncio.Event(), go_on)):
        async with rig.running(counting("1", "default", called, at, go_on)):
            [run] = await rig.add("flow", [{}], version="1")
            await at.wait()
            done = await version.move(store, [run], "2", AUTHOR, timeout_s=5)
            assert done.missed == {run: "a worker has it in hand: try again when it waits"} and not done.moved
            assert await rig.db.fetchval("select state from run where id = $1", run) == 0
        done = await version.move(store, [run, 5], "2", AUTHOR, timeout_s=5)
        assert (done.moved, done.missed) == ([run], {5: "it has ended, or never was"})
        go_on.set()
        ended = (await rig.ended([run]))[run]
        assert (ended["result"], called) == (b'["kept","2"]', ["first of 1"])
    told = await rig.db.fetch("select * from change where kind = 'workflow'")
    assert [(row["before"], row["after"]) for row in told] == [("version 1", "1 run moved to version 2")]


async def stranded(rig: Rig, store: Store, count: int) -> list[int]:
    """Ready runs of deploy@1, and a version 2, without any worker."""
    await register_all(store, uuid.uuid4(), "1", "2")
    return await rig.add("deploy", [{}] * count, version="1")


async def test_a_refill_under_way_that_has_read_a_run_keeps_it_from_being_moved(rig: Rig, store: Store) -> None:
    """Forced order: the refill has read the run as ready, and says so only after it was set aside."""
    taken, free = await stranded(rig, store, 2)
    refill = await asyncpg.connect(rig.database.dsn)
    await refill.execute("begin; lock table refill in row exclusive mode")
    moving = asyncio.create_task(version.move(store, [taken, free], "2", AUTHOR, timeout_s=5))

    async def aside() -> Any:
        return await rig.db.fetchval("select count(*) = 2 from run where state = 2")

    await rig.until(aside)
    await refill.execute("insert into refill values (1, 0, 1, 1, $1)".replace("$1", f"array[{taken}]::bigint[]"))
    assert not moving.done()
    await refill.execute("commit")
    done = await moving
    assert (done.moved, [*done.missed]) == ([free], [taken])
    rows = await rig.db.fetch(
        "select r.state, w.version from run r join workflow w on w.id = r.workflow_id order by r.id"
    )
    assert [(row["state"], row["version"]) for row in rows] == [(0, "1"), (0, "2")]
    await refill.close()


async def test_a_run_that_ends_or_is_put_away_while_it_is_being_moved_is_left_alone(rig: Rig, store: Store) -> None:
    ends, waits = await stranded(rig, store, 2)
    refill = await asyncpg.connect(rig.database.dsn)
    await refill.execute("begin; lock table refill in row exclusive mode")
    moving = asyncio.create_task(version.move(store, [ends, waits], "2", AUTHOR, timeout_s=5))

    async def aside() -> Any:
        return await rig.db.fetchval("select count(*) = 2 from run where state = 2")

    await rig.until(aside)
    await rig.db.execute("delete from run where id = $1", ends)
    await rig.db.execute("update run set state = 1, run_after = now() + interval '1 hour' where id = $1", waits)
    await refill.execute("commit")
    done = await moving
    assert not done.moved and len(done.missed) == 2
    assert await rig.db.fetchval("select state from run where id = $1", waits) == 1
    done = await version.move(store, [waits], "2", AUTHOR, timeout_s=5)
    assert done.moved == [waits] and await rig.db.fetchval("select state from run") == 1
    await refill.close()


async def test_runs_of_another_workflow_or_version_are_missed_by_name(rig: Rig, store: Store) -> None:
    [run] = await stranded(rig, store, 1)
    done = await version.move(store, [run], "9", AUTHOR, timeout_s=5)
    assert done.missed == {run: "workflow deploy has no version 9"}
    done = await version.move(store, [run], "1", AUTHOR, timeout_s=5)
    assert done.missed == {run: "it has version 1 already"}


async def test_a_held_run_that_a_worker_has_in_hand_isnt_moved_and_one_that_nobody_has_stays_held(
    rig: Rig, store: Store
) -> None:
    """Holding takes nothing out of anybody's hands: moved, it would be begun by two workers once it is released."""
    called: list[str] = []
    at, go_on, other = asyncio.Event(), asyncio.Event(), asyncio.Event()
    async with rig.running(counting("2", "other", called, other, go_on)):
        async with rig.running(counting("1", "default", called, at, go_on)):
            [run] = await rig.add("flow", [{}], version="1")
            await at.wait()
            await rig.db.execute("update run set state = 2 where id = $1", run)
            done = await version.move(store, [run], "2", AUTHOR, timeout_s=5)
            assert done.missed == {run: "a worker has it in hand: try again when it waits"} and not done.moved
            assert await rig.db.fetchval("select state from run where id = $1", run) == 2
        assert (await version.move(store, [run], "2", AUTHOR, timeout_s=5)).moved == [run]
        assert await rig.db.fetchval("select state from run where id = $1", run) == 2
        await rig.db.execute("update run set state = 0 where id = $1", run)
        go_on.set()
        assert (await rig.ended([run]))[run]["result"] == b'["kept","2"]'
    assert called == ["first of 1"]


async def test_a_run_that_was_put_away_while_it_was_moved_sleeps_on(rig: Rig, store: Store) -> None:
    asleep, listening = await stranded(rig, store, 2)
    refill = await asyncpg.connect(rig.database.dsn)
    await refill.execute("begin; lock table refill in row exclusive mode")
    moving = asyncio.create_task(version.move(store, [asleep, listening], "2", AUTHOR, timeout_s=5))

    async def aside() -> Any:
        return await rig.db.fetchval("select count(*) = 2 from run where state = 2")

    await rig.until(aside)
    await rig.db.execute("update run set run_after = now() + interval '1 hour', listens = id = $1", listening)
    await refill.execute("commit")
    assert len((await moving).moved) == 2
    rows = await rig.db.fetch("select id, state, run_after is null from run")
    assert {tuple(row) for row in rows} == {(asleep, 1, False), (listening, 0, True)}, "what it waits for may have come"
    await refill.close()
