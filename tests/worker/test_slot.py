"""Reserved slots are never taken, idle ones never stranded, and a queue's bound is kept exactly."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall import App, Context, Event
from seawall.store import pool
from seawall.store.lease import Lease
from seawall.store.queue import Rule
from seawall.store.run import lonely
from seawall.worker.shard import Held
from seawall.worker.slot import Line, full, lines, share
from worker.rig import QUICK, Rig

QUEUES = st.dictionaries(
    st.integers(1, 6),
    st.builds(Line, reserved=st.integers(0, 40), most=st.integers(1, 100), in_hand=st.integers(0, 60)),
    min_size=1,
)


@given(QUEUES, st.integers(0, 200))
def test_no_slot_is_given_twice_nor_one_that_is_kept_for_another_queue(queues: dict[int, Line], free: int) -> None:
    given = share(queues, free=free)
    kept = sum(room.kept for room in given.rooms.values())
    assert kept + given.shared <= free
    for id, room in given.rooms.items():
        assert 0 <= room.kept <= queues[id].kept
        assert room.most <= max(0, queues[id].most - queues[id].in_hand)
        assert room.most <= room.kept + given.shared


@given(QUEUES, st.integers(0, 200))
def test_a_queue_that_is_alone_in_wanting_has_all_that_is_not_kept_for_others(
    queues: dict[int, Line], free: int
) -> None:
    given = share(queues, free=free)
    for id, room in given.rooms.items():
        others = sum(line.kept for other, line in queues.items() if other != id)
        assert room.most >= min(queues[id].most - queues[id].in_hand, free - others)


@given(QUEUES, st.integers(0, 200), st.data())
def test_a_queue_that_has_more_than_it_was_given_is_known_to_and_one_that_gave_all_mostly_too(
    queues: dict[int, Line], free: int, data: st.DataObject
) -> None:
    allowed = share(queues, free=free)
    ready = {id: data.draw(st.integers(0, 60)) for id in queues}
    begun = {id: min(ready[id], room.kept) for id, room in allowed.rooms.items()}
    turns = sorted(
        (place - room.kept, id)
        for id, room in allowed.rooms.items()
        for place in range(room.kept + 1, min(ready[id], room.most) + 1)
    )
    for _, id in turns[: allowed.shared]:
        begun[id] += 1
    cut = full(allowed, begun)
    assert cut >= {id for id in queues if begun[id] < ready[id]}
    top = max((begun[id] - room.kept for id, room in allowed.rooms.items()), default=0)
    assert not any(
        begun[id] - room.kept < top - 1 and begun[id] < room.most for id, room in allowed.rooms.items() if id in cut
    )


@pytest.mark.parametrize(("held", "expected"), [(4, (8, 20)), (1, (2, 5))])
def test_a_queue_in_several_processes_has_its_numbers_spread_with_its_shards(
    held: int, expected: tuple[int, int]
) -> None:
    shards = [Held(Lease(7, shard, 1), 0) for shard in range(held)]
    line = lines(shards, {7: Rule(reserved=8, most=20, shards=4)}, slots=1000)[7]
    assert (line.reserved, line.most) == expected


@given(st.integers(1, 60), st.integers(1, 8), st.data())
def test_processes_that_share_a_queue_have_no_more_slots_together_than_it_has(
    most: int, shards: int, data: st.DataObject
) -> None:
    """Unless there are more processes than slots."""
    owners = data.draw(st.lists(st.integers(0, 3), min_size=shards, max_size=shards))
    parts = [
        lines([Held(Lease(7, n, 1), 0) for n in range(shards) if owners[n] == owner], {7: rule}, slots=1000)[7].most
        for rule in [Rule(most=most, shards=shards)]
        for owner in set(owners)
    ]
    assert most <= sum(parts) or 1 in parts
    assert sum(parts) <= most + parts.count(1)


class Gate:
    """Steps that end when they are let, and how many are under way."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.now: Counter[str] = Counter()
        self.top: Counter[str] = Counter()

    async def through(self, name: str) -> None:
        self.now[name] += 1
        self.top[name] = max(self.top[name], self.now[name])
        await self.open.wait()
        self.now[name] -= 1


def two_queues(gate: Gate, **bounds: Any) -> App:
    app = App()
    app.queue("slow", **bounds.get("slow", {}))
    app.queue("quick", **bounds.get("quick", {}))

    @app.workflow(on="test.slow", queue="slow")
    async def slow(event: Event, ctx: Context) -> None:
        await ctx.step(gate.through, "slow")

    @app.workflow(on="test.quick", queue="quick")
    async def quick(event: Event, ctx: Context) -> str:
        return await ctx.step(lambda: "done", name="quick")

    return app


async def running(rig: Rig, made: Any) -> None:
    await rig.until(lambda: len(made._leases.held()) == 8 and len(made._leases.rules) == 2)


async def test_queues_that_want_the_same_slots_share_them_evenly(rig: Rig) -> None:
    gate = Gate()
    app = App()

    def declare(name: str) -> None:
        @app.workflow(on=f"test.{name}", queue=name, name=name)
        async def through(event: Event, ctx: Context) -> None:
            await ctx.step(gate.through, name)

    for name in ("one", "two", "three"):
        declare(name)
    async with rig.worker(app, replace(QUICK, inflight_max=20, refill_runs=20)) as made:
        await rig.until(lambda: len(made._leases.held()) == 12)
        await rig.db.execute("update queue set paused = true")
        await rig.until(lambda: all(rule.paused for rule in made._leases.rules.values()))
        counts = {"one": 40, "two": 40, "three": 2}
        runs = [run for name, count in counts.items() for run in await rig.add(name, [{}] * count)]
        await rig.db.execute("update queue set paused = false")
        await rig.until(lambda: sum(gate.now.values()) == 20)
        assert gate.now == {"one": 9, "two": 9, "three": 2}
        gate.open.set()
        await rig.ended(runs, timeout_s=30)


async def test_a_slot_that_becomes_free_is_given_out_though_no_other_does(rig: Rig) -> None:
    app, begun = App(), list[asyncio.Event]()

    async def take_minutes() -> None:
        begun.append(asyncio.Event())
        await begun[-1].wait()

    @app.workflow(on="test.long")
    async def long(event: Event, ctx: Context) -> None:
        await ctx.step(take_minutes)

    async with rig.worker(app, replace(QUICK, inflight_max=20, refill_runs=20)) as made:
        await rig.until(lambda: len(made._leases.held()) == 4)
        runs = await rig.add("long", [{}] * 23)
        await rig.until(lambda: len(begun) == 20)
        for n in range(3):
            begun[n].set()
            await rig.until(lambda n=n: len(begun) == 21 + n)  # type: ignore[misc]
        for each in begun:
            each.set()
        await rig.ended(runs)


def crowd(gate: Gate) -> App:
    """One queue, and somebody's flood in it."""
    app = App()

    @app.workflow(on="test.flood")
    async def flood(event: Event, ctx: Context) -> None:
        await ctx.step(gate.through, "flood")

    @app.workflow(on="test.victim")
    async def victim(event: Event, ctx: Context) -> str:
        return await ctx.step(lambda: "done", name="quick")

    return app


async def test_who_goes_before_a_flood_begins_though_the_flood_has_all_slots_but_the_last(rig: Rig) -> None:
    gate = Gate()
    async with rig.worker(crowd(gate), replace(QUICK, inflight_max=128, refill_runs=50)) as made:
        await rig.until(lambda: len(made._leases.held()) == 4)
        flood = await rig.add("flood", [{}] * 200, vt=5000)
        await rig.until(lambda: gate.now["flood"] == 126)
        await rig.ended(await rig.add("victim", [{}] * 20, vt=1000))
        await asyncio.sleep(0.2)
        assert gate.now["flood"] == 126, "none of the flood began in what was left for others"
        gate.open.set()
        await rig.ended(flood, timeout_s=30)


async def test_a_queue_without_a_reserve_begins_at_once_beside_one_that_floods(rig: Rig) -> None:
    gate, settings = Gate(), replace(QUICK, inflight_max=128, refill_runs=50)
    async with rig.worker(two_queues(gate), settings) as made:
        await running(rig, made)
        flood = await rig.add("slow", [{}] * 200)
        await rig.until(lambda: gate.now["slow"] == 126)
        flood += await rig.add("slow", [{}] * 20, vt=1000)  # next in their queue, which has more than its part
        await rig.until(lambda: gate.now["slow"] == 127)
        for _ in range(3):  # each later than the one before, so behind nothing that was read; and more than fit at once
            await rig.ended(await rig.add("quick", [{}] * 10))
        assert gate.now["slow"] == 127, "half of the last slots"
        gate.open.set()
        await rig.ended(flood, timeout_s=30)


async def test_a_run_in_hand_whose_place_changed_is_not_begun_twice_and_leaves_no_row_of_its_refill(rig: Rig) -> None:
    gate = Gate()
    async with rig.worker(crowd(gate), replace(QUICK, inflight_max=64, refill_runs=64)) as made:
        await rig.until(lambda: len(made._leases.held()) == 4)
        flood = await rig.add("flood", [{}] * 70, vt=5000)
        await rig.until(lambda: gate.now["flood"] == 63)
        numbers = [held.refills for held in made._leases.held()]
        execution = next(iter(made._leases.held()[0].inflight.values()))
        queue_id = await rig.db.fetchval("update run set vt = 1000 where id = $1 returning queue_id", execution.id)
        await rig.db.execute("select pg_notify('seawall_run', $1)", f"{queue_id}:1000-1000")
        await rig.until(lambda: [held.refills for held in made._leases.held()] > numbers)
        gate.open.set()
        await rig.ended(flood, timeout_s=30)
        await rig.until(lambda: rig.db.fetchval("select count(*) = 0 from refill"))
    assert gate.top["flood"] <= 64


async def test_the_first_slot_that_a_flood_leaves_goes_to_who_goes_before_it(rig: Rig) -> None:
    begun: list[asyncio.Event] = []
    app, gate = App(), Gate()

    async def through() -> None:
        begun.append(asyncio.Event())
        await begun[-1].wait()

    @app.workflow(on="test.flood")
    async def flood(event: Event, ctx: Context) -> None:
        await ctx.step(through)

    @app.workflow(on="test.victim")
    async def victim(event: Event, ctx: Context) -> None:
        await ctx.step(gate.through, "victim")

    async with rig.worker(app, replace(QUICK, inflight_max=20, refill_runs=20)) as made:
        await rig.until(lambda: len(made._leases.held()) == 4)
        runs = await rig.add("flood", [{}] * 60, vt=5000)
        await rig.until(lambda: len(begun) == 20)
        runs += await rig.add("victim", [{}] * 3, vt=1000)
        for n in range(3):
            begun[n].set()
            await rig.until(lambda n=n: gate.now["victim"] == n + 1)  # type: ignore[misc]
        assert len(begun) == 20
        gate.open.set()
        for n in range(3, 60):
            await rig.until(lambda n=n: len(begun) > n)  # type: ignore[misc]
            begun[n].set()
        await rig.ended(runs, timeout_s=30)


async def test_a_flood_takes_no_slot_that_is_reserved_for_another_queue(rig: Rig) -> None:
    gate, settings = Gate(), replace(QUICK, inflight_max=20, refill_runs=20)
    async with rig.worker(two_queues(gate, quick={"reserved": 5}), settings) as made:
        await running(rig, made)
        flood = await rig.add("slow", [{}] * 100)
        await rig.until(lambda: gate.now["slow"] == 15)
        runs = await rig.add("quick", [{}] * 40)
        await rig.ended(runs)  # through five slots, beside a queue that gives none back
        assert gate.now["slow"] == 15
        gate.open.set()
        await rig.ended(flood, timeout_s=30)
    assert gate.top["slow"] == 15


async def test_without_a_reserve_the_flood_has_all_and_the_other_queue_waits(rig: Rig) -> None:
    """What the reserve is for."""
    gate, settings = Gate(), replace(QUICK, inflight_max=20, refill_runs=20)
    async with rig.worker(two_queues(gate), settings) as made:
        await running(rig, made)
        flood = await rig.add("slow", [{}] * 100)
        await rig.until(lambda: gate.now["slow"] == 20)
        runs = await rig.add("quick", [{}] * 5)
        await asyncio.sleep(0.5)
        assert await rig.db.fetchval("select count(*) from run_done") == 0
        gate.open.set()
        await rig.ended([*flood, *runs], timeout_s=30)


@pytest.mark.parametrize("most", [1, 3])
async def test_a_queues_bound_is_kept_exactly_and_all_its_runs_come_through(rig: Rig, most: int) -> None:
    gate = Gate()
    async with rig.worker(two_queues(gate, slow={"max": most})) as made:
        await running(rig, made)
        flood = await rig.add("slow", [{}] * 30)
        await rig.until(lambda: gate.now["slow"] == most)
        await asyncio.sleep(0.4)
        gate.open.set()
        await rig.ended(flood, timeout_s=30)
    assert gate.top["slow"] == most


async def test_a_paused_queue_begins_nothing_and_goes_on_where_it_was(rig: Rig) -> None:
    gate = Gate()
    gate.open.set()
    async with rig.worker(two_queues(gate)) as made:
        await running(rig, made)
        await rig.db.execute("update queue set paused = true where name = 'slow'")
        await rig.until(lambda: any(rule.paused for rule in made._leases.rules.values()))
        held_back = await rig.add("slow", [{}] * 10)
        await rig.ended(await rig.add("quick", [{}] * 10))
        assert await rig.db.fetchval("select count(*) from run_done where id = any($1::bigint[])", held_back) == 0
        await rig.db.execute("update queue set paused = false where name = 'slow'")
        await rig.ended(held_back)


async def test_what_is_set_by_hand_counts_before_what_the_app_declares(rig: Rig) -> None:
    gate = Gate()
    app = two_queues(gate, slow={"max": 2})
    await rig.registered(app)
    await rig.db.execute("update queue set slots_max_set = 4 where name = 'slow'")
    async with rig.worker(app) as made:
        await running(rig, made)
        flood = await rig.add("slow", [{}] * 12)
        await rig.until(lambda: gate.now["slow"] == 4)
        gate.open.set()
        await rig.ended(flood)
    assert gate.top["slow"] == 4


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"max": 0}, "max=0"), ({"reserved": -1}, "reserved=-1"), ({"reserved": 1.5}, "reserved=1.5"),
        ({"reserved": 5, "max": 4}, "more than max"),
    ],
)  # fmt: skip
def test_a_queue_that_makes_no_sense_is_refused(given: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        App().queue("runbooks", **given)


async def test_a_pause_is_for_suspects_too(rig: Rig) -> None:
    """They run in processes of their own, beside the queue's slots."""
    app = App()

    @app.workflow(on="test.thing")
    async def quick(event: Event, ctx: Context) -> str:
        return "done"

    await rig.registered(app)
    await rig.db.execute("update queue set paused = true")
    runs = await rig.add("quick", [{}], shard=-1)
    [queue_id, workflow_id] = await rig.db.fetchrow("select queue_id, workflow_id from run")
    async with pool.Store(pool.Settings(dsn=rig.database.worker_dsn), role="test") as store:
        assert await lonely(store, {queue_id: uuid4()}, known=[workflow_id]) == []
        async with rig.worker(app, solo_queue="default") as made:
            await rig.until(lambda: made._leases.held() and made._leases.rules)
            await asyncio.sleep(0.5)
            assert await rig.db.fetchval("select count(*) from run_done") == 0
            await rig.db.execute("update queue set paused = false")
            assert await lonely(store, {queue_id: uuid4()}, known=[workflow_id]) == []  # its process has the lease
            await rig.ended(runs)


async def test_bodies_of_one_queue_take_no_reserved_slot_of_another(rig: Rig) -> None:
    gate, settings = Gate(), replace(QUICK, inflight_body_bytes_max=1 << 20)
    async with rig.worker(two_queues(gate, quick={"reserved": 5}), settings) as made:
        await running(rig, made)
        flood = await rig.add("slow", [b'{"x":"' + b"x" * 600_000 + b'"}'] * 4)
        await rig.until(lambda: gate.now["slow"] == 2)
        await rig.ended(await rig.add("quick", [{}] * 20))
        assert gate.now["slow"] == 2
        gate.open.set()
        await rig.ended(flood, timeout_s=30)


async def test_reserved_slots_that_nobody_needs_cost_nothing_while_all_others_are_taken(rig: Rig) -> None:
    gate, settings = Gate(), replace(QUICK, inflight_max=20, refill_runs=20)
    async with rig.worker(two_queues(gate, quick={"reserved": 5}), settings) as made:
        await running(rig, made)
        flood = await rig.add("slow", [{}] * 40)
        await rig.until(lambda: gate.now["slow"] == 15)
        reads, refill = 0, made._refiller._refill

        async def counted(*given: Any) -> Any:
            nonlocal reads
            reads += 1
            return await refill(*given)

        made._refiller._refill = counted  # type: ignore[method-assign]
        await asyncio.sleep(1.0)
        assert reads <= 60  # one each poll, of 0.05 s
        gate.open.set()
        await rig.ended(flood, timeout_s=30)
