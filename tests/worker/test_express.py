"""Who goes before some in hand begins in the last slots, whatever else an app has and however it came to be ready."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from seawall import App, Context, Event
from seawall.kernel.placement import COST
from seawall.worker import Worker
from worker.rig import QUICK, Rig
from worker.test_presence import app_of
from worker.test_slot import Gate, crowd

SLOTS = replace(QUICK, inflight_max=256, refill_runs=100)
LAST = 256 // 64


def pair(gate: Gate, **other: Any) -> App:
    """A queue in which somebody floods and others come by, and one beside it."""
    app = App()
    app.queue("crowd")
    app.queue("other", **other)

    @app.workflow(on="test.flood", queue="crowd")
    async def flood(event: Event, ctx: Context) -> None:
        await ctx.step(gate.through, "flood")

    @app.workflow(on="test.victim", queue="crowd")
    async def victim(event: Event, ctx: Context) -> str:
        return await ctx.step(lambda: "done", name="quick")

    @app.workflow(on="test.nap", queue="crowd")
    async def nap(event: Event, ctx: Context) -> str:
        await ctx.sleep(seconds=2.0)
        return "slept"

    @app.workflow(on="test.other", queue="other")
    async def other(event: Event, ctx: Context) -> None:  # type: ignore[no-redef]
        await ctx.step(gate.through, "other")

    return app


async def flooded(rig: Rig, made: Worker, gate: Gate, *, step: int = 0) -> list[int]:
    """All slots but the last, and those of others, are the flood's, and more of it waits."""
    runs = await rig.add("flood", [{}] * 300, vt=500_000, step=step)
    await rig.until(lambda: gate.now["flood"] == SLOTS.inflight_max - LAST - gate.now["other"])
    return runs


async def serving(rig: Rig, made: Worker) -> None:
    await rig.until(lambda: len(made._leases.held()) == 8 and len(made._leases.rules) == 2)


async def test_a_newcomer_begins_at_once_though_the_app_has_another_queue(rig: Rig) -> None:
    gate = Gate()
    async with rig.worker(pair(gate), SLOTS) as made:
        await serving(rig, made)
        flood = await flooded(rig, made, gate)
        await rig.ended(await rig.add("victim", [{}] * 20, vt=1000))
        gate.open.set()
        await rig.ended(flood, timeout_s=30)


@pytest.mark.parametrize("why", ["paused", "max", "rate"])
async def test_a_newcomer_begins_beside_a_queue_that_has_work_and_may_not_begin_it(rig: Rig, why: str) -> None:
    gate = Gate()
    app = pair(gate, **({"max": 2} if why == "max" else {}))
    await rig.registered(app)
    if why == "paused":
        await rig.db.execute("update queue set paused = true where name = 'other'")
    if why == "rate":
        await rig.db.execute(
            "insert into drain (name, queue_id, rate, floor, goal) select 'queue:other', id, 0.01, 0.01, 0.01"
            " from queue where name = 'other'"
        )
    waiting = await rig.add("other", [{}] * 30)
    async with rig.worker(app, SLOTS) as made:
        await serving(rig, made)
        begun = {"paused": 0, "max": 2, "rate": 1}[why]
        await rig.until(lambda: gate.now["other"] == begun)
        flood = await flooded(rig, made, gate)
        await rig.ended(await rig.add("victim", [{}] * 20, vt=1000))
        assert gate.top["other"] == begun
        await rig.db.execute("delete from drain")
        await rig.db.execute("update queue set paused = false")
        gate.open.set()
        await rig.ended([*flood, *waiting], timeout_s=30)


@pytest.mark.slow
async def test_a_run_that_slept_goes_on_beside_a_flood(rig: Rig) -> None:
    gate = Gate()
    async with rig.worker(pair(gate), SLOTS) as made:
        await serving(rig, made)
        naps = await rig.add("nap", [{}] * 3, vt=1000)
        flood = await flooded(rig, made, gate, step=COST)
        await rig.ended(naps)
        gate.open.set()
        await rig.ended(flood, timeout_s=30)


async def test_a_run_whose_hint_was_lost_begins_beside_a_flood(rig: Rig) -> None:
    gate = Gate()
    async with rig.worker(crowd(gate), SLOTS) as made:
        await rig.until(lambda: len(made._leases.held()) == 4)
        flood = await flooded(rig, made, gate)
        await rig.ended(await rig.add("victim", [{}] * 3, vt=1000, hint=False))
        gate.open.set()
        await rig.ended(flood, timeout_s=30)


@pytest.mark.parametrize("reserved", [253, 255])
async def test_slots_that_are_left_beside_large_reserves_are_used(rig: Rig, reserved: int) -> None:
    gate = Gate()
    gate.open.set()
    async with rig.worker(pair(gate, reserved=reserved), SLOTS) as made:
        await serving(rig, made)
        await rig.ended(await rig.add("victim", [{}] * 20))


def counted(made: Worker) -> Counter[str]:
    reads, refill = Counter[str](), made._refiller._refill

    async def through(*given: Any) -> Any:
        reads["all"] += 1
        found = await refill(*given)
        reads["foreign"] += sum(not row.known for _, rows, _ in found for row in rows)
        return found

    made._refiller._refill = through  # type: ignore[method-assign]
    return reads


async def test_hints_of_queues_that_others_serve_cost_no_read(rig: Rig) -> None:
    gate = Gate()
    async with rig.worker(pair(gate), replace(SLOTS, poll_s=1.0, sweep_s=1.0), queues=["other"]) as made:
        await rig.until(lambda: len(made._leases.held()) == 4)
        await asyncio.sleep(0.3)
        reads, began = counted(made), time.monotonic()
        for n in range(200):
            await rig.db.execute("select pg_notify('seawall_run', $1)", f"99:{n}-{n}@1")
            await asyncio.sleep(0.002)
        assert reads["all"] <= 4 * max(1.0, time.monotonic() - began), f"{reads}: more than those of each second"


@pytest.mark.slow
async def test_runs_of_another_version_are_not_read_again_for_each_that_comes(rig: Rig) -> None:
    """A version that was rolled back leaves any number of them, and its newcomers' places are before and behind."""
    foreign = 20_000
    app = app_of("deploy@1")
    await rig.registered(app)
    await rig.registered(app_of("deploy@2"))
    await rig.db.execute(
        "insert into run (id, event_id, workflow_id, tenant, queue_id, shard, vt)"
        " select n, gen_random_uuid(), w.id, 't', w.queue_id, n % 4, n * 1000"
        " from workflow w cross join generate_series(1, $1) n where w.version = '2'", foreign,
    )  # fmt: skip
    queue_id = await rig.db.fetchval("select queue_id from workflow limit 1")
    async with rig.worker(app, replace(SLOTS, sweep_s=1.0)) as made:
        await rig.until(
            lambda: all(h.after[0] > (foreign - 4) * 1000 for h in made._leases.held()) and made._leases.held()
        )
        reads = counted(made)
        for vt in (1, 2 * foreign * 1000) * 4:
            run = await rig.add("deploy", [{}], vt=vt, shard=0, hint=False)
            await rig.db.execute("select pg_notify('seawall_run', $1)", f"{queue_id}:{vt}-{vt}@1")
            await rig.ended(run)
        assert reads["foreign"] < foreign, reads


@pytest.mark.slow
async def test_a_queue_has_no_more_than_its_max_in_hand_while_its_shards_move(rig: Rig) -> None:
    gate = Gate()
    app = App()
    app.queue("crowd", max=2)

    @app.workflow(on="test.flood", queue="crowd")
    async def flood(event: Event, ctx: Context) -> None:
        await ctx.step(gate.through, "flood")

    async with rig.worker(app, SLOTS) as first:
        await rig.until(lambda: len(first._leases.held()) == 4)
        runs = await rig.add("flood", [{}] * 2, shard=3)
        await rig.until(lambda: gate.now["flood"] == 2)
        runs += await rig.add("flood", [{}] * 12)
        async with rig.worker(app, SLOTS) as second:
            await rig.until(lambda: any(held.leaving_until is not None for held in first._leases.held()))
            await asyncio.sleep(1.0)  # some rounds of both
            gate.open.set()
            await rig.until(lambda: len(second._leases.held()) == 2)
            await rig.ended(runs, timeout_s=30)
    assert gate.top["flood"] == 2
