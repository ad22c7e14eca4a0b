"""Limits and rates by key, on a real PostgreSQL: never exceeded, whoever looks at once, and nobody is forgotten."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import replace
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from seawall import App, Context, Event, Limit, Rate
from seawall.kernel.allowance import Allowance, allowance, span
from seawall.kernel.event import id_day
from seawall.kernel.placement import Placement
from seawall.kernel.selection import of_runs
from seawall.kernel.status import DAY_SHIFT
from seawall.router.bulk import Places
from seawall.store import bulk, errand, line, pool, version
from seawall.store.change import Author
from seawall.store.line import ADMIT, Change
from seawall.worker.line import admission
from worker.rig import CLOCK, Rig


class Doors:
    """How many runs of each account are under way, and the most that were."""

    def __init__(self) -> None:
        self.now: Counter[object] = Counter()
        self.top: Counter[object] = Counter()
        self.began: list[object] = []
        self.open = asyncio.Event()

    async def through(self, account: object) -> None:
        self.now[account] += 1
        self.top[account] = max(self.top[account], self.now[account])
        self.began.append(account)
        await self.open.wait()
        await asyncio.sleep(0)
        self.now[account] -= 1


def limited(doors: Doors, **declared: Any) -> App:
    app = App()

    @app.workflow(on="test.deploy", **declared)
    async def deploy(event: Event, ctx: Context) -> None:
        await doors.through(event.json["account"])

    return app


BY_ACCOUNT = Limit(1, key="/account")


async def many(
    rig: Rig, accounts: list[int], *, version: str = "1", keyed: bool = True, state: int | None = None
) -> list[int]:
    """Runs as the router makes them, in lines; or as somebody does who knows nothing of keys."""
    row = await rig.db.fetchrow(
        "select id, queue_id, allowance from workflow where name = 'deploy' and version = $1", version
    )
    rules = allowance("deploy", row["allowance"])
    assert rules is not None
    events = [rig.ids.next() for _ in accounts]
    bodies = [json.dumps({"account": account}).encode() for account in accounts]
    await rig.db.execute(
        "insert into event (id, source_id, source, tenant, type, status, received_at, headers, body, target, peer,"
        ' key_id, config_version, log_id, segment, "offset")'
        " select id, id, 'test', 'default', 'test.deploy', 1, now(), '', body, '', '', 0, 0, id, 0, 0"
        " from unnest($1::uuid[], $2::bytea[]) as u (id, body)",
        [UUID(bytes=event) for event in events], bodies,
    )  # fmt: skip
    numbers = [
        r[0] for r in await rig.db.fetch("select nextval('run_number') from generate_series(1, $1)", len(events))
    ]
    runs = [(id_day(event) << DAY_SHIFT) | number for event, number in zip(events, numbers, strict=True)]
    made = [rules.keys("default", json.loads(body)) for body in bodies]
    lines = [(keys or gates)[0] if keyed else None for keys, gates in made]
    await rig.db.executemany(
        "insert into run (id, event_id, workflow_id, tenant, queue_id, shard, vt, state, keys, gates, line)"
        " values ($1, $2, $3, 'default', $4, $5, $6, $7, $8, $9, $10)",
        [
            (run, UUID(bytes=event), row["id"], row["queue_id"], n % 4, CLOCK.wall_us(),
             (3 if keyed else 0) if state is None else state,
             [*keys] if keyed else None, [*gates] or None if keyed else None, place)
            for n, (run, event, (keys, gates), place) in enumerate(zip(runs, events, made, lines, strict=True))
        ],
    )  # fmt: skip
    return runs


async def leading(rig: Rig, made: Any) -> None:
    """Wait until a worker knows what is declared, and that the lines are its own to look through."""
    await rig.until(lambda: any(v.leads for vs in made._admission._versions.values() for v in vs))


async def test_two_workers_and_a_thousand_keys_never_exceed_a_limit_and_all_end(rig: Rig) -> None:
    doors = Doors()
    doors.open.set()
    app = limited(doors, concurrency=[BY_ACCOUNT, Limit(300)])
    async with rig.worker(app) as one, rig.worker(app) as two:
        await rig.until(lambda: len(one._leases.held()) + len(two._leases.held()) == 4)
        half = await many(rig, [n % 1000 for n in range(1200)])
        await rig.ended([*half, *await many(rig, [n % 1000 for n in range(800)], keyed=False)], timeout_s=60)
    assert len(doors.top) == 1000 and set(doors.top.values()) == {1}


async def test_who_looks_second_sees_whom_the_first_one_let_in(rig: Rig) -> None:
    """Forced order: the second begins while the first has let somebody in, and hasn't committed."""
    await rig.registered(limited(Doors(), concurrency=BY_ACCOUNT))
    ids = await many(rig, [1, 1])
    (workflow_id, queue_id) = await rig.db.fetchrow("select id, queue_id from workflow")
    async with pool.Store(pool.Settings(dsn=rig.database.worker_dsn), role="test") as store:
        (key,) = await line.lines(store, span("deploy"), lines_max=10)

        async def look() -> dict[bytes, int]:
            async with store.transaction() as session:
                await line.lock(session, "deploy")
                return (await line.standing(session, [key]))[1]

        async with store.transaction() as session:
            await line.lock(session, "deploy")
            assert [w.id for w in await line.first(session, [key], [workflow_id], each_max=9)] == ids
            assert (await line.standing(session, [key]))[1] == {key: 0}
            placed = await line.settle(session, [Change(ids[0], ADMIT, 5, queue_id, 4, key)], {})
            assert [one.vt for one in placed] == [5]
            second = asyncio.create_task(look())
            await rig.until(lambda: rig.db.fetchval("select count(*) from pg_locks where not granted"))
        assert await second == {key: 1}


async def test_a_limit_of_one_runs_back_to_back_and_waits_for_no_sweep(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    doors = Doors()
    doors.open.set()
    async with rig.running(limited(doors, concurrency=BY_ACCOUNT)) as made:
        await leading(rig, made)
        monkeypatch.setattr(admission, "EVERY_S", 60.0)
        runs = await many(rig, [7] * 40)
        key = Allowance("deploy", (BY_ACCOUNT,)).keys("default", {"account": 7})[0][0]
        made._admission.lined(next(iter(made._leases.workflows)), key)
        began = time.monotonic()
        await rig.ended(runs)
        assert time.monotonic() - began < 20, "each waited for something that comes once a second"
    assert doors.top == {7: 1}


async def test_a_run_that_sleeps_gives_room_and_waits_for_it_again_when_it_wakes(rig: Rig) -> None:
    app, order, woken = App(), [], asyncio.Event()

    @app.workflow(on="test.deploy", concurrency=BY_ACCOUNT)
    async def deploy(event: Event, ctx: Context) -> None:
        me = event.json["account"], len(order)
        await ctx.step(order.append, ("begins", len(order)), name="one")
        if len(order) == 1:
            await ctx.sleep(1.5)
        else:
            await woken.wait()
        await ctx.step(order.append, ("ends", me[1]), name="two")

    async with rig.running(app):
        first, second = await many(rig, [1, 1])
        await rig.until(lambda: len(order) == 2)  # the second begins while the first one sleeps
        await rig.until(lambda: rig.db.fetchval("select state = 3 from run where id = $1", first))  # and has slept
        woken.set()
        await rig.ended([first, second])


async def test_runs_of_a_dead_worker_count_until_they_end(rig: Rig) -> None:
    doors = Doors()
    await rig.registered(limited(doors, concurrency=BY_ACCOUNT))
    runs = await many(rig, [1, 1])
    await rig.db.execute("update run set state = 0, shard = -1 where id = $1", runs[0])  # let in, and a suspect since
    async with rig.running(limited(doors, concurrency=BY_ACCOUNT)) as made:
        await leading(rig, made)
        await rig.until(lambda: made._admission._passes.value >= 2)
        assert await rig.db.fetchval("select state from run where id = $1", runs[1]) == 3
        await rig.db.execute("delete from run where id = $1", runs[0])
        doors.open.set()
        await rig.ended(runs[1:])


async def test_a_paused_queue_lets_nobody_in(rig: Rig) -> None:
    doors = Doors()
    doors.open.set()
    async with rig.running(limited(doors, throttle=Rate(1000, per=1))) as made:
        await leading(rig, made)
        await rig.db.execute("update queue set paused = true")
        await rig.until(lambda: not made._admission._versions)
        runs = await many(rig, [1] * 5)
        made._admission.soon()
        await rig.until(lambda: made._admission._know_at > CLOCK.monotonic() + 0.5)
        assert await rig.db.fetchval("select count(*) from run where state = 3") == 5
        await rig.db.execute("update queue set paused = false")
        await rig.ended(runs)


async def test_a_rate_spaces_beginnings_by_the_stores_clock(rig: Rig) -> None:
    doors = Doors()
    doors.open.set()
    async with rig.running(limited(doors, throttle=Rate(8, per=1, key="/account"))) as made:
        await leading(rig, made)
        began = time.monotonic()
        rows = await rig.ended(await many(rig, [1] * 10 + [2]))
        assert time.monotonic() - began >= 9 / 8 - 0.05, "ten at eight a second take nine spacings"
    starts = sorted(row["started_at"] for row in rows.values())
    assert len(starts) == 11


async def test_rules_may_change_or_go_while_runs_wait(rig: Rig) -> None:
    doors = Doors()
    async with rig.running(limited(doors, concurrency=BY_ACCOUNT)):
        runs = await many(rig, [1] * 6)
        await rig.until(lambda: doors.now[1] == 1)
    doors.now.clear()
    async with rig.running(limited(doors, concurrency=Limit(2, key="tenant"))) as made:  # keyed by something else now
        await rig.until(lambda: doors.now[1] == 3)  # two, beside the one that was let in by the former rule
        await rig.until(lambda: made._admission._passes.value >= 4)
        assert doors.now[1] == 3
    doors.now.clear()
    async with rig.running(limited(doors)):
        await rig.until(lambda: doors.now[1] == 6)
        doors.open.set()
        await rig.ended(runs)


async def test_runs_of_a_version_that_no_worker_has_hold_up_no_other(rig: Rig) -> None:
    doors = Doors()
    doors.open.set()
    await rig.registered(limited(Doors(), concurrency=BY_ACCOUNT, version="1"))
    gone = await many(rig, [1, 1])
    await rig.db.execute("update worker set seen_at = now() - interval '1 hour'")
    async with rig.running(limited(doors, concurrency=BY_ACCOUNT, version="2")) as made:
        await leading(rig, made)
        runs = await many(rig, [1, 1], version="2")
        await rig.ended(runs)
        await rig.until(lambda: "deploy@1" in made._presence._stranded)  # and somebody says so
    assert await rig.db.fetchval("select count(*) from run where id = any($1) and state = 3", gone) == 2


async def test_a_worker_without_the_workflow_takes_its_lines_from_nobody(rig: Rig) -> None:
    """Two apps with one queue: the one that has all shards but the last knows nothing of the other's workflow."""
    doors, plain = Doors(), App()
    doors.open.set()

    @plain.workflow(on="test.plain")
    async def other(event: Event, ctx: Context) -> None: ...

    async with rig.running(plain):
        await rig.registered(limited(Doors(), concurrency=BY_ACCOUNT))
        await rig.db.execute("update shard_lease set owner = null, expires_at = '-infinity' where shard = 3")
        async with rig.worker(limited(doors, concurrency=BY_ACCOUNT)) as made:
            await rig.until(lambda: made._leases.held())
            await leading(rig, made)
            runs = await many(rig, [1, 1])
            await rig.db.execute("update run set shard = 3")
            await rig.until(
                lambda: rig.db.fetchval("select count(*) = 0 from run where state = 3 and id = $1", runs[0])
            )


async def test_a_run_that_is_held_while_it_is_in_hand_counts(rig: Rig) -> None:
    doors = Doors()
    async with rig.running(limited(doors, concurrency=BY_ACCOUNT)) as made:
        await leading(rig, made)
        runs = await many(rig, [1, 1])
        await rig.until(lambda: doors.now[1] == 1)
        in_hand = await rig.db.fetchval("select id from run where state = 0")
        await rig.db.execute("update run set state = 2 where id = $1", in_hand)
        passes = made._admission._passes.value
        await rig.until(lambda: made._admission._passes.value > passes + 1)
        assert await rig.db.fetchval("select count(*) from run where state = 3") == 1
        doors.open.set()
        await rig.ended(runs)
    assert doors.top == {1: 1}


async def test_a_workflow_that_moved_to_another_queue_takes_its_waiting_runs_along(rig: Rig) -> None:
    doors = Doors()
    doors.open.set()
    await rig.registered(limited(doors, concurrency=BY_ACCOUNT, queue="former"))
    runs = await many(rig, [1, 2])
    async with rig.running(limited(doors, concurrency=BY_ACCOUNT, queue="now")):
        await rig.ended(runs)


async def test_a_replays_run_stays_in_the_queue_beside_its_workflows(rig: Rig) -> None:
    async with rig.running(limited(Doors(), concurrency=BY_ACCOUNT)) as made:
        await leading(rig, made)
        beside = await rig.db.fetchval(
            "insert into queue (name, beside) select 'again', id from queue where name = 'default' returning id"
        )
        await rig.until(lambda: any(v.beside == beside for vs in made._admission._versions.values() for v in vs))
        (run,) = await many(rig, [1], state=2)
        await rig.db.execute("update run set queue_id = $1, state = 3", beside)
        await rig.until(lambda: rig.db.fetchval("select state = 0 from run where id = $1", run))
        assert await rig.db.fetchval("select queue_id from run where id = $1", run) == beside


async def held_in_bulk(rig: Rig, store: pool.Store, act: bulk.Act, where: str, count: int) -> None:
    narrow = of_runs(where, now_us=CLOCK.wall_us())
    narrow = replace(narrow, states=narrow.states or act.states)
    author = Author("ann", CLOCK, "")
    await bulk.make(store, bulk.Wish(act=act, narrow=narrow, text=where, expected=count), author, timeout_s=5)
    placement = Placement()
    while await errand.work(store, Places(placement)) is not None:
        pass


async def test_a_run_that_is_held_and_released_while_it_is_in_hand_counts_all_the_time(rig: Rig) -> None:
    doors = Doors()
    app = limited(doors, concurrency=BY_ACCOUNT)
    async with pool.Store(pool.Settings(dsn=rig.database.dsn), role="test") as store, rig.running(app) as made:
        await leading(rig, made)
        runs = await many(rig, [1, 1])
        await rig.until(lambda: doors.now[1] == 1)
        await held_in_bulk(rig, store, bulk.Act.HOLD, "queue=default", 2)
        await held_in_bulk(rig, store, bulk.Act.RELEASE, "state=held", 2)
        assert [r[0] for r in await rig.db.fetch("select state from run order by id")] == [0, 3]
        passes = made._admission._passes.value
        await rig.until(lambda: made._admission._passes.value > passes + 1)
        assert doors.now[1] == 1
        doors.open.set()
        await rig.ended(runs)
    assert doors.top == {1: 1}


async def test_a_run_held_between_two_halves_of_its_refill_counts(rig: Rig) -> None:
    """Forced order: a refill has read it, it is held and others of its key are looked at, then the refill says so."""
    doors = Doors()
    await rig.registered(limited(doors, concurrency=BY_ACCOUNT))
    first, second = await many(rig, [1, 1])
    await rig.db.execute("update run set state = 0 where id = $1", first)
    refill = await asyncpg.connect(rig.database.dsn)
    await refill.execute("begin; lock table refill in row exclusive mode")
    await rig.db.execute("update run set state = 2 where id = $1", first)
    async with rig.running(limited(doors, concurrency=BY_ACCOUNT)) as made:
        await leading(rig, made)
        passes = made._admission._passes.value
        await rig.until(lambda: made._admission._passes.value > passes)
        await refill.execute(f"insert into refill values (1, 0, 0, 1, array[{first}]::bigint[]); commit")
        passes = made._admission._passes.value
        await rig.until(lambda: made._admission._passes.value > passes + 1)
        assert await rig.db.fetchval("select state from run where id = $1", second) == 3, "the first is in hand"
        await rig.db.execute("delete from refill where epoch = 0")
        doors.open.set()
        await rig.ended([second])
        assert await rig.db.fetchval("select run_after is not null from run where id = $1", first)
    await refill.close()


async def test_a_run_in_a_line_that_an_old_refill_names_isnt_let_in_by_being_moved(rig: Rig) -> None:
    """It had been in hand, slept, and woke into its line; its refill row stands for its neighbours."""
    doors = Doors()
    for number in ("1", "2"):
        await rig.registered(limited(doors, concurrency=BY_ACCOUNT, version=number))
    waits, _ = await many(rig, [1, 1])
    await rig.db.execute("insert into refill values (1, 0, 1, 1, array[$1]::bigint[])".replace("$1", str(waits)))
    async with pool.Store(pool.Settings(dsn=rig.database.dsn), role="test") as store:
        done = await version.move(store, [waits], "2", Author("ann", CLOCK, ""), timeout_s=5)
    assert done.moved == [waits] and not done.missed
    row = await rig.db.fetchrow("select state, keys, line, run_after from run where id = $1", waits)
    assert tuple(row) == (0, None, None, None), "whoever meets it gives it the keys of its version"


async def test_rates_of_keys_that_come_once_are_forgotten_as_fast_as_they_come(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "PRUNE_ROWS", 100)
    monkeypatch.setattr(admission, "EVERY_S", 0.05)
    await rig.db.execute("insert into rate select n::text::bytea, 1 from generate_series(1, 350) n")
    async with rig.running(limited(Doors(), throttle=Rate(10, per=60))):
        await rig.until(lambda: rig.db.fetchval("select count(*) = 0 from rate"))
