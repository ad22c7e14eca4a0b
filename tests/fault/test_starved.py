"""One tenant floods, or one queue's work gets slower and slower (incident I2): everybody else starts as before.

From the journal on: a router and a worker as they are. Judged by the order in which runs began, not by clocks, and by
an account of all events: each ended once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest

from router import rig as router_rig
from router.rig import append, record, until
from seawall import App, Context, Event
from seawall.kernel.status import RunStatus
from seawall.testing import MemoryJournal
from seawall.testing.postgres import Database
from worker.rig import QUICK, Rig, opened

TENANTS = 1_000
IN_HAND = 500
BEFORE = 4 * TENANTS
"""How many runs of the flood begin before the last of the victims, at most: turns are one to one, some are in hand
already, and where virtual time stands is looked at once a second."""

SLOTS, SLOW_MOST = 20, 8
STEP_S = 0.01
SLOWER = 20
ROUNDS, EVERY_S = 60, 0.1
OVERTAKEN = 3 * SLOW_MOST
"""Runs of the slow queue that may end while one of the other queue waits: three times what it may have in hand."""


@pytest.fixture
async def rig(database: Database) -> AsyncIterator[Rig]:
    async with opened(database) as rig:
        yield rig


@pytest.fixture
async def route(database: Database) -> AsyncIterator[router_rig.Rig]:
    async with router_rig.opened(database) as rig:
        yield rig


async def send(journal: MemoryJournal, tenants: Sequence[str], kind: str = "work") -> None:
    for at in range(0, len(tenants), 1000):
        await append(journal, *[
            record(tenant=tenant, body=b'{"type":"%s"}' % kind.encode()) for tenant in tenants[at : at + 1000]
        ])  # fmt: skip


async def settled(rig: Rig, count: int) -> None:
    """All of so many events ended well, each once."""
    await rig.until(lambda: rig.db.fetchval("select count(*) >= $1 from run_done", count), 300)
    assert await rig.db.fetchval("select count(*) from run") == 0
    found = await rig.db.fetch(
        "select count(*), count(distinct event_id), count(distinct id), status from run_done group by 4"
    )
    assert [tuple(row) for row in found] == [(count, count, count, RunStatus.SUCCEEDED)]


@pytest.mark.parametrize(
    "flood", [pytest.param(60_000, marks=pytest.mark.slow), pytest.param(1_000_000, marks=pytest.mark.soak)]
)
async def test_of_a_thousand_tenants_one_that_floods_delays_none(rig: Rig, route: router_rig.Rig, flood: int) -> None:
    app, began = App(), list[str]()
    under_way = asyncio.Event()

    @app.workflow(on="work")
    async def work(event: Event, ctx: Context) -> None:
        began.append(event.tenant)
        if len(began) == flood // 5:
            under_way.set()

    victims = [f"tenant-{n}" for n in range(TENANTS)]
    journal = route.log()
    await rig.registered(app)
    async with route.router():
        await send(journal, ["flood"] * flood)
        await until(lambda: route.number("seawall_router_events_total") == flood, timeout_s=flood / 100)
        await send(journal, victims)
        await until(lambda: route.number("seawall_router_events_total") == flood + TENANTS)
        async with rig.worker(app, replace(QUICK, inflight_max=IN_HAND, refill_runs=IN_HAND)):
            async with asyncio.timeout(flood / 100):
                await under_way.wait()
            before = len(began)  # in the middle of it, each of them comes again
            await send(journal, victims)
            while len(began) < flood + 2 * TENANTS:  # counting rows again and again would be most of the work
                await asyncio.sleep(0.1)
            await settled(rig, flood + 2 * TENANTS)
    for part, several in ((began[:before], "first"), (began[before:], "again")):
        places = [n for n, tenant in enumerate(part) if tenant != "flood"]
        assert len(places) == TENANTS and len(set(part)) == TENANTS + 1
        assert places[-1] - TENANTS < BEFORE, f"{several}: the flood had {places[-1] - TENANTS} turns before the last"


@pytest.mark.slow
async def test_work_that_gets_twenty_times_slower_holds_up_its_own_queue_alone(rig: Rig, route: router_rig.Rig) -> None:
    app = App()
    app.queue("ingestion", max=SLOW_MOST)
    app.queue("runbooks", reserved=4)
    pace, ended = [STEP_S], Counter[str]()

    async def poll() -> None:
        await asyncio.sleep(pace[0])

    @app.workflow(on="ingest", queue="ingestion")
    async def ingest(event: Event, ctx: Context) -> None:
        await ctx.step(poll)
        ended["ingest"] += 1

    @app.workflow(on="incident", queue="runbooks")
    async def runbook(event: Event, ctx: Context) -> None:
        ended["runbook"] += 1

    journal = route.log()
    await rig.registered(app)
    async with route.router(), rig.worker(app, replace(QUICK, inflight_max=SLOTS, refill_runs=SLOTS)):
        for turn in range(ROUNDS):
            await send(journal, ["t"] * 10, "ingest")
            await send(journal, ["t"] * 5, "incident")
            pace[0] = STEP_S if turn < ROUNDS / 4 else STEP_S * SLOWER
            await asyncio.sleep(EVERY_S)
        await rig.until(lambda: ended["runbook"] == ROUNDS * 5)
        assert await rig.db.fetchval("select count(*) from run") > 10 * SLOW_MOST, "the slow queue has a backlog"
        await settled(rig, ROUNDS * 15)
    overtaken = await rig.db.fetchval(
        "select max((select count(*) from run_done s where s.workflow_id <> r.workflow_id"
        "            and s.finished_at between r.created_at and r.started_at))"
        " from run_done r join workflow w on w.id = r.workflow_id where w.name = 'runbook'"
    )
    assert overtaken <= OVERTAKEN
