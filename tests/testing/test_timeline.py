"""A run's way, as it is drawn: nothing is written for it while the run goes on."""

from __future__ import annotations

import msgspec

from seawall import App, Context, Event, Retry
from seawall.cli.draw import drawn
from seawall.store import report
from testing.conftest import Rehearse


async def quick() -> str:
    return "a"


async def test_a_run_that_waited_and_failed_says_when_it_began_first_and_who_had_it(rehearse: Rehearse) -> None:
    app = App()

    @app.workflow(on="begin", retry=Retry(attempts=2, first_s=0))
    async def flow(event: Event, ctx: Context) -> str:
        await ctx.step(quick)
        await ctx.sleep(hours=2)
        await ctx.wait_for("go", key="x", timeout=600)
        if ctx.attempt == 1:
            raise RuntimeError("not yet")
        return await ctx.step(quick, name="again")

    async with rehearse(app) as rehearsal:
        began = rehearsal.now
        event = await rehearsal.send("begin")
        run = await rehearsal.run(event)
        detail = await report.run(rehearsal._store, run.id, timeout_s=5)
        assert detail is not None and detail.timeline[-1].name == "ctx.sleep"
        await rehearsal.advance(hours=2, minutes=1)
        detail = await report.run(rehearsal._store, run.id, timeout_s=5)
        assert detail is not None and (detail.timeline[-1].name, detail.timeline[-1].open) == ("ctx.wait_for", True)
        await rehearsal.ended(event)
        detail = await report.run(rehearsal._store, run.id, timeout_s=5)
    assert detail is not None and detail.first_started_at is not None and detail.started_at is not None
    assert (detail.first_started_at - began).total_seconds() < 1
    assert (detail.started_at - began).total_seconds() > 7200, "started_at is of the last execution"
    told = [(moment.what, moment.name) for moment in detail.timeline]
    assert told[:4] == [("queued", ""), ("began", ""), ("step", "quick"), ("wait", "ctx.sleep")]
    assert sorted(told[4:-1]) == [("began again", ""), ("step", "again"), ("wait", "ctx.wait_for")]
    assert told[-1] == ("succeeded", "")
    slept = detail.timeline[3]
    assert slept.took_s is not None and round(slept.took_s) == 7200
    workers = {moment.worker for moment in detail.timeline if moment.what == "step"}
    assert len(workers) == 1 and "" not in workers
    rows = drawn([{**_plain(moment)} for moment in detail.timeline])
    assert [row["took"] for row in rows if row["name"] == "ctx.sleep"] == ["2 h"]
    assert all(len(row["drawn"]) <= 33 and row["drawn"].strip(": ") for row in rows)


def _plain(moment: object) -> dict[str, object]:
    return dict(msgspec.to_builtins(moment))
