"""Workflows that take the event loop away, or never end: they alone pay for it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from seawall.kernel.status import RunStatus
from seawall.testing.postgres import Database
from worker import rude, slow, slow_and_rude
from worker.rig import QUICK, TESTS, Rig, opened, process


@pytest.fixture
async def rig(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    async with opened(database) as rig:
        await rig.registered(rude.app)
        yield rig


SLOW = pytest.mark.slow


@pytest.mark.parametrize("how", ["stop", *(pytest.param(how, marks=SLOW) for how in ("exit", "interrupt", "cancel"))])
async def test_a_run_that_takes_the_loop_away_ends_dead_and_no_innocent_fails(rig: Rig, how: str) -> None:
    """asyncio's runner cancels every task then, and each innocent would be stored as `failed: CancelledError`."""
    innocents = await rig.add("innocent", [{}] * 8)
    [guilty] = await rig.add("rude", [how])
    owner = None
    while await rig.db.fetchval("select count(*) < 9 from run_done"):
        with process(rig, "worker.rude", owner=owner) as child:

            async def over(child=child) -> bool:  # type: ignore[no-untyped-def]
                done = await rig.db.fetchval("select count(*) = 9 from run_done")
                return bool(done) or child.poll() is not None

            await rig.until(over, 60)
            assert child.poll() in (None, 73, 74)
    rows = {row["id"]: row for row in await rig.db.fetch("select id, status, error from run_done")}
    assert rows[guilty]["status"] == RunStatus.DEAD
    assert "died 3 times while it was alone" in rows[guilty]["error"]
    assert {rows[run]["status"] for run in innocents} == {RunStatus.SUCCEEDED}


async def test_a_suspect_that_swallows_cancellation_dies_alone_and_the_lane_goes_on(rig: Rig) -> None:
    [guilty] = await rig.add("stubborn", [{}], shard=-1)
    innocents = await rig.add("innocent", [{}] * 3, shard=-1)
    command = [sys.executable, "-m", "worker.child", rig.database.worker_dsn, "worker.rude"]
    async with rig.worker(rude.app, solo_command=command):
        rows = await rig.ended([guilty, *innocents], 60)
    assert rows[guilty]["status"] == RunStatus.DEAD
    assert {rows[run]["status"] for run in innocents} == {RunStatus.SUCCEEDED}


async def test_suspects_that_never_end_keep_no_other_one_waiting(rig: Rig) -> None:
    """They have no deadline that comes, and blocked the lane for ever; nor may those that take long starve."""
    await rig.registered(slow.app)
    endless = await rig.add("never_ends", [{}, {}], shard=-1)
    innocents = await rig.add("innocent", [{}] * 2, shard=-1)
    slowly = await rig.add("slow", [{}], shard=-1)
    command = [sys.executable, "-m", "worker.child", rig.database.worker_dsn, "worker.slow_and_rude"]
    async with rig.worker(slow_and_rude.app, replace(QUICK, solo_turn_s=0.3), solo_command=command):
        rows = await rig.ended([*innocents, *slowly], 60)
    assert {row["status"] for row in rows.values()} == {RunStatus.SUCCEEDED}
    left = await rig.db.fetch("select id, shard, deaths from run order by id")
    assert [tuple(row) for row in left] == [(id, -1, 0) for id in endless]
    assert await rig.db.fetchval("select count(*) from refill") == 0
