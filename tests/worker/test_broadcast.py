"""What one event may cost when very many runs wait for it: never the routing of others, and none of them misses it."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import asyncpg
import pytest

from router.rig import Rig as Routing
from router.rig import append, record
from seawall import App, Context, Event, Retry
from seawall.kernel.placement import Turns
from seawall.router.broadcast import Broadcast
from seawall.store import wait as waits
from seawall.store.flush import End, Rows, flush
from seawall.store.lease import Lease
from seawall.store.pool import Store
from seawall.worker import ear, execution
from worker.rig import Rig

KEY = bytes(range(16))
FIRST, SECOND = uuid.UUID(int=1), uuid.UUID(int=2)


async def listening(rig: Rig, runs: int, *, waits_each: int = 1) -> None:
    """So many runs that were put away, each with open waits for the same."""
    await rig.db.execute(
        "insert into run (id, event_id, workflow_id, tenant, queue_id, shard, state, vt, run_after, listens)"
        " select g, gen_random_uuid(), 1, 'x', 1, g % 4, 1, g, now() + interval '1 day', true"
        f" from generate_series(1, {runs}) g"
    )
    await rig.db.execute(
        f"insert into wait (run_id, name, nth, key, since_us) select g, 'ctx.wait_for', n, $1, 0"
        f" from generate_series(1, {runs}) g, generate_series(0, {waits_each} - 1) n", KEY,
    )  # fmt: skip


async def came(store: Store, *events: tuple[int, uuid.UUID]) -> int:
    """Note events, as the batch of a router does; how many runs it woke itself."""
    async with store.transaction(timeout_s=10) as session:
        return len(await waits.note(session, [waits.Noted(KEY, us, id.bytes) for us, id in events]))


async def told(store: Store) -> list[int]:
    """Tell all that are left to be told; how many runs each piece woke."""
    pieces = []
    while (woken := await waits.hear_broad(store, turns=Turns(), timeout_s=10)) is not None:
        pieces.append(len(woken))
    return pieces


async def heard(rig: Rig) -> dict[tuple[int, int], uuid.UUID]:
    rows = await rig.db.fetch("select run_id, nth, event_id from wait where event_id is not null")
    return {(row["run_id"], row["nth"]): uuid.UUID(str(row["event_id"])) for row in rows}


async def test_a_batch_leaves_to_others_what_it_has_no_time_for(rig: Rig, store: Store) -> None:
    runs = 3 * waits.HEARD_MAX
    await listening(rig, runs)
    assert await came(store, (5, FIRST)) == 0
    pieces = await told(store)
    assert sum(pieces) == runs and max(pieces) <= waits.HEARD_MAX
    assert set((await heard(rig)).values()) == {FIRST} and len(await heard(rig)) == runs
    assert await rig.db.fetchval("select count(*) from run where state = 0 and wakes = 1 and run_after is null") == runs
    assert await came(store, (6, SECOND)) == 0 and await told(store) == []  # nobody waits any more


async def test_each_run_hears_events_in_their_order_though_the_first_is_still_being_told(
    rig: Rig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "HEARD_MAX", 4)
    await listening(rig, 5, waits_each=2)
    await came(store, (5, FIRST))
    await waits.hear_broad(store, turns=Turns(), timeout_s=10)  # some have heard the first
    monkeypatch.setattr(waits, "HEARD_MAX", 100)
    assert await came(store, (6, SECOND)) == 0  # few enough, but the first one isn't through
    await told(store)
    assert await heard(rig) == {(run, nth): (FIRST, SECOND)[nth] for run in range(1, 6) for nth in range(2)}


async def test_one_batch_tells_few_at_once_and_keeps_the_order_of_the_rest(
    rig: Rig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "HEARD_MAX", 4)
    await listening(rig, 3, waits_each=2)
    assert await came(store, (5, FIRST), (6, SECOND)) == 0
    await told(store)
    assert await heard(rig) == {(run, nth): (FIRST, SECOND)[nth] for run in range(1, 4) for nth in range(2)}


async def test_a_run_with_more_waits_than_one_piece_hears_and_the_next_ones_too(
    rig: Rig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "HEARD_MAX", 3)
    await listening(rig, 3, waits_each=5)
    await came(store, (5, FIRST))
    assert sum(await told(store)) == 3
    assert len(await heard(rig)) == 3  # an event ends one wait of a run


async def test_its_own_event_and_one_out_of_time_end_no_wait(
    rig: Rig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "HEARD_MAX", 2)
    await listening(rig, 6)
    await rig.db.execute("update run set event_id = $1 where id = 2", FIRST)
    await rig.db.execute("update wait set since_us = 6 where run_id = 3")
    await rig.db.execute("update wait set until_us = 4 where run_id = 4")
    await came(store, (5, FIRST))
    await told(store)
    assert {run for run, _ in await heard(rig)} == {1, 5, 6}


async def test_what_is_still_to_be_told_is_not_forgotten_with_age(rig: Rig, store: Store) -> None:
    await listening(rig, waits.HEARD_MAX + 1)
    await came(store, (5, FIRST))
    assert await waits.prune(store, before_us=10, rows_max=100) == 0
    await told(store)
    assert await waits.prune(store, before_us=10, rows_max=100) == 1


async def test_a_run_that_ends_with_an_open_wait_and_a_router_take_their_locks_in_one_order(
    rig: Rig, store: Store
) -> None:
    """The router waits for the first run before the flush begins, which ends the second one before the first."""
    await listening(rig, 2)
    await rig.db.execute("insert into shard_lease (queue_id, shard, epoch) values (1, 0, 7)")
    ends = [End(run, 5, 1, b"1", None, 0) for run in (2, 1)]
    holder = await asyncpg.connect(rig.database.dsn)
    try:
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute("select 1 from run where id = 1 for update")
        router = asyncio.create_task(came(store, (5, FIRST)))
        await blocked(rig, 1)

        async def end() -> object:
            async with store.own_connection() as session:
                return await flush(session, Rows(leases=[Lease(1, 0, 7)], ends=ends, listeners=[2, 1]))

        flushing = asyncio.create_task(end())
        await blocked(rig, 2)
        await transaction.rollback()
        async with asyncio.timeout(10):
            assert await router == 2
            assert await flushing is None
    finally:
        await holder.close()
    assert await rig.db.fetchval("select count(*) from run_done") == 2
    assert await rig.db.fetchval("select count(*) from wait") == 0


async def blocked(rig: Rig, count: int) -> None:
    async def so_many() -> bool:
        waiting = (
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        )
        return bool(await rig.db.fetchval(waiting) == count)

    await rig.until(so_many)


def answer(id: str) -> Any:
    return record(tenant="default", body=json.dumps({"type": "incident.answered", "key": id}).encode())


async def put_away(rig: Rig, runs: list[int]) -> None:
    async def away() -> bool:
        count = await rig.db.fetchval("select count(*) from run where id = any($1::bigint[]) and state = 1", runs)
        return bool(count == len(runs))

    await rig.until(away)


@pytest.mark.slow
async def test_no_timeout_overtakes_an_event_that_is_still_to_be_told(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The router ends in the middle; the times of all runs end before another one goes on."""
    monkeypatch.setattr(execution, "REST_S", 0.02)
    monkeypatch.setattr(ear, "HELD_LOOK_US", 100_000)
    monkeypatch.setattr(waits, "HEARD_MAX", 2)

    async def stands(self: Broadcast, heart: Any) -> None:
        while True:
            await heart.beat()
            await asyncio.sleep(0.2)

    app, routing = App(), Routing(rig.database.dsn, rig.db)
    journal = routing.log()

    @app.workflow(on="test.thing")
    async def open_incident(event: Event, ctx: Context) -> Any:
        answered = await ctx.wait_for("incident.answered", key="x", timeout=4)
        return answered is not None

    async with rig.running(app):
        with monkeypatch.context() as away:
            away.setattr(Broadcast, "run", stands)
            async with routing.router():
                runs = await rig.add("open_incident", [{}] * 6)
                await put_away(rig, runs)
                await append(journal, answer("x"))
                await rig.until(lambda: rig.db.fetchval("select count(*) from correlation where asked is not null"))
                done = await rig.ended(runs)
        assert {row["result"] for row in done.values()} == {b"true"}
        async with routing.router():  # finds nobody left to be told
            await rig.until(lambda: rig.db.fetchval("select count(*) = 0 from correlation where asked is not null"))


async def test_an_event_does_not_cut_short_the_pause_of_a_run_that_failed(rig: Rig, store: Store) -> None:
    """It failed at something else: ten thousand that hear the same event would come back to that at once."""
    app, opened = App(), asyncio.Event()

    @app.workflow(on="test.thing", retry=Retry(attempts=3, first_s=3600.0, max_s=3600.0))
    async def fails(event: Event, ctx: Context) -> None:
        async def ask() -> None:
            await opened.wait()
            raise RuntimeError("their API is down")

        await asyncio.gather(ctx.wait_for("incident.answered", key="x"), ctx.step(ask))

    async with rig.running(app):
        (run,) = await rig.add("fails", [{}])
        await rig.until(lambda: rig.db.fetchval("select count(*) from wait"))
        opened.set()
        await rig.until(lambda: rig.db.fetchval("select state = 1 and retrying from run where id = $1", run))
        key = await rig.db.fetchval("select key from wait where run_id = $1", run)
        async with store.transaction(timeout_s=10) as session:
            us = await rig.db.fetchval("select (extract(epoch from clock_timestamp()) * 1000000)::bigint")
            await waits.note(session, [waits.Noted(key, us, FIRST.bytes)])
    row = await rig.db.fetchrow("select state, attempt, wakes, run_after > now() as later from run where id = $1", run)
    assert tuple(row) == (1, 1, 1, True)
    assert await rig.db.fetchval("select event_id from wait where run_id = $1", run) == FIRST
