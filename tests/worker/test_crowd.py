"""People, deadlines and operators act on the same runs at once, beside workers that come and go: what somebody was told
is what the run hears, and no run is left waiting."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import replace
from typing import Any

import pytest

from seawall import App, Context, Event, Retry
from seawall.kernel.approval import Claim
from seawall.kernel.seam.approval import State
from seawall.store import approval, cancel
from seawall.store.pool import Store
from seawall.store.statement import statements
from seawall.worker import execution
from worker.rig import CLOCK, QUICK, Rig
from worker.test_approval import LINKS, NO, YES

RUNS = 60
BULK = statements("bulk")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
async def test_what_people_were_told_is_what_runs_hear_whatever_is_done_with_them_meanwhile(
    rig: Rig, store: Store, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(execution, "REST_S", 0.02)
    rng = random.Random(seed)
    app, sent = App(), dict[int, Claim]()
    won: dict[int, list[str]] = {}

    @app.workflow(on="test.thing", retry=Retry(attempts=3, first_s=0.05))
    async def deploy(event: Event, ctx: Context) -> Any:
        request = await ctx.approval("deploy?", within=event.json["within"])
        claim = LINKS.opened(request.link.rpartition("/")[2])
        assert claim is not None
        sent[ctx.run_id] = claim
        if event.json["fails"] and ctx.attempt == 1:
            raise OSError("once")
        if event.json["beside"]:
            answer, _ = await asyncio.gather(awaited(request), ctx.sleep(event.json["beside"]))
        else:
            answer = await request
        return [answer.expired, answer.by]

    async def awaited(request: Any) -> Any:
        return await request

    async def person(run: int, name: str, delay_s: float) -> None:
        await rig.until(lambda: run in sent, timeout_s=60)
        await asyncio.sleep(delay_s)
        claim = sent[run]
        wish = replace(rng.choice([YES, NO]), by=name)
        asked, decided = await approval.decide(store, claim, wish, clock=CLOCK, timeout_s=10)
        if decided:
            won.setdefault(run, []).append(name)
        assert asked is None or asked.state is not State.OPEN, "it is shut for whoever has tried to decide it"

    async def operator(run: int, queue: int, delay_s: float) -> None:
        await rig.until(lambda: run in sent, timeout_s=60)
        await asyncio.sleep(delay_s)
        act = rng.choice(["hold", "hold", "cancel"])
        if act == "hold":
            await store.fetch(BULK["hold"], [run])
            await asyncio.sleep(rng.random() * 0.6)
            while await store.value("select state from run where id = $1", run) == 2:
                await store.fetch(BULK["release"], [run], [run], [0])
            return
        async with store.transaction() as session:
            marked = await cancel.mark(session, [run], "cancelled: by chance")
        await cancel.settle(store, marked, timeout_s=5)
        await asyncio.sleep(rng.random() * 0.3)
        for _ in range(500):
            row = await store.row(BULK["retry"], [run], [run], [queue], [run % 4], [0], [0])
            assert row is not None
            if row["done"] or not row["there"]:
                return
            await asyncio.sleep(0.02)

    await rig.registered(app)
    queue = await rig.db.fetchval("select id from queue")
    runs = await rig.add(
        "deploy",
        [
            {"within": rng.choice([0.1, 0.5, 1.0, 3.0]), "fails": rng.random() < 0.2, "beside": rng.choice([0, 0, 0.3])}
            for _ in range(RUNS)
        ],
    )
    doing = []
    for run in runs:
        doing += [person(run, f"p{n}", rng.random() * 1.5) for n in range(rng.randrange(4))]
        doing += [operator(run, queue, rng.random() * 1.2)] if rng.random() < 0.4 else []

    acted = asyncio.Event()

    async def workers() -> None:
        while not acted.is_set():
            async with rig.worker(app, replace(QUICK, drain_s=0.0), links=LINKS):
                await asyncio.sleep(0.5 + rng.random())

    working = asyncio.create_task(workers())
    await asyncio.gather(*doing)
    acted.set()
    await working
    async with rig.running(app, links=LINKS):
        done = await rig.ended(runs, timeout_s=30)
    for run in runs:
        row = done[run]
        names = won.get(run, [])
        assert len(names) <= 1, (run, names)
        assert row["status"] in (5, 7), dict(row)
        if row["status"] == 5:
            expired, by = json.loads(row["result"])
            assert (expired, by) == ((False, names[0]) if names else (True, "")), (run, names, expired, by)
    assert len(won) > RUNS / 10
