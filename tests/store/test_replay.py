"""Replays: each event begins a workflow once, at one rate, whoever works on it and whatever breaks meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence, Set
from dataclasses import replace
from uuid import UUID

import pytest

from responder.world import World, world
from seawall.kernel.clock import SystemClock
from seawall.kernel.error import Rejected, Unavailable
from seawall.kernel.metric import Metrics
from seawall.kernel.placement import Placement
from seawall.kernel.selection import of_events
from seawall.router.replay import Replays
from seawall.store import pool
from seawall.store import replay as rows
from seawall.store.change import Author
from seawall.store.pool import Row, Store
from seawall.store.replay import Begun, ReplayLine, State, Target, Wish, course, eta_s
from seawall.testing.postgres import Database

ME = Author("me", SystemClock(), "")


class Desk:
    """One store with a workflow for all types, and its replays."""

    def __init__(self, store: Store, here: World) -> None:
        self.store = store
        self.here = here
        self.sql = here.sql
        self.decide = Replays(store, Placement(), Metrics())._decide

    async def begin(self, where: str = "", *, workflow: str | None = None, version: str | None = None) -> int:
        now_us = SystemClock().wall_us() + 1_000_000
        narrow = replace(of_events(where, now_us=now_us), since_us=0, until_us=now_us)
        wish = Wish(narrow=narrow, text=where, workflow=workflow, version=version, rate=100.0, ramp_s=0, total=0)
        return await rows.make(self.store, wish, ME, timeout_s=5.0)

    async def work(self, id: int, rate: float = 100.0) -> rows.Batch | None:
        return await rows.work(self.store, id, rate, self.decide)

    async def over(self, id: int) -> None:
        while (await self.line(id)).state == "running":
            await self.sql.execute("update replay set next_at = now()")
            await self.work(id)

    async def line(self, id: int) -> ReplayLine:
        found = await rows.one(self.store, id, timeout_s=5.0)
        assert found is not None
        return found

    async def begun(self) -> list[UUID]:
        return [row["event_id"] for row in await self.sql.fetch("select event_id from run order by event_id")]


@pytest.fixture
async def desk(database: Database) -> AsyncIterator[Desk]:
    async with world(database.dsn) as here, Store(pool.Settings(dsn=database.dsn), role="test") as store:
        await here.workflow()
        yield Desk(store, here)


async def test_each_event_that_is_meant_begins_one_run_beside_its_workflows_queue(desk: Desk) -> None:
    events = [UUID(bytes=await desk.here.event(desk.here.id(), source="gh")) for _ in range(3)]
    await desk.here.event(desk.here.id(), source="other")
    await desk.here.event(desk.here.id(), source="gh", source_id=UUID(int=0))  # made by Seawall itself
    id = await desk.begin("source=gh")
    later = await desk.here.event(desk.here.id(), source="gh")
    await desk.sql.execute(
        "update event set id = overlay(id::text placing 'ff' from 1)::uuid where id = $1", UUID(bytes=later)
    )
    await desk.over(id)
    assert await desk.begun() == sorted(events)
    line = await desk.line(id)
    assert (line.state, line.seen, line.runs, line.rate_now) == ("done", 3, 3, None)
    queue = await desk.sql.fetchrow("select distinct q.name, q.beside from run r join queue q on q.id = r.queue_id")
    assert queue is not None
    assert (queue["name"], queue["beside"]) == ("replay.default", 1)
    assert await desk.sql.fetchval("select count(*) from shard_lease l join queue q on q.id = l.queue_id"
                                   " where q.name = 'replay.default'") == 5  # fmt: skip


async def test_a_batch_that_failed_begins_nothing_and_one_that_is_repeated_nothing_twice(desk: Desk) -> None:
    for _ in range(3):
        await desk.here.event(desk.here.id())
    id = await desk.begin()

    def broken(events: Sequence[Row], targets: Sequence[Target], full: Set[int]) -> Sequence[Begun]:
        raise Unavailable("router", "it died")

    with pytest.raises(Unavailable):
        await rows.work(desk.store, id, 100.0, broken)
    assert (await desk.line(id)).seen == 0
    await desk.work(id)
    # The store was put back to where its place was, and not what it began.
    await desk.sql.execute("update replay set after = $1, ended_at = null, state = 'running'", UUID(int=0))
    await desk.over(id)
    assert len(await desk.begun()) == 3


async def test_all_routers_together_keep_one_rate(desk: Desk) -> None:
    for _ in range(6):
        await desk.here.event(desk.here.id())
    id = await desk.begin()
    batch = await desk.work(id, rate=0.01)
    assert batch is not None and batch.seen == 1
    assert await desk.work(id, rate=0.01) is None
    assert await rows.due(desk.store) == []
    wait_s = await desk.sql.fetchval("select extract(epoch from next_at - now()) from replay")
    assert 80 < wait_s <= 100


async def test_none_begin_while_workers_are_not_through_with_those_before(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "PENDING_MAX", 2)
    for _ in range(3):
        await desk.here.event(desk.here.id())
    id = await desk.begin()
    await desk.work(id, rate=4.0)
    await desk.sql.execute("update replay set next_at = now()")
    batch = await desk.work(id)
    assert batch is not None and (batch.seen, batch.over) == (0, False)
    await desk.sql.execute("delete from run")
    await desk.over(id)
    assert (await desk.line(id)).runs == 3


async def test_a_replay_waits_for_no_queue_in_which_it_begins_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One replay's queue is paused, or no worker has its workflow any more; another one's is served."""
    monkeypatch.setattr(rows, "PENDING_MAX", 2)
    other = await desk.here.workflow(name="other")
    queue = await desk.sql.fetchval("insert into queue (name) values ('other') returning id")
    await desk.sql.execute("update workflow set queue_id = $1 where id = $2", queue, other)
    for _ in range(3):
        await desk.here.event(desk.here.id())
    stands, goes = await desk.begin(workflow="greet"), await desk.begin(workflow="other")
    await desk.work(stands, rate=4.0)
    await desk.sql.execute("update replay set next_at = now()")
    batches = [await desk.work(id, rate=2.0) for id in (stands, goes)]
    assert [batch.seen for batch in batches if batch is not None] == [0, 1]
    for _ in range(3):
        await desk.sql.execute("update replay set next_at = now()")
        await desk.work(stands, rate=2.0)
    await desk.sql.execute("update run set state = 1")
    await desk.sql.execute("update replay set next_at = now()")
    await desk.work(stands, rate=2.0)
    assert await desk.sql.fetchval("select vt = 3000 from run where state = 0"), "it didn't lose its place by waiting"


async def test_a_replay_is_paused_resumed_from_where_it_was_and_cancelled(desk: Desk) -> None:
    for _ in range(4):
        await desk.here.event(desk.here.id())
    id = await desk.begin()
    await desk.work(id, rate=4.0)
    await rows.change(desk.store, id, State.PAUSED, None, ME, timeout_s=5.0)
    await desk.sql.execute("update replay set next_at = now()")
    assert await rows.due(desk.store) == [] and await desk.work(id) is None
    await rows.change(desk.store, id, State.RUNNING, 50.0, ME, timeout_s=5.0)
    assert (await desk.line(id)).rate_now == 50.0
    await desk.over(id)
    assert len(await desk.begun()) == 4
    with pytest.raises(Rejected, match="replay 1 is done"):
        await rows.change(desk.store, id, State.RUNNING, None, ME, timeout_s=5.0)
    again = await desk.begin()
    await rows.change(desk.store, again, State.CANCELLED, None, ME, timeout_s=5.0)
    assert await desk.work(again) is None
    assert (await desk.line(again)).ended_at is not None


async def test_what_is_rare_among_many_is_found_in_several_batches(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "SCAN_ROWS", 3)
    events = [UUID(bytes=await desk.here.event(desk.here.id(), type="a" if n % 5 else "b")) for n in range(11)]
    id = await desk.begin("type=b")
    await desk.over(id)
    assert await desk.begun() == sorted([events[0], events[5], events[10]])


async def test_one_workflow_may_be_named_in_a_version_that_takes_no_new_events(desk: Desk) -> None:
    await desk.here.event(desk.here.id())
    old = await desk.sql.fetchval("update workflow set active = false returning id")
    await desk.here.workflow("greet", "2")
    await desk.here.workflow("other")
    id = await desk.begin(workflow="greet", version="1")
    await desk.over(id)
    assert await desk.sql.fetchval("select array_agg(workflow_id) from run") == [old]


async def test_runs_of_a_frozen_workflow_are_held_as_those_of_new_events_are(desk: Desk) -> None:
    await desk.here.event(desk.here.id())
    await desk.sql.execute("update workflow set frozen = true")
    await desk.over(await desk.begin())
    assert await desk.sql.fetchval("select state from run") == 2
    assert await desk.sql.fetchval("select count(*) from run_frozen f join run r on r.id = f.run_id") == 1


async def test_a_replay_begins_every_workflow_that_new_events_begin(desk: Desk) -> None:
    """Of more than a thousand active ones it left out those registered last, whatever their types."""
    await desk.sql.execute(
        "insert into workflow (name, version, pattern, queue_id, active)"
        " select 'filler' || n, '1', 'never', id, true from queue, generate_series(1, 1000) n"
    )
    await desk.here.workflow("last")
    await desk.here.event(desk.here.id())
    await desk.over(await desk.begin())
    begun = await desk.sql.fetch("select w.name from run r join workflow w on w.id = r.workflow_id order by w.name")
    assert [row["name"] for row in begun] == ["greet", "last"]


async def test_what_replays_began_is_forgotten_in_the_end(desk: Desk) -> None:
    await desk.here.event(desk.here.id())
    id = await desk.begin()
    await desk.over(id)
    assert await rows.prune(desk.store) == 0
    await desk.sql.execute("update replay set ended_at = ended_at - interval '31 days'")
    assert await rows.prune(desk.store) == 1
    assert await rows.one(desk.store, id, timeout_s=5.0) is None


def test_the_time_that_is_left_counts_the_ramp() -> None:
    start = course(100.0, 60.0)
    assert (start.rate, start.floor, start.goal) == (5.0, 5.0, 100.0)
    assert course(100.0, 0).rate == 100.0
    assert eta_s(1000, 100.0, 100.0, 60.0) == 10.0
    risen = (5 + 100) / 2 * 60
    assert eta_s(int(risen) + 100, 5.0, 100.0, 60.0) == pytest.approx(61.0)
    assert eta_s(int(risen / 4), 5.0, 100.0, 60.0) == pytest.approx(28.5, abs=0.1)
