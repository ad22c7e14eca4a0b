"""Workflows rehearsed: the real engine, and time in the test's hands."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from seawall import App, Context, Event, Limit, NonRetryable, Rate, Retry
from seawall.store import report
from seawall.testing.clock import ManualClock
from seawall.testing.rehearsal import Restless
from testing.conftest import Rehearse


def page(who: str) -> str:
    raise AssertionError("the real pager is never called")


async def note(text: str) -> str:
    return text.upper()


async def test_a_workflow_of_days_is_over_in_a_moment(rehearse: Rehearse) -> None:
    app = App()

    @app.workflow(on="incident.opened")
    async def runbook(event: Event, ctx: Context) -> str:
        incident = event.json["id"]
        ctx.respond({"id": incident})
        answer = await ctx.wait_for("incident.acknowledged", match={"/id": incident}, timeout=600)
        if answer is None:
            await ctx.step(page, "ann")
        await ctx.sleep(days=2)
        return await ctx.step(note, "report")

    async with rehearse(app) as rehearsal:
        paged = rehearsal.replace(page, result="paged")
        heard = await rehearsal.send("incident.opened", {"id": 7})
        unheard = await rehearsal.send("incident.opened", {"id": 8})
        reply = await rehearsal.reply(heard)
        assert reply is not None and (reply.status, reply.json) == (200, {"id": 7})
        await rehearsal.advance(minutes=9)
        assert paged.calls == []
        await rehearsal.send("incident.acknowledged", {"id": 7})
        await rehearsal.advance(minutes=1)
        assert paged.calls == [(("ann",), {})]
        run = await rehearsal.run(heard)
        assert (run.status, run.step_names) == ("waiting", ["ctx.wait_for", "ctx.sleep"])
        before = rehearsal.now
        assert (await rehearsal.ended(heard)).result == "REPORT"
        assert 1.9 < (rehearsal.now - before).total_seconds() / 86_400 < 2.1
        run = await rehearsal.ended(unheard)
        assert run.step_names == ["ctx.wait_for", "page", "ctx.sleep", "note"]
        assert run.step("page").result == "paged"


async def test_each_thing_happens_at_its_own_moment(rehearse: Rehearse) -> None:
    app, seen = App(), []

    async def look(hours: int) -> None:
        seen.append((hours, round((rehearsal.now - began).total_seconds() / 3600, 3)))

    @app.workflow(on="begin")
    async def wake(event: Event, ctx: Context) -> None:
        for _ in range(3):
            await ctx.sleep(hours=event.json["hours"])
            await ctx.step(look, event.json["hours"])

    async with rehearse(app) as rehearsal:
        began = rehearsal.now
        await rehearsal.send("begin", {"hours": 24})
        await rehearsal.send("begin", {"hours": 10})
        await rehearsal.advance(days=3)
    assert seen == [(10, 10.0), (10, 20.0), (24, 24.0), (10, 30.0), (24, 48.0), (24, 72.0)]


async def test_time_stands_still_until_it_is_let_go(rehearse: Rehearse) -> None:
    app = App()

    @app.workflow(on="begin")
    async def wait(event: Event, ctx: Context) -> str:
        await ctx.sleep(0.5)
        return "over"

    async with rehearse(app, clock=ManualClock(wall_us=1_000_000_000_000_000)) as rehearsal:
        assert rehearsal.now == datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC)
        event = await rehearsal.send("begin")
        await asyncio.sleep(0.05)
        assert not (await rehearsal.run(event)).over
        await rehearsal.advance(0.5)
        assert (await rehearsal.run(event)).result == "over"


async def test_backoff_of_runs_and_of_steps_is_waited_for_in_the_same_time(rehearse: Rehearse) -> None:
    app, tried = App(), []

    @app.workflow(on="begin", retry=Retry(attempts=3, first_s=100))
    async def flaky(event: Event, ctx: Context) -> str:
        return await ctx.step(note, "x", retry=Retry(attempts=2, first_s=30))

    async def fails_thrice(text: str) -> str:
        tried.append(rehearsal.now)
        if len(tried) < 4:
            raise RuntimeError("not yet")
        return text

    async with rehearse(app) as rehearsal:
        rehearsal.replace("note", using=fails_thrice)
        event = await rehearsal.send("begin")
        assert len(tried) == 1
        assert (await rehearsal.run(event)).status == "running"
        assert (await rehearsal.ended(event)).result == "x"
        assert len(tried) == 4 and 1 < (tried[-1] - tried[0]).total_seconds() < 160
        rehearsal.replace(note, error=NonRetryable("no"))
        run = await rehearsal.ended(await rehearsal.send("begin"))
        assert run.status == "failed" and run.error is not None and "NonRetryable: no" in run.error


async def test_copies_of_an_event_begin_one_run_and_tenants_wait_for_their_own(rehearse: Rehearse) -> None:
    app = App()

    @app.workflow(on="github.*")
    async def any(event: Event, ctx: Context) -> str:
        await ctx.wait_for("go", key="x")
        return event.headers["x-github-event"]

    async with rehearse(app) as rehearsal:
        first = await rehearsal.send("github.push", {}, key="one", tenant="acme")
        copy = await rehearsal.send("github.push", {}, key="one", tenant="acme")
        await rehearsal.send("go", {"key": "x"}, tenant="umbrella")
        assert (await rehearsal.run(first)).status == "waiting"
        assert await rehearsal.runs(copy) == []
        await rehearsal.send("go", {"key": "x"}, tenant="acme")
        assert (await rehearsal.run(first)).result == "push"


async def test_schedules_begin_their_runs_each_at_its_moment_and_runs_begin_others(rehearse: Rehearse) -> None:
    app, moments = App(), []

    async def look() -> None:
        moments.append(rehearsal.now)

    @app.cron("30 * * * *")
    async def hourly(event: Event, ctx: Context) -> None:
        await ctx.step(look)

    @app.workflow(on="begin")
    async def parent(event: Event, ctx: Context) -> str:
        said: str = await ctx.run("child", {"n": 2})
        return said

    @app.workflow(on="never")
    async def child(event: Event, ctx: Context) -> str:
        await ctx.sleep(hours=event.json["n"])
        return "grown up"

    async with rehearse(app, clock=ManualClock(wall_us=1_000_000_800_000_000)) as rehearsal:
        await rehearsal.advance(hours=3)
        assert [moment.strftime("%H:%M") for moment in moments] == ["02:30", "03:30", "04:30"]
        run = await rehearsal.ended(await rehearsal.send("begin"))
        assert (run.result, len(moments)) == ("grown up", 5)


async def test_what_does_not_come_to_rest_is_said(rehearse: Rehearse) -> None:
    app = App()

    @app.workflow(on="begin")
    async def hangs(event: Event, ctx: Context) -> None:
        await ctx.step(note, "x")

    async def never(text: str) -> None:
        await asyncio.Event().wait()

    async with rehearse(app, patience_s=0.3) as rehearsal:
        rehearsal.replace(note, using=never)
        with pytest.raises(Restless, match=r"still at work after 0.3 s: run \d+"):
            await rehearsal.send("begin")
        with pytest.raises(ValueError, match="its body makes it 'other'"):
            await rehearsal.send("begin", {"type": "other"})


async def test_limited_runs_follow_each_other_and_a_rate_goes_by_the_tests_clock(rehearse: Rehearse) -> None:
    app, seen = App(), []

    @app.workflow(on="deploy.asked", concurrency=Limit(1, key="/id"), throttle=Rate(1, per=60))
    async def deploy(event: Event, ctx: Context) -> None:
        seen.append(rehearsal.now)

    async with rehearse(app) as rehearsal:
        for run in [await rehearsal.send("deploy.asked", {"id": 7}) for _ in range(2)]:
            assert (await rehearsal.ended(run)).status == "succeeded"
    assert 59 <= (seen[1] - seen[0]).total_seconds() <= 61


async def test_a_total_timeout_ends_a_run_at_its_moment_and_not_before(rehearse: Rehearse) -> None:
    app = App()

    @app.workflow(on="incident.opened", total_timeout_s=86_400.0)
    async def runbook(event: Event, ctx: Context) -> None:
        await ctx.sleep(hours=23, minutes=55)
        await ctx.run("wait")

    @app.workflow(on="none")
    async def wait(event: Event, ctx: Context) -> None:
        await ctx.wait_for("incident.closed", key="7", timeout=30 * 86_400)

    async with rehearse(app) as rehearsal:
        event = await rehearsal.send("incident.opened", {})
        before = rehearsal.now
        run = await rehearsal.ended(event)
        assert run.status == "failed" and run.error is not None and "longer than 86400 s altogether" in run.error
        assert 86_400 <= (rehearsal.now - before).total_seconds() < 86_401
        await rehearsal.advance(seconds=1)
        runs = await report.runs(rehearsal._store, before=report.RUN_ID_MAX, limit=5, timeout_s=5)
        assert {line.status for line in runs[0]} == {"failed", "cancelled"}


async def test_what_a_run_asks_is_approved_declined_or_expires_at_its_moment(rehearse: Rehearse) -> None:
    app = App()

    @app.workflow(on="deploy.asked")
    async def deploy(event: Event, ctx: Context) -> str:
        request = await ctx.approval("deploy?", within=3600)
        await ctx.step(note, request.link)
        answer = await request
        if not answer:
            return "expired" if answer.expired else f"{answer.by}: {answer.comment}"
        return "deployed" if await ctx.approve("announce?", within=60) else "deployed in silence"

    async with rehearse(app) as rehearsal:
        links = rehearsal.replace(note, result="sent")
        yes, no, nobody = [await rehearsal.send("deploy.asked", {}) for _ in range(3)]
        assert len({link for (link,), _ in links.calls}) == 3
        await rehearsal.advance(minutes=59)
        await rehearsal.approve(yes, by="ann")
        await rehearsal.approve(no, approved=False, by="ben", comment="not today")
        with pytest.raises(AssertionError, match=r"open are: announce\?"):
            await rehearsal.approve(yes, question="deploy?")
        await rehearsal.approve(yes)
        assert (await rehearsal.run(yes)).result == "deployed"
        assert (await rehearsal.run(no)).result == "ben: not today"
        assert (await rehearsal.run(nobody)).status == "waiting"
        await rehearsal.advance(minutes=1)
        run = await rehearsal.run(nobody)
        assert (run.result, run.step_names) == ("expired", ["ctx.approval", "note"])
        assert len(links.calls) == 3
