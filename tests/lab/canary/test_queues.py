"""Incident I2: ingestion that got slower ate the workers, and the steps of runbooks waited for hours; one tenant's
flood did the same to all others. The checks of waits and of turns must see it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from router.rig import Rig as Routing
from router.rig import append, opened, record
from seawall import App, Context, Event
from seawall.kernel.placement import Placement
from seawall.lab import expect
from seawall.lab.expect import Finding
from seawall.lab.weak.queue import FirstInFirstOut, one_queue
from seawall.testing.postgres import Database
from worker.rig import QUICK, Rig
from worker.rig import opened as workers

from .desk import seen

SLOTS, RESERVED, SHARDS = 8, 2, 4
INGESTIONS, RUNBOOKS = 40, 2
FLOOD, FEW = 150, 4
BEGUN = "runbooks.begun_count"
TURNS = "turns.before_few_count"
LONG_S, SHORT_S = 20.0, 1.5
"""What comes on any machine has come within the first. What can't come isn't waited for longer than the second."""

SAMPLE_S = 0.05


class Firm:
    """An app whose ingestion hangs, and whose runbooks have slots of their own."""

    def __init__(self) -> None:
        self.app, self.open = App(), asyncio.Event()
        self.ingesting = self.runbooks = 0
        self.app.queue("runbooks", reserved=RESERVED)

        @self.app.workflow(on="*", queue="ingest")
        async def ingest(event: Event, ctx: Context) -> None:
            self.ingesting += 1
            await self.open.wait()

        @self.app.workflow(on="*", queue="runbooks")
        async def runbook(event: Event, ctx: Context) -> None:
            self.runbooks += 1


async def runbooks_in_a_flood(
    rig: Rig, firm: Firm, app: App, *, taken: int, ingestions: int = INGESTIONS, watch_s: float = LONG_S
) -> Finding:
    """Whether runbooks begin while ingestion has ``taken`` slots, which are all that it can get."""
    shards = SHARDS * len({workflow.queue for workflow in app.workflows})
    async with rig.worker(app, replace(QUICK, inflight_max=SLOTS)) as worker:
        # What is reserved for a queue counts for who has its shards.
        await rig.until(lambda: len(worker._leases.held()) == shards)
        ingested = await rig.add("ingest", [{}] * ingestions)
        await rig.until(lambda: firm.ingesting >= taken)
        began, samples = time.monotonic(), []
        runs = await rig.add("runbook", [{}] * RUNBOOKS)
        while not samples or (firm.runbooks < RUNBOOKS and samples[-1][0] < watch_s):
            await asyncio.sleep(SAMPLE_S)
            samples.append((time.monotonic() - began, {BEGUN: float(firm.runbooks)}))
        assert firm.ingesting == taken, "ingestion let nobody go"
        firm.open.set()
        await rig.ended([*ingested, *runs])
    return expect.reaches(seen(samples=samples), BEGUN, at_least=RUNBOOKS, samples=1)


async def test_reserved_slots_are_there_for_runbooks(database: Database) -> None:
    firm = Firm()
    async with workers(database) as rig:
        assert (await runbooks_in_a_flood(rig, firm, firm.app, taken=SLOTS - RESERVED)).held


async def test_the_canary_with_one_queue_has_runbooks_wait_for_ingestion(database: Database) -> None:
    firm = Firm()
    async with workers(database) as rig:
        finding = await runbooks_in_a_flood(rig, firm, one_queue(firm.app), taken=SLOTS, watch_s=SHORT_S)
        assert not finding.held and "from 0 to 0" in finding.said
        assert firm.runbooks == RUNBOOKS  # as soon as ingestion let them


async def test_without_a_flood_one_queue_is_enough(database: Database) -> None:
    firm = Firm()
    async with workers(database) as rig:
        assert (await runbooks_in_a_flood(rig, firm, one_queue(firm.app), ingestions=1, taken=1)).held


async def turns(rig: Routing, placement: type[Placement], *, flood: int = FLOOD) -> Finding:
    """Before how many runs of one tenant's flood those of another stand, as workers take them."""
    await rig.workflow("*")
    journal = rig.log()
    await append(journal, *[record(tenant="flood") for _ in range(flood)])
    async with rig.router(placement=placement):
        await rig.arrived(flood, table="run")
        await append(journal, *[record(tenant="few") for _ in range(FEW)])
        await rig.arrived(flood + FEW, table="run")
    order = [row["tenant"] for row in await rig.database.fetch("select tenant from run order by vt, id")]
    before = [order[:at].count("flood") for at, tenant in enumerate(order) if tenant == "few"]
    assert len(before) == FEW
    return expect.stays(seen(samples=[(float(n), {TURNS: float(b)}) for n, b in enumerate(before)]), TURNS, at_most=20)


@pytest.fixture
async def routing(database: Database):  # type: ignore[no-untyped-def]
    async with opened(database) as rig:
        yield rig


async def test_few_runs_dont_stand_behind_a_flood(routing: Routing) -> None:
    assert (await turns(routing, Placement)).held


async def test_the_unfair_canary_has_them_stand_behind_all_of_it(routing: Routing) -> None:
    found = await turns(routing, FirstInFirstOut)
    assert not found.held and f"from {FLOOD} to {FLOOD}" in found.said


async def test_without_a_flood_first_in_first_out_is_fair(routing: Routing) -> None:
    assert (await turns(routing, FirstInFirstOut, flood=3)).held
