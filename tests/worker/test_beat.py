"""A long step that is silent is tried again, from where it told that it was; and nobody else's word counts."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from seawall import App, Context, Event, Retry
from seawall.kernel.seam.pulse import Pulse
from seawall.store import cancel, progress
from seawall.store.lease import Lease
from seawall.store.pool import Store
from seawall.store.progress import Told
from seawall.store.timeline import timeline
from seawall.testing.clock import ManualClock
from seawall.worker import beat, bench
from seawall.worker import cancel as looking
from seawall.worker.deadline import Deadlines
from worker.rig import QUICK, Rig


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "LOOK_S", 0.05)
    monkeypatch.setattr(beat, "LOOK_S", 0.02)


@pytest.mark.parametrize("kind", ["coroutine", "thread"])
async def test_a_step_that_falls_silent_is_tried_again_from_where_it_was(rig: Rig, kind: str) -> None:
    app, seen, release = App(), list[Any](), threading.Event()

    @app.workflow(on="test.thing", retry=Retry(attempts=1))
    async def copies(event: Event, ctx: Context) -> list[Any]:
        def begin() -> bool:
            seen.append(ctx.progress)
            ctx.heartbeat(len(seen))
            return len(seen) < 3

        def copy() -> str:
            if begin():
                release.wait(30)
            return "copied"

        async def copy_there() -> str:
            if begin():
                await asyncio.Event().wait()
            return "copied"

        step = copy if kind == "thread" else copy_there
        return [await ctx.step(step, heartbeat_s=0.5, retry=Retry(attempts=3, first_s=0))]

    try:
        async with rig.running(app):
            (run,) = await rig.add("copies", [{}])
            done = await rig.ended([run])
    finally:
        release.set()
    assert json.loads(done[run]["result"]) == ["copied"]
    assert seen == [None, 1, 2]


async def test_what_it_told_is_there_for_another_worker_and_on_the_timeline(rig: Rig, store: Store) -> None:
    app, inside, seen = App(), asyncio.Event(), list[Any]()

    @app.workflow(on="test.thing")
    async def copies(event: Event, ctx: Context) -> None:
        async def copy() -> None:
            seen.append(ctx.progress)
            inside.set()
            for page in range((ctx.progress or 0) + 1, 4):
                ctx.heartbeat(page)
                if page == 2 and len(seen) < 2:
                    await asyncio.Event().wait()

        await ctx.step(copy, heartbeat_s=60)

    async with rig.running(app, replace(QUICK, drain_s=0.0)):
        (run,) = await rig.add("copies", [{}])
        await rig.until(lambda: rig.db.fetchval("select value = '2' from progress"))
        found = await timeline(store, run, timeout_s=5)
        assert found is not None
        (moment,) = [moment for moment in found.moments if moment.what == "heartbeat"]
        assert moment.name == "copy" and moment.open
    async with rig.running(app):
        assert (await rig.ended([run]))[run]["status"] == 5
    assert seen == [None, 2]
    assert await progress.prune_ended(store, after=0, rows_max=10) == (1, 0)


async def test_a_failure_is_known_only_when_what_was_told_before_is_kept(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, seen = App(), list[Any]()
    monkeypatch.setattr(beat, "LOOK_S", 30.0)

    @app.workflow(on="test.thing", retry=Retry(attempts=3, first_s=0.0))
    async def copies(event: Event, ctx: Context) -> None:
        async def copy() -> None:
            seen.append(ctx.progress)
            for page in range(20):
                ctx.heartbeat([len(seen), page])
            if len(seen) < 3:
                raise OSError("the other side closed")

        await ctx.step(copy, heartbeat_s=60)

    async with rig.running(app):
        (run,) = await rig.add("copies", [{}])
        assert (await rig.ended([run]))[run]["status"] == 5
    assert seen == [None, [1, 19], [2, 19]]


async def test_a_failure_waits_for_what_was_told_while_the_word_before_was_on_its_way(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, seen = App(), list[Any]()
    noting, told, note = asyncio.Event(), asyncio.Event(), beat.note

    async def slow(*given: Any) -> None:
        noting.set()
        await told.wait()
        await note(*given)

    monkeypatch.setattr(beat, "note", slow)

    @app.workflow(on="test.thing", retry=Retry(attempts=1))
    async def copies(event: Event, ctx: Context) -> None:
        async def copy() -> None:
            seen.append(ctx.progress)
            if len(seen) > 1:
                return
            ctx.heartbeat("first")
            await noting.wait()
            ctx.heartbeat("last")
            asyncio.get_running_loop().call_later(0.05, told.set)
            raise OSError("the other side closed")

        await ctx.step(copy, heartbeat_s=60, retry=Retry(attempts=2, first_s=0.0))

    async with rig.running(app):
        (run,) = await rig.add("copies", [{}])
        assert (await rig.ended([run]))[run]["status"] == 5
    assert seen == [None, "last"]


async def test_what_a_step_told_last_is_there_when_its_run_is_tried_again_for_its_timeout(rig: Rig) -> None:
    """The step is cancelled then, and hasn't failed: up to three seconds of what it had told were lost."""
    app, seen, told = App(), list[Any](), list[int]()

    @app.workflow(on="test.thing", timeout_s=0.5, retry=Retry(attempts=2, first_s=0.0))
    async def copies(event: Event, ctx: Context) -> None:
        async def copy() -> None:
            seen.append(ctx.progress)
            while len(seen) < 2:
                ctx.heartbeat(len(told))
                told.append(len(told))
                await asyncio.sleep(0.01)

        await ctx.step(copy, heartbeat_s=60)

    async with rig.running(app):
        (run,) = await rig.add("copies", [{}])
        assert (await rig.ended([run]))[run]["status"] == 5
    assert seen == [None, told[-1]]


async def test_a_step_that_its_ended_run_has_left_beside_it_learns_that_too(rig: Rig, store: Store) -> None:
    """Nobody cancels a task that a workflow began and doesn't wait for: its step would beat for a day."""
    app, ended, release = App(), threading.Event(), threading.Event()

    @app.workflow(on="test.thing")
    async def copies(event: Event, ctx: Context) -> None:
        def copy() -> None:
            try:
                while not release.is_set():
                    ctx.heartbeat()
                    time.sleep(0.005)
            finally:
                ended.set()

        await asyncio.wait([asyncio.create_task(ctx.step(copy, heartbeat_s=60))])

    try:
        async with rig.running(app) as worker:
            (run,) = await rig.add("copies", [{}])
            await rig.until(lambda: worker._bench.deadlines.steps)
            async with store.transaction() as session:
                marked = await cancel.mark(session, [run], "cancelled: enough")
            await cancel.settle(store, marked, timeout_s=5)
            assert (await rig.ended([run]))[run]["status"] == 7
            await rig.until(ended.is_set)
    finally:
        release.set()


async def test_a_thread_whose_run_is_cancelled_ends_with_its_next_heartbeat(rig: Rig, store: Store) -> None:
    app, ended = App(), threading.Event()

    @app.workflow(on="test.thing")
    async def copies(event: Event, ctx: Context) -> None:
        def copy() -> None:
            try:
                while True:
                    ctx.heartbeat()
                    time.sleep(0.005)
            finally:
                ended.set()

        await ctx.step(copy, heartbeat_s=60)

    async with rig.running(app) as worker:
        (run,) = await rig.add("copies", [{}])
        await rig.until(lambda: worker._bench.deadlines.steps)
        async with store.transaction() as session:
            marked = await cancel.mark(session, [run], "cancelled: enough")
        await cancel.settle(store, marked, timeout_s=5)
        assert (await rig.ended([run]))[run]["status"] == 7
        await rig.until(ended.is_set)
        await rig.until(lambda: worker._bench.threads._free == worker._settings.threads_max)


async def test_threads_that_are_silent_hang_though_their_steps_may_take_a_day(rig: Rig) -> None:
    app, release, died = App(), threading.Event(), list[int]()

    @app.workflow(on="test.thing", retry=Retry(attempts=1))
    async def copies(event: Event, ctx: Context) -> None:
        def hang() -> None:
            release.wait(30)

        await ctx.step(hang, heartbeat_s=0.5)

    try:
        async with rig.running(app, replace(QUICK, threads_max=1), die=died.append):
            (run,) = await rig.add("copies", [{}])
            row = (await rig.ended([run]))[run]
            assert "HeartbeatMissed: no heartbeat came for 0.5 s" in row["error"]
            assert died == [bench.EXIT_THREADS_HANG]
    finally:
        release.set()


async def test_who_has_no_lease_keeps_nothing_and_a_takeover_waits_for_who_has(rig: Rig, store: Store) -> None:
    """Forced: a heartbeat's statement is under way while somebody takes the shard over."""
    app = App()

    @app.workflow(on="test.thing")
    async def idle(event: Event, ctx: Context) -> None: ...

    await rig.registered(app)
    queue = await rig.db.fetchval("select id from queue")
    await rig.db.execute("update shard_lease set epoch = 3")
    ours, gone = Told(Lease(queue, 0, 3), 1, "a", 0, b"1", 0), Told(Lease(queue, 1, 2), 2, "b", 0, b"1", 0)
    await progress.note(store, [ours, gone])
    assert await progress.last(store, 1, "a", 0) == b"1" and await progress.last(store, 2, "b", 0) is None
    taking = await asyncpg.connect(rig.database.dsn)
    try:
        transaction = taking.transaction()
        await transaction.start()
        await taking.execute("select 1 from shard_lease where shard = 0 for update")
        noting = asyncio.create_task(progress.note(store, [ours._replace(value=b"2")]))
        waiting = (
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        )
        await rig.until(lambda: rig.db.fetchval(waiting))
        await taking.execute("update shard_lease set epoch = 4 where shard = 0")
        await transaction.commit()
        await noting
    finally:
        await taking.close()
    assert await progress.last(store, 1, "a", 0) == b"1"


async def test_a_lease_of_before_keeps_nothing_beside_one_of_the_same_shard_that_stands(rig: Rig, store: Store) -> None:
    """A process that lost a shard and took it again: code of before, which nobody could stop, tells of both."""
    app = App()

    @app.workflow(on="test.thing")
    async def idle(event: Event, ctx: Context) -> None: ...

    await rig.registered(app)
    queue = await rig.db.fetchval("select id from queue")
    await rig.db.execute("update shard_lease set epoch = 3")
    ours = Told(Lease(queue, 0, 3), 1, "a", 0, b"1", 0)
    before = Lease(queue, 0, 2)
    await progress.note(store, [ours, ours._replace(lease=before, run_id=2)])
    assert await progress.last(store, 1, "a", 0) == b"1" and await progress.last(store, 2, "a", 0) is None
    await progress.note(store, [ours._replace(lease=before, value=b"0"), ours._replace(value=b"2")])
    assert await progress.last(store, 1, "a", 0) == b"2", "the same step, told of under both"


async def test_what_an_ended_run_told_is_kept_while_it_may_be_tried_again(rig: Rig, store: Store) -> None:
    app = App()

    @app.workflow(on="test.thing", retry=Retry(attempts=1))
    async def copies(event: Event, ctx: Context) -> None:
        def copy() -> None:
            ctx.heartbeat("half")
            if event.json == "fail":
                raise OSError("closed")

        await ctx.step(copy, heartbeat_s=60)
        if event.json != "fail":
            ctx.respond("copied")

    async with rig.running(app):
        failed, well = await rig.add("copies", ["fail", "well"])
        await rig.ended([failed, well])
    told = [Told(Lease(await rig.db.fetchval("select id from queue"), 0, 1), well, "copy", 0, b"1", 0)]
    await rig.db.execute("update shard_lease set epoch = 1 where shard = 0")
    await progress.note(store, told)  # late, behind the step's own end
    assert await progress.prune_ended(store, after=0, rows_max=10) == (1, 0)
    assert await rig.db.fetchval("select array_agg(run_id) from progress where value is not null") == [failed]
    await rig.db.execute("delete from run_done")
    assert await progress.prune_ended(store, after=0, rows_max=10) == (1, 0)


async def test_a_beat_moves_its_own_deadline_and_not_the_steps() -> None:
    clock, cancelled = ManualClock(), list[float]()
    deadlines = Deadlines(clock, store_away=lambda: False, grace_s=10, stubborn=lambda _: None)
    task = asyncio.create_task(asyncio.Event().wait())
    pulse = Pulse(2.0, clock.monotonic)
    watch = deadlines.set(task, 5.0, None, pulse=pulse)  # type: ignore[arg-type]
    began = clock.monotonic()
    for _ in range(60):
        clock.advance(0.1)
        if clock.monotonic() - began < 4.5:
            pulse.beat()
        deadlines._expire(clock.monotonic())
        cancelled += [clock.monotonic() - began] if watch.cancels and not cancelled else []
    assert 4.9 < cancelled[0] < 5.2 and not pulse.missed
    silent = Pulse(2.0, clock.monotonic)
    watch = deadlines.set(task, 500.0, None, pulse=silent)  # type: ignore[arg-type]
    clock.advance(1.0)
    silent.beat()
    clock.advance(1.1)
    deadlines._expire(clock.monotonic())  # the beat has moved it
    for stood_s, spared_s in ((1.5, 1.5), (500.0, 2.0)):  # nobody was let in to beat: that was no silence of the step's
        silent.beat()
        deadlines._stalls.append((clock.monotonic(), clock.monotonic() + stood_s))
        clock.advance(2.0 + spared_s)
        deadlines._expire(clock.monotonic())
        assert watch.cancels == 0 and not silent.missed
    clock.advance(0.2)
    deadlines._expire(clock.monotonic())
    assert watch.cancels == 1 and silent.missed, "a loop that always stands still spares nobody for ever"
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_step_that_could_not_beat_since_the_loop_was_blocked_has_not_missed_it(rig: Rig) -> None:
    app, tries = App(), list[int]()

    @app.workflow(on="test.thing", retry=Retry(attempts=1))
    async def copies(event: Event, ctx: Context) -> None:
        async def copy() -> None:
            tries.append(1)
            for _ in range(2):
                ctx.heartbeat()
                for _ in range(2):  # the second half of its work is still to come when the loop goes on
                    await asyncio.sleep(0.3)

        await ctx.step(copy, heartbeat_s=1)

    async with rig.running(app, replace(QUICK, lease_ttl_s=5.0)):
        (run,) = await rig.add("copies", [{}])
        await rig.until(lambda: tries)
        time.sleep(1.5)
        assert (await rig.ended([run]))[run]["status"] == 5
    assert tries == [1]
