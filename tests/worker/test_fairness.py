"""Tenants have equal turns, whatever runs in hand take how long, and whoever starts anew."""

from __future__ import annotations

from dataclasses import replace

import pytest

from seawall import App, Context, Event
from seawall.kernel.placement import AHEAD, COST, Placement, Turns
from seawall.store import child
from seawall.store import wait as waits
from seawall.store.pool import Store
from seawall.store.queue import virtual_now
from seawall.store.run import wake
from worker.rig import QUICK, Rig
from worker.test_broadcast import FIRST, KEY, came
from worker.test_slot import Gate, crowd

STEADY, FLOOD = 250, 400
SERVED = "update shard_lease set begun_vt = $1 where shard >= 0"


async def served(rig: Rig, store: Store, place: Placement, count: int) -> None:
    """Somebody who comes steadily, each of whose runs begins at once."""
    runs, vt = [], 0
    for _ in range(count):
        vt = place.next(1, "steady", backlog=False)
        runs += await rig.add("victim", [{}], vt=vt)
    await rig.ended(runs)
    await rig.until(lambda: rig.db.fetchval("select max(begun_vt) >= $1 from shard_lease", vt))
    place.observe(*await virtual_now(store))


def before(place: Placement) -> int:
    """How many turns of a newcomer's flood are before the next one of who came steadily."""
    flood = [place.next(1, "newcomer", backlog=False) for _ in range(FLOOD)]
    here = place.next(1, "steady", backlog=False)
    return sum(vt < here for vt in flood)


async def test_a_run_that_takes_hours_gives_no_newcomer_the_turns_that_others_had_meanwhile(
    rig: Rig, store: Store
) -> None:
    gate, place = Gate(), Placement()
    async with rig.running(crowd(gate)):
        long = await rig.add("flood", [{}], vt=place.next(1, "slow", backlog=False), shard=0)
        await rig.until(lambda: gate.now["flood"] == 1)
        place.observe(*await virtual_now(store))
        await served(rig, store, place, STEADY)
        assert before(place) <= AHEAD // COST + 1
        gate.open.set()
        await rig.ended(long)


async def test_a_router_that_begins_anew_goes_on_with_the_clock_of_the_queue(rig: Rig, store: Store) -> None:
    """Else what slept before would wake behind all that came since."""
    place = Placement()
    async with rig.running(crowd(Gate())):
        await served(rig, store, place, 20)
        anew = Placement()
        anew.observe(*await virtual_now(store))
        assert anew.next(1, "newcomer", backlog=False) == 21 * COST


async def test_the_first_of_a_tenant_goes_before_some_of_a_flood_that_is_in_hand(rig: Rig, store: Store) -> None:
    gate, place = Gate(), Placement()
    async with rig.running(crowd(gate)) as made:
        flood = []
        for _ in range(40):
            flood += await rig.add("flood", [{}], vt=place.next(1, "flood", backlog=False))
        await rig.until(lambda: gate.now["flood"] == 40)
        await rig.until(lambda: rig.db.fetchval("select max(begun_vt) >= $1 from shard_lease", 40 * COST))
        place.observe(*await virtual_now(store))
        first = place.next(1, "newcomer", backlog=False)
        assert any(first < run.vt for held in made._leases.held() for run in held.inflight.values())
        gate.open.set()
        await rig.ended(flood)


async def test_runs_of_low_priority_that_are_alone_do_not_move_the_clock(rig: Rig, store: Store) -> None:
    app, place = App(), Placement()

    @app.workflow(on="test.thing", priority=-5)
    async def low(event: Event, ctx: Context) -> None: ...

    async with rig.running(app):
        for _ in range(3):
            vt = place.next(1, "a", backlog=False, priority=-5)
            await rig.ended(await rig.add("low", [{}], vt=vt))
            here = vt - 5 * 100 * COST
            await rig.until(lambda here=here: rig.db.fetchval("select max(begun_vt) = $1 from shard_lease", here))
            place.observe(*await virtual_now(store))
        assert place.next(1, "b", backlog=False) == 4 * COST


@pytest.mark.parametrize("how", ["due", "told", "heard"])
async def test_those_of_one_tenant_that_wake_together_take_turns_with_its_neighbours(
    rig: Rig, store: Store, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """What had slept until one moment went before all that others had waiting, and a tenant who had been away for long
    before all of them; and where several statements woke it, the first of each stood beside the first of all others."""
    monkeypatch.setattr(child, "TOLD_MAX", 10)
    monkeypatch.setattr(waits, "HEARD_MAX", 10)
    served, place, app = 50 * COST, Placement(), crowd(Gate())
    await rig.registered(app)
    await rig.db.execute("update queue set paused = true")
    await rig.db.execute(SERVED, served)
    place.observe(*await virtual_now(store))
    neighbours = []
    for _ in range(8):
        vt = place.next(1, "neighbour", backlog=False)
        neighbours += await rig.add("victim", [{}], vt=vt, hint=False)
    sleepers = await rig.add("flood", [{}] * 40, vt=COST, hint=False)
    await rig.db.execute("update run set state = 1, run_after = now() where id = any($1::bigint[])", sleepers)
    if how == "told":
        await child.tell_parents(store, sleepers)
    elif how == "heard":
        sql = (
            "insert into wait (run_id, name, nth, key, since_us) select unnest($1::bigint[]), 'ctx.wait_for', 0, $2, 0"
        )
        await rig.db.execute(sql, sleepers, KEY)
        assert await came(store, (5, FIRST)) == 0
        turns = Turns()
        while await waits.hear_broad(store, turns=turns, timeout_s=10) is not None:
            ...
    else:
        async with rig.worker(app, replace(QUICK, timer_runs=10)):
            await rig.until(lambda: rig.db.fetchval("select count(*) = 0 from run where state = 1"))
    order = [row["id"] for row in await rig.db.fetch("select id from run where state = 0 order by vt, id")]
    assert len(order) == 48
    assert max(order.index(run) for run in neighbours) < 2 * len(neighbours)


async def test_who_wakes_is_placed_by_its_priority_as_who_is_new(rig: Rig, store: Store) -> None:
    app = App()

    @app.workflow(on="test.thing", priority=2)
    async def urgent(event: Event, ctx: Context) -> None: ...

    @app.workflow(on="test.thing", priority=-2)
    async def idle(event: Event, ctx: Context) -> None: ...

    await rig.registered(app)
    served = 500 * COST
    await rig.db.execute(SERVED, served)
    for workflow in ("urgent", "idle"):
        (run,) = await rig.add(workflow, [{}], vt=0, hint=False)
        await rig.db.execute("update run set state = 1, run_after = now() - interval '1 second' where id = $1", run)
    await child.tell_parents(store, [run])
    (woken,) = await wake(store, [1], runs_max=10, turns=Turns())
    assert (woken.runs, woken.last, woken.now) == (1, 502 * COST, 501 * COST)
    rows = await rig.db.fetch("select w.name, r.vt from run r join workflow w on w.id = r.workflow_id")
    assert {row["name"]: row["vt"] for row in rows} == {"urgent": 302 * COST, "idle": 701 * COST}
