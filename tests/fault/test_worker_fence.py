"""The fence itself: a flush that is inside its statement across a takeover, and one that comes after."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from seawall import App, Context, Event
from seawall.kernel.error import Fenced
from seawall.kernel.status import RunStatus
from seawall.store import lease, pool
from seawall.store.flush import BrokenFence, End, Rows, Step, flush
from seawall.store.lease import Shard, Taken
from seawall.store.pool import Store
from seawall.store.run import prepare
from seawall.testing.postgres import Database
from worker.rig import Rig, opened, process

app = App()
GATE = 4711
QUEUE = 1  # the first id in a fresh database
WAITING = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"


@app.workflow(on="test.thing")
async def nothing(event: Event, ctx: Context) -> None:
    return None


@pytest.fixture
async def rig(database: Database) -> AsyncIterator[Rig]:
    async with opened(database) as rig:
        await rig.registered(app)
        yield rig


@pytest.fixture
async def store(rig: Rig) -> AsyncIterator[Store]:
    async with Store(
        pool.Settings(dsn=rig.database.worker_dsn, lock_timeout_s=30, statement_timeout_s=30), role="t"
    ) as s:
        yield s


async def take(store: Store, number: int = 0) -> Taken:
    """Take a shard of the only queue in somebody's name, for a moment."""
    return await lease.take(store, Shard(QUEUE, number), owner=uuid.uuid4(), ttl_s=0, deaths_max=3)


def outcome(run: int, epoch: int, leases: list[lease.Lease]) -> Rows:
    return Rows(
        leases=leases,
        steps=[Step(run, "step", 0, b"1", False, epoch, 1, 1_700_000_000_000_000)],
        ends=[End(run, RunStatus.SUCCEEDED, 1, b"1", None, 1_700_000_000_000_000)],
    )


async def waiting(db: asyncpg.Connection, count: int) -> None:
    """Until ``count`` statements of this database wait for a lock."""
    async with asyncio.timeout(10):
        while True:
            sql = (
                "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
            )
            if await db.fetchval(sql) >= count:
                return
            await asyncio.sleep(0.01)


async def gate(rig: Rig, table: str) -> asyncpg.Connection:
    """Every insert into ``table`` waits inside its statement until the returned connection unlocks `GATE`."""
    await rig.db.execute(
        f"create function hold() returns trigger language plpgsql as"
        f" $$ begin perform pg_advisory_xact_lock_shared({GATE}); return new; end $$;"
        f" create trigger hold before insert on {table} for each row execute function hold()"
    )
    holder = await asyncpg.connect(rig.database.dsn)
    await holder.execute(f"select pg_advisory_lock({GATE})")
    return holder


async def test_takeover_waits_for_a_flush_inside_its_statement_and_sees_it(rig: Rig, store: Store) -> None:
    (run,) = await rig.add("nothing", [{}], shard=0)
    first = await take(store)
    holder = await gate(rig, "step_default")
    async with store.own_connection() as session:
        await prepare(session)
        flushing = asyncio.create_task(flush(session, outcome(run, first.lease.epoch, [first.lease])))
        await waiting(rig.db, 1)
        taking = asyncio.create_task(take(store))
        await waiting(rig.db, 2)
        assert not taking.done()  # for as long as the flush is under way
        await holder.close()
        assert await flushing is None
        second = await taking
    assert second.lease.epoch == first.lease.epoch + 1
    assert await rig.db.fetchval("select epoch from step where run_id = $1", run) == first.lease.epoch
    assert await rig.db.fetchval("select status from run_done where id = $1", run) == RunStatus.SUCCEEDED


async def test_takeover_moves_aside_only_what_the_flush_inside_it_left_unfinished(rig: Rig, store: Store) -> None:
    done, left = await rig.add("nothing", [{}, {}], shard=0)
    first = await take(store)
    await rig.db.execute(
        "insert into refill (queue_id, shard, epoch, number, run_ids) values ($1, 0, $2, 1, $3)",
        first.lease.queue_id, first.lease.epoch, [done, left],
    )  # fmt: skip
    holder = await gate(rig, "step_default")
    async with store.own_connection() as session:
        flushing = asyncio.create_task(flush(session, outcome(done, first.lease.epoch, [first.lease])))
        await waiting(rig.db, 1)
        taking = asyncio.create_task(take(store))
        await waiting(rig.db, 2)
        await holder.close()
        await flushing
    assert (await taking).suspects == 1
    assert [tuple(r) for r in await rig.db.fetch("select id, shard from run")] == [(left, -1)]


async def test_flush_after_a_takeover_writes_nothing(rig: Rig, store: Store) -> None:
    (run,) = await rig.add("nothing", [{}], shard=0)
    first = await take(store)
    await take(store)
    async with store.own_connection() as session:
        assert await flush(session, outcome(run, first.lease.epoch, [first.lease])) == set()
    assert await rig.db.fetchval("select count(*) from step") == 0
    assert await rig.db.fetchval("select count(*) from run where id = $1", run) == 1


async def test_flush_begun_during_a_takeover_writes_nothing(rig: Rig, store: Store) -> None:
    (run,) = await rig.add("nothing", [{}], shard=0)
    first = await take(store)
    async with rig.db.transaction():  # a takeover that has raised the epoch and not committed yet
        await rig.db.execute("select 1 from shard_lease where shard = 0 for update")
        await rig.db.execute("update shard_lease set epoch = epoch + 1 where shard = 0")
        other = await asyncpg.connect(rig.database.dsn)
        async with store.own_connection() as session:
            flushing = asyncio.create_task(flush(session, outcome(run, first.lease.epoch, [first.lease])))
            await waiting(other, 1)
            assert not flushing.done()
            await rig.db.execute("commit; begin")
            assert await flushing == set()
        await other.close()
    assert await rig.db.fetchval("select count(*) from step") == 0


async def test_one_lost_lease_refuses_the_whole_flush_and_is_named(rig: Rig, store: Store) -> None:
    kept_run, lost_run = await rig.add("nothing", [{}, {}], shard=0)
    kept, lost = await take(store, 0), await take(store, 1)
    await take(store, 1)
    rows = outcome(kept_run, kept.lease.epoch, [kept.lease, lost.lease])
    async with store.own_connection() as session:
        assert await flush(session, rows) == {kept.lease}
        assert await rig.db.fetchval("select count(*) from step") == 0
        rows.leases = [kept.lease]
        assert await flush(session, rows) is None
    assert await rig.db.fetchval("select array_agg(id) from run") == [lost_run]


@pytest.mark.parametrize("again", [False, True], ids=["unknowingly", "knowingly"])
async def test_a_flush_may_be_repeated_under_its_epoch_but_not_over_another(
    rig: Rig, store: Store, again: bool
) -> None:
    (run,) = await rig.add("nothing", [{}], shard=0)
    first = await take(store)
    async with store.own_connection() as session:
        for _ in range(2):
            assert await flush(session, outcome(run, first.lease.epoch, [first.lease]), again=again) is None
        second = await take(store)
        with pytest.raises(BrokenFence, match=f"epoch {first.lease.epoch}, ours {second.lease.epoch}"):
            await flush(session, outcome(run, second.lease.epoch, [second.lease]), again=again)
    assert await rig.db.fetchval("select count(*) from run_done") == 1


async def test_a_lease_that_is_held_cannot_be_taken(rig: Rig, store: Store) -> None:
    me = uuid.uuid4()
    taken = await lease.take(store, Shard(QUEUE, 0), owner=me, ttl_s=60, deaths_max=3)
    with pytest.raises(Fenced):
        await take(store)
    offered = await lease.free(store, [QUEUE], owner=uuid.uuid4(), suspects=False, grace_s=0)
    assert Shard(QUEUE, 0) not in [one.shard for one in offered]
    assert await lease.renew(store, [taken.lease], owner=me, ttl_s=60) == {Shard(QUEUE, 0)}
    await lease.release(store, [taken.lease], owner=me)
    assert (await take(store)).lease.epoch == taken.lease.epoch + 1


async def test_an_expired_lease_is_renewed_when_nobody_took_it(rig: Rig, store: Store) -> None:
    me = uuid.uuid4()
    taken = await lease.take(store, Shard(QUEUE, 0), owner=me, ttl_s=0, deaths_max=3)
    assert await lease.renew(store, [taken.lease], owner=me, ttl_s=60) == {Shard(QUEUE, 0)}
    # Just after a start of the server, leases that expired meanwhile still belong to their owners.
    await rig.db.execute("update shard_lease set expires_at = now() - interval '1 minute'")
    assert await lease.free(store, [QUEUE], owner=uuid.uuid4(), suspects=False, grace_s=1e6) == [
        (Shard(QUEUE, n), False) for n in (1, 2, 3)
    ]
    for who, grace_s in ((uuid.uuid4(), 0), (me, 1e6)):
        offered = await lease.free(store, [QUEUE], owner=who, suspects=False, grace_s=grace_s)
        assert (Shard(QUEUE, 0), True) in offered, "it was not given back"


async def test_a_lease_that_is_given_up_waits_for_a_flush_inside_its_statement_and_suspects_nobody(
    rig: Rig, store: Store
) -> None:
    done, left = await rig.add("nothing", [{}, {}], shard=0)
    me = uuid.uuid4()
    first = await lease.take(store, Shard(QUEUE, 0), owner=me, ttl_s=60, deaths_max=3)
    await rig.db.execute(
        "insert into refill (queue_id, shard, epoch, number, run_ids) values ($1, 0, $2, 1, $3)",
        first.lease.queue_id, first.lease.epoch, [done],
    )  # fmt: skip
    holder = await gate(rig, "step_default")
    async with store.own_connection() as session:
        flushing = asyncio.create_task(flush(session, outcome(done, first.lease.epoch, [first.lease])))
        await waiting(rig.db, 1)
        giving = asyncio.create_task(lease.release(store, [first.lease], owner=me))
        await waiting(rig.db, 2)
        assert not giving.done()
        await holder.close()
        assert await flushing is None
        await giving
        second = await take(store)
        assert (second.suspects, second.lease.epoch) == (0, first.lease.epoch + 1)
        late = outcome(left, first.lease.epoch, [first.lease])
        assert await flush(session, late) == set(), "whoever gave it up writes nothing any more"
    assert [tuple(r) for r in await rig.db.fetch("select id, shard from run")] == [(left, 0)]


async def test_a_stopped_process_that_wakes_up_writes_nothing_over_its_successor(rig: Rig, tmp_path: Path) -> None:
    from worker import slow

    gate = tmp_path / "gate"
    await rig.registered(slow.app)
    with process(rig, "worker.slow", GATE=str(gate)) as zombie:
        await rig.until(lambda: rig.db.fetchval("select count(*) = 4 from shard_lease where expires_at > now()"))
        runs = await rig.add("slow", [{} for _ in range(20)])
        await rig.until(lambda: rig.db.fetchval("select count(*) = 20 from step"))
        os.kill(zombie.pid, signal.SIGSTOP)  # each run is in its second step, which ends when this process wakes up
        async with rig.worker(slow.app, solo_command=()):
            await rig.until(lambda: rig.db.fetchval("select count(*) = 20 from run where shard = -1"), 20)
            # Nobody runs suspects here; give them back, so that the successor itself does.
            await rig.db.execute("update run set shard = 0")
            gate.touch()
            os.kill(zombie.pid, signal.SIGCONT)
            done = await rig.ended(runs, 30)
    assert {row["status"] for row in done.values()} == {RunStatus.SUCCEEDED}
    epochs = await rig.db.fetch("select run_id, array_agg(epoch order by started_at) e from step group by 1")
    assert all(len(row["e"]) == 2 and row["e"][0] < row["e"][1] for row in epochs)
