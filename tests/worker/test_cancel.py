"""A run that is cancelled ends, wherever it is, in its worker's own order; and nothing of it comes behind its end."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Sequence
from dataclasses import replace

import asyncpg
import pytest

from seawall import App, Context, Event
from seawall.store import cancel, run
from seawall.store.flush import Again, End, Rows, flush
from seawall.store.lease import Lease
from seawall.store.pool import Store
from seawall.worker import cancel as looking
from seawall.worker import execution
from seawall.worker.execution import Execution
from worker.rig import QUICK, Rig

WHY = "cancelled by alice: wrong channel"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "LOOK_S", 0.05)
    monkeypatch.setattr(execution, "REST_S", 0.02)


async def cancelled(store: Store, runs: Sequence[int]) -> cancel.Marked:
    async with store.transaction(timeout_s=5) as session:
        marked = await cancel.mark(session, runs, WHY)
    return await cancel.settle(store, marked, timeout_s=5)


def ids(marked: cancel.Marked) -> list[int]:
    return sorted(one.id for one in marked.ended)


async def row(rig: Rig, run_id: int) -> tuple[int, str | None]:
    found = (await rig.ended([run_id]))[run_id]
    assert await rig.db.fetchval("select count(*) from run where id = $1", run_id) == 0
    return found["status"], found["error"]


def idle(app: App) -> None:
    @app.workflow(on="test.thing")
    async def idle(event: Event, ctx: Context) -> None: ...


@pytest.mark.parametrize("state", [0, 1, 2, 3])
async def test_what_nobody_has_in_hand_ends_at_once_without_a_worker(rig: Rig, store: Store, state: int) -> None:
    app = App()
    idle(app)
    await rig.registered(app)
    runs = await rig.add("idle", [{}, {}, {}], ticket=True)
    await rig.db.execute("update run set state = $1, run_after = now(), listens = true", state)
    await rig.db.execute("insert into wait (run_id, name, nth, key, since_us) values ($1, 'w', 0, '', 0)", runs[0])
    marked = await cancelled(store, [*runs[:2], 12345])
    assert ids(marked) == runs[:2] and marked.cancelling == []
    assert [await row(rig, id) for id in runs[:2]] == [(7, WHY)] * 2
    assert await rig.db.fetchval("select count(*) from run") == 1
    assert await rig.db.fetchval("select count(*) from wait") == 0
    assert await cancelled(store, runs[:2]) == cancel.Marked()  # once more: they are gone


async def test_a_run_in_hand_is_told_its_finally_takes_steps_and_it_is_not_tried_again(rig: Rig, store: Store) -> None:
    app, inside, kept = App(), asyncio.Event(), list[str]()

    @app.workflow(on="test.thing")
    async def hangs(event: Event, ctx: Context) -> None:
        async def hang() -> None:
            inside.set()
            await asyncio.Event().wait()

        async def close() -> str:
            kept.append("closed")
            return "closed"

        try:
            await ctx.step(hang)
        finally:
            await ctx.step(close)

    async with rig.running(app):
        (hanging,) = await rig.add("hangs", [{}])
        await inside.wait()
        assert (await cancelled(store, [hanging])).cancelling == [hanging]
        assert await row(rig, hanging) == (7, WHY)
    assert kept == ["closed"]
    assert await rig.db.fetchval("select string_agg(name, ',') from step where run_id = $1", hanging) == "close"
    assert await rig.db.fetchval("select count(*) from refill") == 0


async def test_a_run_whose_code_goes_on_or_whose_thread_is_blocked_ends_too(rig: Rig, store: Store) -> None:
    app, inside, release, go = App(), asyncio.Event(), threading.Event(), asyncio.Event()

    @app.workflow(on="test.thing")
    async def stubborn(event: Event, ctx: Context) -> None:
        inside.set()
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue

    @app.workflow(on="test.thing")
    async def blocked(event: Event, ctx: Context) -> None:
        await ctx.step(release.wait, 30, name="block")

    try:
        async with rig.running(app, replace(QUICK, threads_max=1, cancel_grace_s=0.3)) as worker:
            runs = await rig.add("stubborn", [{}]) + await rig.add("blocked", [{}])
            await inside.wait()
            await rig.until(lambda: worker._bench.deadlines.steps)
            await cancelled(store, runs)
            ends = [await row(rig, id) for id in runs]
            assert ends == [(7, f"{WHY}; its code went on after that"), (7, WHY)]
            release.set()
            go.set()
            (next_one,) = await rig.add("blocked", [{}])  # the thread is free again, and the process lives
            assert (await rig.ended([next_one]))[next_one]["status"] == 5
    finally:
        release.set()


async def test_a_run_that_was_put_away_while_it_was_marked_ends_all_the_same(rig: Rig, store: Store) -> None:
    """It began to wait, or failed, in the moment of the cancellation: its flush leaves it marked."""
    app = App()
    idle(app)
    await rig.registered(app)
    (one,) = await rig.add("idle", [{}])
    await rig.db.execute("update shard_lease set epoch = 3")
    queue = await rig.db.fetchval("select queue_id from run")
    await rig.db.execute("insert into refill values ($1, 0, 3, 1, array[$2::bigint])", queue, one)
    assert (await cancelled(store, [one])).cancelling == [one]
    async with store.own_connection() as session:
        rows = Rows(leases=[Lease(queue, 0, 3)], agains=[Again(one, 1, 60_000, 1, 0, failed=True)])
        assert await flush(session, rows) is None
    assert await rig.db.fetchval("select state from run") == 9
    async with rig.running(app):  # takes the shard over, as its first owner is gone
        assert await row(rig, one) == (7, WHY)


async def test_a_flush_that_ends_it_first_wins_and_one_that_comes_later_finds_no_row(rig: Rig, store: Store) -> None:
    app = App()
    idle(app)
    await rig.registered(app)
    first, second = await rig.add("idle", [{}, {}], shard=0)
    await rig.db.execute("update shard_lease set epoch = 3")
    queue = await rig.db.fetchval("select queue_id from run limit 1")
    await rig.db.execute("insert into refill values ($1, 0, 3, 1, $2::bigint[])", queue, [first, second])
    await cancelled(store, [first, second])
    async with store.own_connection() as session:
        ends = [End(first, 5, 1, b"1", None, 0)]
        assert await flush(session, Rows(leases=[Lease(queue, 0, 3)], ends=ends)) is None
        assert await cancel.finish(store, [first, second], timeout_s=5) == []  # the second one may be in hand
        assert [one.id for one in await cancel.end_ours(session, [Lease(queue, 0, 2)], [second])] == []
        assert [one.id for one in await cancel.end_ours(session, [Lease(queue, 0, 3)], [second])] == [second]
        late = [End(second, 5, 1, b"2", None, 0)]
        assert await flush(session, Rows(leases=[Lease(queue, 0, 3)], ends=late), again=True) is None
    assert (await row(rig, first))[0] == 5
    assert await row(rig, second) == (7, WHY)


async def test_runs_that_end_and_who_cancels_or_moves_them_take_their_locks_in_one_order(
    rig: Rig, store: Store
) -> None:
    """They end in any order. Each that met another one so stood still for a second, with all that its worker had."""
    app = App()
    idle(app)
    await rig.registered(app)
    low, high = sorted(await rig.add("idle", [{}, {}], shard=0))
    await rig.db.execute("update shard_lease set epoch = 3")
    queue = await rig.db.fetchval("select queue_id from run limit 1")
    ends = [End(id, 5, 1, b"1", None, 0) for id in (high, low)]
    other = await asyncpg.connect(rig.database.dsn)
    async with store.own_connection() as session:
        await run.prepare(session)
        async with other.transaction():
            await other.execute("select 1 from run where id = $1 for update", low)
            flushing = asyncio.create_task(flush(session, Rows(leases=[Lease(queue, 0, 3)], ends=ends), again=True))
            await rig.until(lambda: rig.db.fetchval("select count(*) from pg_locks where not granted"))
            await other.execute("select 1 from run where id = $1 for update", high)
        assert await flushing is None
    await other.close()


async def test_a_refill_that_read_the_run_before_it_was_marked_is_waited_for(rig: Rig, store: Store) -> None:
    """Forced: the refill has read the run, and waits for its lease's row while the run is marked."""
    app = App()
    idle(app)
    await rig.registered(app)
    (one,) = await rig.add("idle", [{}], shard=0)
    queue, workflow = await rig.db.fetchrow("select queue_id, workflow_id from run")
    await rig.db.execute("update shard_lease set epoch = 3")
    holder = await asyncpg.connect(rig.database.dsn)
    try:
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute("select 1 from shard_lease where shard = 0 for update")

        async def refill() -> list[run.Ready]:
            async with store.own_connection() as session:
                await run.prepare(session)
                wish = run.Wish(lease=Lease(queue, 0, 3), number=1, after=run.BEGIN, most=5, kept=0, room=5)
                return await run.refill(session, [wish], known=[workflow], without=[], shared=5, bytes_max=1 << 20)

        refilling = asyncio.create_task(refill())
        waiting = (
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        )
        await rig.until(lambda: rig.db.fetchval(waiting))
        cancelling = asyncio.create_task(cancelled(store, [one]))
        await rig.until(lambda: rig.db.fetchval("select state = 9 from run"))
        await asyncio.sleep(0.1)
        assert not cancelling.done()
        await transaction.rollback()
        assert [ready.id for ready in await refilling] == [one]
        assert (await cancelling).cancelling == [one]
    finally:
        await holder.close()
    assert await rig.db.fetchval("select count(*) from run_done") == 0


async def test_a_run_of_a_process_that_died_is_no_suspect_but_ends(rig: Rig, store: Store) -> None:
    app = App()
    idle(app)
    await rig.registered(app)
    lost, alone = await rig.add("idle", [{}, {}], shard=0)
    await rig.db.execute("update run set shard = -1 where id = $1", alone)
    queue = await rig.db.fetchval("select queue_id from run limit 1")
    await rig.db.execute("update shard_lease set epoch = 3, owner = $1, expires_at = now()", uuid.uuid4())
    await rig.db.execute("insert into refill values ($1, 0, 3, 1, $2), ($1, -1, 3, 1, $3)", queue, [lost], [alone])
    assert (await cancelled(store, [lost, alone])).cancelling == [lost, alone]
    owners = {queue: uuid.uuid4()}
    assert await run.lonely(store, owners, known=[])  # so a process for suspects is started, and takes over
    async with rig.running(app):
        assert await row(rig, lost) == (7, WHY)
        async with rig.worker(app, solo_queue="default"):
            assert await row(rig, alone) == (7, WHY)
    assert await rig.db.fetchval("select count(*) from run_done where attempt > 0") == 0


async def test_a_run_that_is_cancelled_before_its_first_line_never_begins(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, began, begin = App(), list[Event](), Execution.begin

    @app.workflow(on="test.thing")
    async def unlucky(event: Event, ctx: Context) -> None:
        began.append(event)

    def begin_and_cancel(self: Execution) -> None:
        begin(self)
        self.cancel(cancel.Order(WHY))
        self.cancel(cancel.Order("twice"))

    monkeypatch.setattr(Execution, "begin", begin_and_cancel)
    async with rig.running(app):
        (one,) = await rig.add("unlucky", [{}])
        assert await row(rig, one) == (7, WHY)
    assert began == []
