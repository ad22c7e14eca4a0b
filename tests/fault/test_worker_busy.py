"""A step that takes all the CPU, in every thread that there is: others go on, and the process keeps what it has."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from seawall import App, Context, Event
from seawall.kernel.status import RunStatus
from seawall.testing.postgres import Database
from worker.rig import QUICK, opened

THREADS = 4


@pytest.mark.slow
async def test_steps_that_burn_all_the_cpu_keep_nobody_waiting_and_lose_no_lease(database: Database) -> None:
    app, release = App(), threading.Event()

    def burn() -> int:
        turns = 0
        while not release.is_set():
            turns += 1
        return turns

    async def nothing() -> str:
        return "done"

    @app.workflow(on="test.thing")
    async def greedy(event: Event, ctx: Context) -> int:
        return await ctx.step(burn)

    @app.workflow(on="test.other")
    async def modest(event: Event, ctx: Context) -> str:
        await ctx.step(nothing, name="first")
        return await ctx.step(nothing, name="second")

    async with opened(database) as rig, rig.running(app, replace(QUICK, threads_max=THREADS, lease_ttl_s=3.0)):
        epochs = await rig.db.fetch("select queue_id, shard, epoch from shard_lease order by 1, 2")
        hungry = await rig.add("greedy", [{}] * THREADS)
        await rig.until(lambda: rig.db.fetchval("select count(*) = $1 from refill", THREADS))
        modest_runs = await rig.add("modest", [{}] * 40)
        assert len(await rig.ended(modest_runs, timeout_s=60)) == 40, "beside them"
        assert await rig.db.fetchval("select count(*) from run_done where id = any($1::bigint[])", hungry) == 0
        release.set()
        done = await rig.ended(hungry, timeout_s=60)
        assert await rig.db.fetch("select queue_id, shard, epoch from shard_lease order by 1, 2") == epochs
        assert await rig.db.fetchval("select count(*) from step") == THREADS + 2 * 40
    assert {row["status"] for row in done.values()} == {RunStatus.SUCCEEDED}
