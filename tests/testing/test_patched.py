"""Code that changes under runs that are under way: which edits are safe, and changes that say who is to take them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from seawall import App, Context, Event
from testing.conftest import Rehearse

Code = Callable[[Event, Context], Awaitable[object]]


def app_of(code: Code) -> App:
    app = App()
    app.workflow(on="begin", name="flow")(code)
    return app


async def a() -> str:
    return "a"


async def b() -> str:
    return "b"


async def c() -> str:
    return "c"


async def put_away(event: Event, ctx: Context) -> list[str]:
    done = [await ctx.step(a), await ctx.step(b)]
    await ctx.sleep(60)
    return [*done, await ctx.step(c)]


async def in_a_wait(event: Event, ctx: Context) -> list[str]:
    done = [await ctx.step(a)]
    await ctx.wait_for("go", key="x", timeout=60)
    return [*done, await ctx.step(c)]


async def goes_on(rehearse: Rehearse, before: Code, after: Code) -> tuple[object, list[str]]:
    """The result of a run that began with one code and ended with another, and what was called altogether."""
    called: list[str] = []

    async def count(name: str) -> str:
        called.append(name)
        return name

    async with rehearse(app_of(before)) as rehearsal:
        for name in "abcd":
            rehearsal.replace(name, using=lambda name=name: count(name))
        event = await rehearsal.send("begin")
        await rehearsal.deploy(app_of(after))
        run = await rehearsal.ended(event)
        assert run.error is None
        return run.result, called


async def test_a_step_that_is_inserted_behind_what_is_done_is_done(rehearse: Rehearse) -> None:
    async def after(event: Event, ctx: Context) -> list[str]:
        done = [await ctx.step(a), await ctx.step(b)]
        await ctx.sleep(60)
        return [*done, await ctx.step(d), await ctx.step(c)]

    assert await goes_on(rehearse, put_away, after) == (["a", "b", "d", "c"], ["a", "b", "d", "c"])


async def d() -> str:
    return "d"


async def test_steps_that_change_places_are_not_done_again(rehearse: Rehearse) -> None:
    async def after(event: Event, ctx: Context) -> list[str]:
        done = [await ctx.step(b), await ctx.step(a)]
        await ctx.sleep(60)
        return [*done, await ctx.step(c)]

    assert await goes_on(rehearse, put_away, after) == (["b", "a", "c"], ["a", "b", "c"])


async def test_a_step_that_is_left_out_is_forgotten(rehearse: Rehearse) -> None:
    async def after(event: Event, ctx: Context) -> list[str]:
        done = [await ctx.step(b)]
        await ctx.sleep(60)
        return [*done, await ctx.step(c)]

    assert await goes_on(rehearse, put_away, after) == (["b", "c"], ["a", "b", "c"])


async def test_a_step_of_another_name_is_done_again(rehearse: Rehearse) -> None:
    """Not a safe edit: `seawall runs check` finds it."""

    async def after(event: Event, ctx: Context) -> list[str]:
        done = [await ctx.step(a), await ctx.step(d)]
        await ctx.sleep(60)
        return [*done, await ctx.step(c)]

    assert await goes_on(rehearse, put_away, after) == (["a", "d", "c"], ["a", "b", "d", "c"])


@pytest.mark.parametrize("before", [put_away, in_a_wait])
async def test_who_got_past_a_change_goes_on_without_it_and_who_comes_to_it_takes_it(
    rehearse: Rehearse, before: Code
) -> None:
    async def after(event: Event, ctx: Context) -> list[str]:
        done = [await ctx.step(a)]
        if ctx.patched("early"):
            done.append(await ctx.step(d))
        if before is put_away:
            done.append(await ctx.step(b))
            await ctx.sleep(60)
        else:
            await ctx.wait_for("go", key="x", timeout=60)
        if ctx.patched("late"):
            done.append(await ctx.step(d))
        assert not ctx.patched("early"), "it was answered once"
        return [*done, await ctx.step(c)]

    expected = ["a", "b", "d", "c"] if before is put_away else ["a", "d", "c"]
    assert await goes_on(rehearse, before, after) == (expected, expected)


async def test_what_a_run_took_of_a_change_it_keeps(rehearse: Rehearse) -> None:
    async def flow(event: Event, ctx: Context) -> list[bool]:
        said = [ctx.patched("one")]
        await ctx.step(a)
        await ctx.sleep(60)
        said.append(ctx.patched("one"))
        branch = await asyncio.gather(aside(ctx), ctx.step(b))
        return [*said, branch[0]]

    async def aside(ctx: Context) -> bool:
        return ctx.patched("one")

    async with rehearse(app_of(flow)) as rehearsal:
        run = await rehearsal.ended(await rehearsal.send("begin"))
        assert run.result == [True, True, True]
        assert run.step_names == ["ctx.patched one", "a", "ctx.sleep", "b"]


async def test_a_change_is_no_affair_of_a_step(rehearse: Rehearse) -> None:
    async def flow(event: Event, ctx: Context) -> None:
        async def inner() -> None:
            ctx.patched("x")

        await ctx.step(inner)

    app = App()
    app.workflow(on="begin")(flow)
    async with rehearse(app) as rehearsal:
        run = await rehearsal.ended(await rehearsal.send("begin"))
        assert run.status == "failed" and run.error is not None and "patched('x')" in run.error
