"""New code against what is kept of runs: what would break is told from what goes on, without any effect."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from seawall import App, Context, Event
from seawall.kernel.seam.run import MARK
from seawall.workflow.app import Workflow
from seawall.workflow.retrace import History, Kept, Severity, retrace

EVENT = Event(id="e", type="begin", received_at=datetime.now(UTC), body=b'{"id": 7}')


def workflow_of(code: Any) -> Workflow:
    app = App()
    app.workflow(on="begin", name="flow")(code)
    return app.workflows[0]


def kept(*names: str, result: bytes | None = b'"x"', failed: bool = False) -> list[Kept]:
    counts: dict[str, int] = {}
    made = []
    for at, name in enumerate(names, start=1):
        nth = counts.get(name, 0)
        counts[name] = nth + 1
        made.append(Kept(name, nth, result, failed, at * 1000))
    return made


async def found(code: Any, kept: list[Kept], *, over: bool = False, failed: bool = False) -> list[tuple[int, str]]:
    history = History(id=7, attempt=0, over=over, failed=failed, now_us=10_000_000, event=EVENT, kept=kept)
    return [(int(one.severity), one.what) for one in await retrace(workflow_of(code), history)]


async def never() -> None:
    raise AssertionError("no step is ever called")


def step(ctx: Context, name: str) -> Any:
    return ctx.step(never, name=name)


async def three(event: Event, ctx: Context) -> None:
    for name in "abc":
        await step(ctx, name)


@pytest.mark.parametrize("count", range(4))
async def test_a_run_that_is_anywhere_on_the_same_way_goes_on(count: int) -> None:
    assert await found(three, kept(*"abc"[:count])) == []
    assert await found(three, kept(*"abc"), over=True) == []


async def test_a_renamed_or_inserted_step_before_what_is_kept_breaks() -> None:
    [(severity, what)] = await found(three, kept("a", "old", "c"))
    assert severity == Severity.BREAKS
    assert what == (
        "asks for b, which isn't kept, before it has asked for old, c: done again, or at the wrong time"
    )  # fmt: skip


async def test_one_more_of_the_same_name_before_shifts_the_count() -> None:
    async def code(event: Event, ctx: Context) -> None:
        await step(ctx, "a")
        await step(ctx, "a")
        await step(ctx, "b")

    [(severity, what)] = await found(code, kept("a", "b"))
    assert severity == Severity.BREAKS and "asks for a (2.), which isn't kept, before it has asked for b" in what


async def test_a_step_that_is_left_out_or_done_earlier_only_differs() -> None:
    assert await found(three, kept("a", "b", "c", "d")) == [(Severity.DIFFERS, "never asks for d")]
    assert await found(three, kept("b", "a", "c")) == [(1, "asks for b after a, which was done later")]
    assert await found(three, kept("a", "b"), over=True) == [(1, "would go on with c")]


async def test_code_that_cannot_take_what_was_kept_breaks() -> None:
    async def code(event: Event, ctx: Context) -> None:
        (await step(ctx, "a"))["new"]

    [(severity, what)] = await found(code, kept("a"))
    assert severity == Severity.BREAKS and what.startswith("raises TypeError")
    assert await found(code, kept("a"), over=True, failed=True) == [], "it failed like that before"


async def test_a_step_that_failed_fails_its_run_as_it_did() -> None:
    failure = b'{"type": "E", "message": "m", "retryable": true, "attempts": 1}'
    assert await found(three, kept("a", result=failure, failed=True)) == []


async def test_waits_that_are_open_and_moments_that_have_not_come_are_where_a_run_is() -> None:
    async def code(event: Event, ctx: Context) -> None:
        await step(ctx, "a")
        await ctx.wait_for("go", key="x")
        await ctx.sleep(60)
        await step(ctx, "b")

    waiting = [*kept("a"), Kept("ctx.wait_for", 0, None, False, 2000)]
    assert await found(code, waiting) == []
    heard = [*kept("a"), Kept("ctx.wait_for", 0, b'{"over": true}', False, 2000)]
    asleep = [*heard, Kept("ctx.sleep", 0, b'{"until_us": 60000000}', False, 3000)]
    assert await found(code, asleep) == []
    awake = [*heard, Kept("ctx.sleep", 0, b'{"until_us": 9000000}', False, 3000)]
    assert await found(code, [*awake, Kept("b", 0, b"1", False, 4000)]) == []
    assert (await found(three, waiting))[0][1].startswith("asks for b, which isn't kept, before")


async def test_a_request_to_people_is_passed_and_its_answer_is_where_a_run_is() -> None:
    async def code(event: Event, ctx: Context) -> None:
        request = await ctx.approval("deploy?", to=["ana"])
        assert request.link
        await step(ctx, "send")
        await request
        await step(ctx, "deploy")

    open_ = kept("ctx.approval", result=None)
    assert await found(code, []) == await found(code, open_) == []
    assert await found(code, [*open_, *kept("send")]) == []
    [(severity, what)] = await found(code, [*open_, *kept("send", "deploy")])
    assert (severity, what) == (Severity.DIFFERS, "never asks for deploy")

    async def other(event: Event, ctx: Context) -> None:
        await step(ctx, "prepare")
        await ctx.approve("deploy?")

    [(severity, _)] = await found(other, open_)
    assert severity == Severity.BREAKS


async def test_tasks_side_by_side_are_told_apart() -> None:
    async def code(event: Event, ctx: Context) -> None:
        await asyncio.gather(side(ctx, "a"), side(ctx, "b"))

    async def side(ctx: Context, name: str) -> None:
        await asyncio.sleep(0.001)
        await step(ctx, name)
        await step(ctx, name + "2")

    places = [f"{side.__qualname__}#{n}" for n in range(2)]
    made = [Kept(f"a{MARK}{places[0]}", 0, b"1", False, 2000), Kept(f"b{MARK}{places[1]}", 0, b"1", False, 1000)]
    assert await found(code, []) == []
    assert await found(code, made) == []
    assert (await found(code, [*made, Kept("c", 0, b"1", False, 3000)]))[0][0] == Severity.BREAKS


async def test_a_change_in_flight_is_not_taken_for_a_break() -> None:
    async def code(event: Event, ctx: Context) -> None:
        await step(ctx, "a")
        if ctx.patched("x"):
            await step(ctx, "new")
        await step(ctx, "b")

    assert await found(code, kept("a")) == []
    assert await found(code, kept("a", "b")) == []
    decided = [*kept("a"), Kept("ctx.patched x", 0, b"true", False, 2000), Kept("new", 0, b"1", False, 3000)]
    assert await found(code, decided) == []
    assert await found(three, decided[:2]) == [], "the change was taken out again"


async def test_code_that_never_comes_to_rest_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seawall.workflow.retrace.REST_S", 0.05)

    async def code(event: Event, ctx: Context) -> None:
        await asyncio.Event().wait()

    [(severity, what)] = await found(code, [])
    assert severity == Severity.BREAKS and "between two steps" in what
