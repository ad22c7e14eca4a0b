"""The store is failed over to a replica that lagged: numbers and epochs that it gave in the time which it lost would be
given again. Here its timeline is changed, and what it lost taken away, in a moment of our choice; over a real pair of
servers it is in `test_failover.py`.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from seawall import App, Context, Event
from seawall.kernel.error import Fenced
from seawall.kernel.metric import Metrics
from seawall.kernel.status import DAY_SHIFT, RunStatus
from seawall.store import child, lease, pool
from seawall.store.flush import End, Rows, Step, flush
from seawall.store.lease import Lease, Shard
from seawall.store.pool import Store
from seawall.store.run import prepare
from seawall.testing.postgres import Database
from worker.rig import Rig, opened

app = App()
QUEUE = 1  # the first id in a fresh database
BY_HAND = 60.0
NEXT = "select run_number_base() + nextval('run_number')"


@pytest.fixture
async def rig(database: Database) -> AsyncIterator[Rig]:
    async with opened(database) as rig:
        yield rig


@pytest.fixture
async def store(rig: Rig) -> AsyncIterator[Store]:
    await rig.registered(app)
    async with Store(pool.Settings(dsn=rig.database.worker_dsn), role="t") as s:
        yield s


@app.workflow(on="test.thing")
async def nothing(event: Event, ctx: Context) -> None:
    return None


async def promoted(db: asyncpg.Connection) -> None:
    """From now on the server is in another timeline."""
    await db.execute(
        "create or replace function store_timeline() returns integer language plpgsql volatile as"
        f" $$ begin return {await db.fetchval('select store_timeline()')} + 1; end $$"
    )


async def take(store: Store, owner: uuid.UUID, *, ttl_s: float = BY_HAND, ours: int | None = None) -> lease.Taken:
    return await lease.take(store, Shard(QUEUE, 0), owner=owner, ttl_s=ttl_s, deaths_max=3, ours=ours)


def outcome(run: int, under: Lease) -> Rows:
    return Rows(
        leases=[under],
        steps=[Step(run, "step", 0, b"1", False, under.epoch, 1, 1_700_000_000_000_000)],
        ends=[End(run, RunStatus.SUCCEEDED, 1, b"1", None, 1_700_000_000_000_000)],
    )


async def test_a_lease_of_another_timeline_is_none_though_its_row_stands(rig: Rig, store: Store) -> None:
    (run,) = await rig.add("nothing", [{}], shard=0)
    me = uuid.uuid4()
    held = (await take(store, me)).lease
    await promoted(rig.db)
    async with store.own_connection() as session:
        await prepare(session)
        assert await flush(session, outcome(run, held)) == set()
        assert await lease.renew(store, [held], owner=me, ttl_s=BY_HAND) == set()
        again = (await take(store, me)).lease
        assert await flush(session, outcome(run, held)) == set()
        assert await flush(session, outcome(run, again)) is None
    assert await rig.db.fetchval("select array_agg(epoch) from step") == [again.epoch]


async def test_an_epoch_that_the_store_forgot_is_given_to_nobody_else(rig: Rig, store: Store) -> None:
    """A worker's takeover was lost, and another worker takes the same shard in what is left."""
    (run,) = await rig.add("nothing", [{}], shard=0)
    before = (await take(store, uuid.uuid4(), ttl_s=0)).lease
    zombie = (await take(store, uuid.uuid4(), ttl_s=0)).lease
    assert zombie.epoch == before.epoch + 1
    await rig.db.execute("update shard_lease set epoch = $1 where shard = 0", before.epoch)
    await promoted(rig.db)
    winner = (await take(store, uuid.uuid4(), ttl_s=0)).lease
    assert winner.epoch > zombie.epoch
    async with store.own_connection() as session:
        assert await flush(session, outcome(run, zombie)) == set()
        assert await flush(session, outcome(run, winner)) is None
    assert await rig.db.fetchval("select array_agg(epoch) from step") == [winner.epoch]


async def test_a_takeover_by_what_was_known_of_another_timeline_is_refused(rig: Rig, store: Store) -> None:
    """Numbers of workflows may mean others by now: whoever takes must have registered since."""
    known = await lease.look(store)
    await promoted(rig.db)
    with pytest.raises(Fenced):
        await lease.take(store, Shard(QUEUE, 0), owner=uuid.uuid4(), ttl_s=1, deaths_max=3, history=known)
    history = await lease.look(store)
    assert history != known
    await lease.take(store, Shard(QUEUE, 0), owner=uuid.uuid4(), ttl_s=1, deaths_max=3, history=history)


async def test_after_a_fail_over_owners_have_a_term_before_others_take_what_expired(rig: Rig, store: Store) -> None:
    me = uuid.uuid4()
    await take(store, me, ttl_s=0)
    await rig.db.execute("update store_life set since = now() - interval '1 hour'")

    async def offered(who: uuid.UUID) -> bool:
        free = await lease.free(store, [QUEUE], owner=who, suspects=False, grace_s=30)
        return (Shard(QUEUE, 0), True) in free

    assert await offered(uuid.uuid4())
    await promoted(rig.db)
    await lease.look(store)
    assert await offered(me) and not await offered(uuid.uuid4())


@pytest.mark.parametrize("shard", [0, -1])
async def test_what_was_in_the_hands_of_a_process_that_lives_is_no_suspect(rig: Rig, store: Store, shard: int) -> None:
    (run,) = await rig.add("nothing", [{}], shard=shard)
    for ours, deaths in ((True, 0), (False, 1)):
        me = uuid.uuid4()
        held = (await lease.take(store, Shard(QUEUE, shard), owner=me, ttl_s=0, deaths_max=3)).lease
        await rig.db.execute(
            "insert into refill (queue_id, shard, epoch, number, run_ids) values ($1, $2, $3, 1, $4)",
            QUEUE, shard, held.epoch, [run],
        )  # fmt: skip
        taken = await lease.take(
            store, Shard(QUEUE, shard), owner=me, ttl_s=0, deaths_max=3, ours=held.epoch if ours else held.epoch + 1
        )
        assert taken.suspects + taken.deaths == deaths
    assert await rig.db.fetchval("select count(*) from refill") == 0


async def test_a_life_of_the_server_begins_with_numbers_that_no_other_gave(rig: Rig) -> None:
    db, other = rig.db, await asyncpg.connect(rig.database.worker_dsn)
    lost = await db.fetchval("select max(n) from (select nextval('run_number') n from generate_series(1, 1000)) g")
    await db.execute("select setval('run_number', 1)")  # a replica that lagged
    await promoted(db)
    async with db.transaction():
        mine = await db.fetchval(NEXT)
        theirs = asyncio.create_task(other.fetchval(NEXT))
        await rig.until(lambda: db.fetchval("select count(*) from pg_stat_activity where wait_event_type = 'Lock'"), 10)
        assert not theirs.done(), "nobody gives numbers while it isn't settled"
    assert mine > lost
    assert await theirs == mine + 1 and await db.fetchval(NEXT) == mine + 2, "one leap for each life"
    # The same server, started again over a copy of its files: the timeline says nothing of that.
    await db.execute("update store_life set started_at = started_at - interval '1 s'")
    assert await db.fetchval(NEXT) > mine + 1000
    await other.close()


def gated() -> tuple[App, asyncio.Event, list[str]]:
    """An app whose runs stand in their second step until the event is set, and what was called of it."""
    made, gate, calls = App(), asyncio.Event(), []

    @made.workflow(on="test.thing")
    async def flow(event: Event, ctx: Context) -> str:
        async def first() -> str:
            calls.append(f"first {event.json}")
            return str(event.json)

        async def second() -> str:
            calls.append(f"second {event.json}")
            await gate.wait()
            return str(event.json)

        kept = await ctx.step(first)
        return f"{kept}, {await ctx.step(second)}"

    return made, gate, calls


async def test_a_run_that_the_store_forgot_writes_nothing_under_the_number_of_another(rig: Rig) -> None:
    """Its number comes again for another event: once that one was ended with the outcome of the lost run, unrun."""
    made, gate, calls = gated()
    async with rig.running(made):
        (lost,) = await rig.add("flow", ["lost"], shard=0)
        await rig.until(lambda: rig.db.fetchval("select count(*) = 1 from step where name = 'first'"))
        async with rig.db.transaction():
            await promoted(rig.db)
            await rig.db.execute("delete from step; delete from refill; delete from run; delete from event")
            await rig.db.execute("select setval('run_number', $1, false)", lost & ((1 << DAY_SHIFT) - 1))
            (other,) = await rig.add("flow", ["other"], shard=0, hint=False)
        assert other == lost, "the rig gives numbers as they were given before"
        gate.set()
        row = (await rig.ended([other]))[other]
    assert row["result"] == b'"other, other"' and row["status"] == RunStatus.SUCCEEDED
    assert await rig.db.fetchval("select count(*) from step") == 2
    assert calls.count("first other") == calls.count("second other") == 1


async def test_runs_in_hand_go_on_from_what_the_store_has_and_nobody_is_suspected(rig: Rig) -> None:
    made, gate, calls = gated()
    metrics = Metrics()
    async with rig.running(made, metrics=metrics):
        runs = await rig.add("flow", ["a", "b", "c", "d"])
        await rig.until(lambda: len([c for c in calls if c.startswith("second")]) == 4)
        await promoted(rig.db)
        gate.set()
        done = await rig.ended(runs)
    assert {row["status"] for row in done.values()} == {RunStatus.SUCCEEDED}
    assert all(calls.count(f"first {name}") == 1 for name in "abcd"), "what is kept isn't done again"
    assert sum(s.value for s in metrics.samples() if s.name == "seawall_suspects_total") == 0
    assert await rig.db.fetchval("select count(*) from step") == 8


async def test_a_run_that_the_store_forgot_begins_no_other(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it began would be nobody's: it was cancelled as its parent wasn't there, and never woke the one that was."""
    app, gate, noticed, asked, calls = App(), asyncio.Event(), asyncio.Event(), asyncio.Event(), list[str]()
    look, start = lease.look, child.start

    async def late(store: Store) -> uuid.UUID:
        await noticed.wait()
        return await look(store)

    async def told(*given: Any) -> Any:
        try:
            return await start(*given)
        finally:
            asked.set()

    @app.workflow(on="child")
    async def other(event: Event, ctx: Context) -> str:
        calls.append("called")
        try:
            await ctx.step(asyncio.sleep, 1.0)
        except asyncio.CancelledError:
            calls.append("cancelled")
            raise
        return "done"

    @app.workflow(on="test.thing")
    async def flow(event: Event, ctx: Context) -> Any:
        if not noticed.is_set():
            await gate.wait()
        return await ctx.run("other")

    async with rig.running(app):
        monkeypatch.setattr("seawall.worker.lease.look", late)
        monkeypatch.setattr("seawall.worker.bench.start", told)
        (lost,) = await rig.add("flow", ["x"], shard=0)
        await rig.until(lambda: rig.db.fetchval("select count(*) = 1 from refill"))
        await promoted(rig.db)
        await rig.db.execute("delete from refill; update run set id = id + 100000000, state = 2")  # routed again
        gate.set()
        await asked.wait()
        assert await rig.db.fetchval("select count(*) from run") == 1
        noticed.set()
        await rig.db.execute("update run set state = 0")
        done = (await rig.ended([lost + 100000000]))[lost + 100000000]
        headers = await rig.db.fetchval("select headers from event where source = ':run'")
    assert done["result"] == b'"done"' and calls == ["called"]
    assert child.parent_of(":run", headers) == lost + 100000000


async def test_workflows_are_registered_again_before_anything_is_taken(rig: Rig) -> None:
    """The store gives the number of a workflow that it forgot to another one."""
    made, gate, calls = gated()
    gate.set()
    async with rig.running(made):
        async with rig.db.transaction():
            await promoted(rig.db)
            await rig.db.execute("update workflow set name = 'somebody-elses' where name = 'flow'")
            await rig.db.execute("delete from worker")
            (foreign,) = await rig.add("somebody-elses", ["foreign"])
        await rig.until(lambda: rig.db.fetchval("select count(*) = 1 from workflow where name = 'flow' and active"))
        await rig.ended(await rig.add("flow", ["ours"]))
    assert calls == ["first ours", "second ours"]
    assert await rig.db.fetchval("select count(*) from run where id = $1", foreign) == 1


async def test_two_replicas_that_are_promoted_in_turn_share_a_timelines_number_and_nothing_else(
    rig: Rig, store: Store
) -> None:
    """The second one never followed the first, and counts its timeline up from the same one."""
    before = await rig.db.fetchrow("select * from store_life")
    (run,) = await rig.add("nothing", [{}], shard=0)
    held = (await take(store, uuid.uuid4(), ttl_s=0)).lease
    number = await rig.db.fetchval("select last_value from run_number")
    assert before is not None
    await promoted(rig.db)
    first, lost = await lease.look(store), await rig.db.fetchval(NEXT)
    zombie = (await take(store, uuid.uuid4(), ttl_s=0)).lease
    # The other replica: all of that isn't there, and its timeline has the same number.
    await rig.db.execute("update store_life set timeline = $1, history = $2", before["timeline"], before["history"])
    await rig.db.execute("update shard_lease set epoch = $1, timeline = $2", held.epoch, before["timeline"])
    await rig.db.execute("select setval('run_number', $1)", number)
    assert await lease.look(store) not in (first, before["history"])
    assert await rig.db.fetchval(NEXT) != lost
    winner = (await take(store, uuid.uuid4(), ttl_s=0)).lease
    async with store.own_connection() as session:
        assert await flush(session, outcome(run, zombie)) == set()
        assert await flush(session, outcome(run, winner)) is None
