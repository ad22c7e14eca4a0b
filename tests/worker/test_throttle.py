"""A throttled queue begins its runs at its rate and no faster, whoever has its shards; nothing else waits for it."""

from __future__ import annotations

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from seawall import App, Context, Event
from seawall.store.lease import Lease
from seawall.store.queue import Rule
from seawall.testing import ManualClock
from seawall.worker.shard import Held
from seawall.worker.throttle import Room, Throttles
from worker.rig import Rig

MANY = Room(0, 1000)


@given(
    st.floats(0.1, 5000), st.integers(1, 8), st.lists(st.tuples(st.floats(0.0, 3.0), st.floats(0, 1)), max_size=60),
    st.data(),
)  # fmt: skip
def test_all_processes_together_begin_no_more_than_the_rate_and_a_second_of_it(
    rate: float, shards: int, polls: list[tuple[float, float]], data: st.DataObject
) -> None:
    clock = ManualClock()
    rules = {7: Rule(rate=rate, shards=shards)}
    owners = data.draw(st.lists(st.integers(0, 2), min_size=shards, max_size=shards))
    parts = {
        owner: ([Held(Lease(7, n, 1), 0) for n in range(shards) if owners[n] == owner], Throttles(lambda: rules, clock))
        for owner in set(owners)
    }
    began, passed_s = 0, 0.0
    for pause_s, greed in polls:
        clock.advance(pause_s)
        passed_s += pause_s
        for held, throttles in parts.values():
            room = throttles.capped({7: MANY}, held).get(7)
            took = int(greed * room.most) if room is not None else 0
            throttles.began({7: took})
            began += took
    assert began <= rate * (passed_s + 1) + 2 * len(parts)


def test_a_rate_of_less_than_one_a_second_still_begins_some() -> None:
    clock = ManualClock()
    throttles, held = Throttles(lambda: {7: Rule(rate=0.1, shards=1)}, clock), [Held(Lease(7, 0, 1), 0)]
    began = 0
    for _ in range(61):
        room = throttles.capped({7: MANY, 8: MANY}, held)
        assert room[8] == MANY, "others don't wait"
        count = room[7].most if 7 in room else 0
        assert count or throttles.wait_s
        throttles.began({7: count})
        began += count
        clock.advance(1.0)
    assert began == 7


async def test_a_throttled_queue_goes_at_its_rate_beside_one_that_is_not(rig: Rig) -> None:
    app, begun = App(), Counter[str]()
    app.queue("slow")

    @app.workflow(on="test.slow", queue="slow")
    async def slow(event: Event, ctx: Context) -> None:
        begun["slow"] += 1

    @app.workflow(on="test.quick")
    async def quick(event: Event, ctx: Context) -> None: ...

    await rig.registered(app)
    await rig.db.execute(
        "insert into drain (name, queue_id, rate, floor, goal) select 'queue:slow', id, 20, 20, 20 from queue"
        " where name = 'slow'"
    )
    runs = await rig.add("slow", [{}] * 300, hint=False)
    async with rig.worker(app) as made:
        await rig.until(lambda: begun["slow"] >= 5)
        clock = asyncio.get_running_loop().time
        before, began_at = begun["slow"], clock()
        await rig.ended(await rig.add("quick", [{}] * 200))
        await asyncio.sleep(1.0)
        assert begun["slow"] - before <= 20 * (clock() - began_at + 1) + 4
        assert begun["slow"] > before
        await rig.db.execute("delete from drain")
        await rig.until(lambda: all(rule.rate is None for rule in made._leases.rules.values()))
        await rig.ended(runs)
