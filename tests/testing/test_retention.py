"""A run that outlives what is kept: it repeats no step, and has what it was begun by and what it waited for."""

from __future__ import annotations

from seawall import App, Context, Event
from seawall.kernel.metric import Metrics
from seawall.store.partition import Housekeeping, Settings
from seawall.store.pool import Store
from seawall.testing.rehearsal import Rehearsal
from testing.conftest import Rehearse

KEPT_DAYS = 30


async def keep_house(rehearsal: Rehearsal, *, days: int) -> None:
    """Let days pass, with a round of housekeeping at the end of each ten."""
    async with Store(rehearsal._store.settings, role="housekeeping", direct=True) as store:
        housekeeping = Housekeeping(store, Settings(retention_days=KEPT_DAYS), rehearsal.clock, Metrics())
        await housekeeping.round()
        for _ in range(0, days, 10):
            await rehearsal.advance(days=10)
            await housekeeping.round()


async def test_a_run_that_sleeps_past_retention_repeats_no_step_and_forgets_nothing(rehearse: Rehearse) -> None:
    app, called = App(), []

    async def open_channel(name: str) -> str:
        called.append(name)
        return f"#{name}"

    @app.workflow(on="incident.opened")
    async def runbook(event: Event, ctx: Context) -> list[object]:
        channel = await ctx.step(open_channel, event.json["id"])
        answer = await ctx.wait_for("incident.acknowledged", match={"/id": event.json["id"]}, timeout=600)
        assert answer is not None
        await ctx.sleep(days=2 * KEPT_DAYS)
        return [event.json["id"], channel, answer.json["by"], await ctx.step(open_channel, "report")]

    async with rehearse(app) as rehearsal:
        first = await rehearsal.send("incident.opened", {"id": "a"})
        await rehearsal.send("incident.acknowledged", {"id": "a", "by": "ann"})
        other = await rehearsal.send("something.else", {})
        await keep_house(rehearsal, days=2 * KEPT_DAYS + 10)
        run = await rehearsal.run(first)
        assert run.over and run.result == ["a", "#a", "ann", "#report"]
        assert called == ["a", "report"]
        left = await rehearsal._store.fetch("select id from event")
        assert other not in {str(row["id"]) for row in left}, "what nobody needs is gone"


async def test_an_event_that_ended_a_wait_is_kept_until_its_run_has_read_it(rehearse: Rehearse) -> None:
    app = App()

    @app.workflow(on="incident.opened")
    async def runbook(event: Event, ctx: Context) -> object:
        answer = await ctx.wait_for("incident.acknowledged", match={"/id": event.json["id"]})
        assert answer is not None
        return answer.json["by"]

    async with rehearse(app) as rehearsal:
        first = await rehearsal.send("incident.opened", {"id": "a"})
        await rehearsal.send("incident.acknowledged", {"id": "b", "by": "bob"})
        await rehearsal._store.execute("update run set state = 2, run_after = null")  # held
        await rehearsal.send("incident.acknowledged", {"id": "a", "by": "ann"})
        await keep_house(rehearsal, days=KEPT_DAYS + 10)
        await rehearsal._store.execute("update run set state = 0")
        await rehearsal.advance(days=1)
        run = await rehearsal.run(first)
        assert run.over and run.result == "ann"
