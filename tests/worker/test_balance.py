"""Shards are shared evenly among the processes that serve a queue, and none goes back and forth."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from collections import Counter
from dataclasses import replace
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seawall import App, Context, Event
from seawall.kernel.metric import Metrics
from seawall.kernel.status import RunStatus
from seawall.store.lease import Lease, Peer, Shard
from seawall.worker import Worker
from seawall.worker.balance import PAUSE_MIN_S, Balance
from seawall.worker.handover import Handover
from seawall.worker.shard import Held
from worker import slow
from worker.rig import QUICK, TESTS, Rig, process

SETTLE_S = 2.5
TTL_S = 5.0


class Fleet:
    """Processes that serve one queue, as the store would show them to each other. Each acts once a second."""

    def __init__(self, shards: int, chance: random.Random) -> None:
        self.shards = shards
        self.chance = chance
        self.now = 0.0
        self.owners: dict[int, int | None] = dict.fromkeys(range(shards))
        self.expires: dict[int, float] = {}
        self.alive: dict[int, Balance] = {}
        self.own: set[int] = set()
        self.seen: dict[int, float] = {}
        self.moves = 0

    def start(self, name: int, *, own: bool = False) -> None:
        self.alive[name] = Balance(own=own, settle_s=SETTLE_S)
        if own:
            self.own.add(name)

    def kill(self, name: int) -> None:
        del self.alive[name]

    def has(self, name: int) -> list[int]:
        return [shard for shard, owner in self.owners.items() if owner == name]

    def second(self) -> None:
        self.now += 1.0
        for name in self.chance.sample(sorted(self.alive), len(self.alive)):
            balance = self.alive[name]
            for shard in self.has(name):
                self.expires[shard] = self.now + TTL_S
            self.seen[name] = self.now
            live = [other for other, at in self.seen.items() if other != name and self.now - at < TTL_S]
            balance.saw(Peer(1, other in self.own, len(self.held_by(other))) for other in live)
            self.give(name, balance)
            self.take(name, balance)

    def held_by(self, name: int) -> list[int]:
        return [shard for shard in self.has(name) if self.expires[shard] > self.now]

    def give(self, name: int, balance: Balance) -> None:
        for shard in self.has(name)[: balance.surplus(1, len(self.has(name)), self.now)]:
            self.owners[shard] = None
            balance.gave(Shard(1, shard), self.now)

    def take(self, name: int, balance: Balance) -> None:
        free = [s for s, owner in self.owners.items() if owner is None or self.expires[s] <= self.now]
        balance.offered([Shard(1, s) for s in free], self.now)
        for s in free:
            orphan = self.owners[s] is not None
            mine = len(self.has(name))
            if balance.may_take(Shard(1, s), mine=mine, shards=self.shards, orphan=orphan, now=self.now):
                balance.took(Shard(1, s), self.now)
                self.owners[s], self.expires[s] = name, self.now + TTL_S
                self.moves += 1

    def counts(self) -> list[int]:
        return sorted(len(self.has(name)) for name in self.alive)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.lists(st.booleans(), min_size=1, max_size=8), st.integers(0, 1 << 30))
def test_shards_become_even_stay_where_they_are_and_none_is_left_alone(
    shards: int, births: list[bool], seed: int
) -> None:
    fleet = Fleet(shards, random.Random(seed))
    fleet.start(0)
    for name, born in enumerate(births, 1):
        if born or len(fleet.alive) == 1:
            fleet.start(name)
        else:
            fleet.kill(fleet.chance.choice(sorted(fleet.alive)))
        for _ in range(fleet.chance.randrange(0, 20)):
            fleet.second()
    for _ in range(int(PAUSE_MIN_S * 25)):
        fleet.second()
    counts = fleet.counts()
    assert sum(counts) == shards and counts[-1] - counts[0] <= 1
    before = fleet.moves
    for _ in range(60):
        fleet.second()
    assert fleet.moves == before


def test_a_second_process_has_its_half_within_seconds_and_a_dead_ones_shards_move_on() -> None:
    fleet = Fleet(4, random.Random(1))
    fleet.start(1)
    fleet.second()
    assert fleet.counts() == [4]
    fleet.start(2)
    for _ in range(6):
        fleet.second()
    assert fleet.counts() == [2, 2] and fleet.moves == 6
    fleet.kill(1)
    for _ in range(7):
        fleet.second()
    assert fleet.counts() == [4] and fleet.moves == 8


def test_a_process_of_the_queues_own_gets_all_of_it_and_others_step_in_while_it_is_away() -> None:
    fleet = Fleet(4, random.Random(1))
    fleet.start(1)
    fleet.second()
    fleet.start(2, own=True)
    for _ in range(8):
        fleet.second()
    assert (len(fleet.has(1)), len(fleet.has(2))) == (0, 4)
    fleet.kill(2)
    for _ in range(7):
        fleet.second()
    assert len(fleet.has(1)) == 4
    fleet.start(2, own=True)
    for _ in range(8):
        fleet.second()
    assert (len(fleet.has(1)), len(fleet.has(2))) == (0, 4)


def test_what_nobody_takes_is_taken_back_and_given_up_ever_more_seldom() -> None:
    fleet = Fleet(4, random.Random(1))
    fleet.start(1)
    fleet.second()
    gone = []
    for n in range(600):
        fleet.seen[99] = fleet.now + 1  # it says that it wants shards, and never takes one
        fleet.second()
        gone += [n] * (len(fleet.has(1)) < 4)
    assert fleet.has(1) == [0, 1, 2, 3] or gone[-1] == 599
    assert len(gone) < 60, "six seconds in a minute at the beginning, one in a minute at the end"


def held(shard: int) -> Held:
    return Held(Lease(1, shard, 1), 0)


def test_a_shard_is_given_up_only_when_nothing_of_it_is_read_run_or_unwritten() -> None:
    balance = Balance(own=False, settle_s=0.0)
    balance.saw([Peer(1, False, 0)])
    unwritten: set[Held] = set()
    handover = Handover(balance, Metrics(), unwritten=unwritten.__contains__, most=lambda *_: inf)
    mine = [held(n) for n in range(4)]
    mine[0].inflight[7] = mine[1].inflight[8] = mine[2].inflight[9] = object()  # type: ignore[assignment]
    mine[3].reading = True
    assert handover.due(mine, 1.0) == []
    leaving = [one for one in mine if one.leaving_until is not None]
    assert mine[3] in leaving and len(leaving) == 2, "half of them, the idlest first"
    mine[3].reading = False
    unwritten.add(mine[3])
    assert handover.due(mine, 2.0) == [] and not handover.ended(mine)
    unwritten.clear()
    assert handover.ended(mine), "somebody looks between two rounds, so that it goes as soon as it can"
    assert handover.due(mine, 3.0) == [mine[3]]
    handover.gave(mine.pop(), 3.0)
    assert [one for one in mine if one.leaving_until is not None] == [mine[0]]
    assert handover.due(mine, 4.0) == []
    assert handover.due(mine, 1.0 + PAUSE_MIN_S + 0.1) == []
    assert not any(one.leaving_until for one in mine), "its runs take long: kept, and tried again later"
    assert not handover.ended(mine)
    balance.saw([])
    assert handover.due(mine, 500.0) == []


def shards(*workers: Worker) -> list[int]:
    return sorted(len([h for h in w._leases.held() if h.leaving_until is None]) for w in workers)


async def test_two_workers_share_a_queue_under_load_and_each_run_ends_once(rig: Rig) -> None:
    metrics = Metrics()
    calls: Counter[int] = Counter()

    async def counted(n: int) -> None:
        calls[n] += 1
        await asyncio.sleep(0.01)

    mine = App()

    @mine.workflow(on="test.thing")
    async def load(event: Event, ctx: Context) -> None:
        await ctx.step(counted, event.json["n"])

    few = replace(QUICK, inflight_max=8)
    runs: list[int] = []
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(rig.running(mine, few, metrics=metrics))
        runs += await rig.add("load", [{"n": n} for n in range(300)])
        second = await stack.enter_async_context(rig.worker(mine, few, metrics=metrics))
        await rig.until(lambda: shards(first, second) == [2, 2], 8.0)
        runs += await rig.add("load", [{"n": n} for n in range(300, 500)])
        done = await rig.ended(runs)
        assert shards(first, second) == [2, 2]
        owners = await rig.db.fetch("select distinct owner from shard_lease where shard >= 0")
        assert len(owners) == 2
        assert metrics.counter("seawall_shards_given_total", "").value == 2
    assert {row["status"] for row in done.values()} == {RunStatus.SUCCEEDED}
    assert set(calls.values()) == {1}, "no step was called twice"
    assert metrics.counter("seawall_suspects_total", "").value == 0
    assert await rig.db.fetchval("select count(*) from refill") == 0


async def test_who_has_left_in_order_is_left_no_share(rig: Rig) -> None:
    """A worker that began after one had stopped had half of the shards until that one's time was over."""
    app, long = App(), replace(QUICK, lease_ttl_s=60.0)
    app.workflow(on="test.thing", name="counted")(nothing)
    async with rig.worker(app, long) as first:
        await rig.until(lambda: len(first._leases.held()) == 4)
    async with rig.worker(app, long) as second:
        await rig.until(lambda: len(second._leases.held()) == 4, 5.0)


async def test_shards_that_are_given_back_are_taken_at_once(rig: Rig) -> None:
    """Who waited for them looked once a second, and their new runs waited for that: each queue with a worker of its own
    began some runs a second or two late in a platform's first seconds, when the other worker hands its shards over."""
    app, patient = App(), replace(QUICK, lease_ttl_s=90.0, renew_s=30.0)
    app.workflow(on="test.thing", name="counted")(nothing)
    async with contextlib.AsyncExitStack() as stack:
        async with rig.running(app):
            second = await stack.enter_async_context(rig.worker(app, patient))
            await rig.until(lambda: second.supervisor.ready("worker.listen") and second._leases.workflows)
        await rig.until(lambda: len(second._leases.held()) == 4, 10.0)


async def test_a_queues_own_worker_gets_its_queue_and_nothing_else(rig: Rig) -> None:
    two = App()
    for name in ("a", "b"):
        two.workflow(on=f"test.{name}", queue=name, name=name)(nothing)
    async with rig.worker(two) as shared:
        await rig.until(lambda: len(shared._leases.held()) == 8)
        async with rig.worker(two, queues=["a"]) as own:
            await rig.until(lambda: (len(own._leases.held()), len(shared._leases.held())) == (4, 4), 8.0)
            names = {own._leases.queue_names[h.lease.queue_id] for h in own._leases.held()}
            assert names == {"a"}
            done = await rig.ended(await rig.add("a", [{}] * 4) + await rig.add("b", [{}] * 4))
            assert {row["status"] for row in done.values()} == {RunStatus.SUCCEEDED}
        await rig.until(lambda: len(shared._leases.held()) == 8, 8.0)


async def nothing(event: Event, ctx: Context) -> None: ...


async def test_a_killed_workers_shards_move_on_and_its_runs_end_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    command = [sys.executable, "-m", "worker.child", rig.database.worker_dsn, "worker.slow"]
    async with rig.running(slow.app, solo_command=command) as left:
        with process(rig, "worker.slow") as killed:
            owners = "select count(distinct owner) = 2 and count(*) = 4 from shard_lease where expires_at > now()"
            await rig.until(lambda: rig.db.fetchval(owners))
            await rig.until(lambda: shards(left) == [2], 8.0)
            runs = await rig.add("slow", [{} for _ in range(8)])
            await rig.until(lambda: rig.db.fetchval("select count(*) > 0 from step"))
            killed.kill()
            killed.wait()
            await rig.until(lambda: shards(left) == [4], 8.0)
            done = await rig.ended(runs, 30.0)
    assert {row["status"] for row in done.values()} == {RunStatus.SUCCEEDED}
    assert await rig.db.fetchval("select count(*) from step") == 16, "each step was kept once"
