"""Steps that a run takes side by side keep their own values in a replay, whichever came first."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from seawall import Context
from seawall.kernel.seam.run import Memo, step_parts
from seawall.workflow.branch import PATH_CHARS_MAX, Branch, current, task_factory
from workflow.fake import MemoryRun

Kept = dict[tuple[str, int], Memo]


@pytest_asyncio.fixture(autouse=True)
async def factory() -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(task_factory)
    yield
    loop.set_task_factory(None)


async def called(workflow: Any, kept: Kept) -> Any:
    """As the worker calls it: in a task of its own."""
    context = MemoryRun(kept).context()

    async def run() -> Any:
        current.set(context.branch)
        return await workflow(context)

    return await asyncio.get_running_loop().create_task(run())


async def echo(value: Any, turns: int = 0) -> Any:
    for _ in range(turns):
        await asyncio.sleep(0)
    return value


async def test_branches_keep_their_own_values_although_the_slow_one_was_begun_first() -> None:
    async def workflow(ctx: Context) -> Any:
        async def branch(who: str, turns: int) -> list[str]:
            price = await ctx.step(echo, who, turns, name="price")
            return [who, await ctx.step(echo, f"charged {price}", name="charge")]

        return await asyncio.gather(branch("alice", 9), branch("bob", 1))

    kept: Kept = {}
    first = await called(workflow, kept)
    assert first == [["alice", "charged alice"], ["bob", "charged bob"]]
    assert await called(workflow, kept) == first
    tasks = {step_parts(name) for name, _ in kept}
    assert {name for name, _ in tasks} == {"price", "charge"} and len({task for _, task in tasks}) == 2


async def test_what_a_step_begins_shifts_nobodys_place() -> None:
    """A replay doesn't call the step, so tasks that it made the first time are missing then."""

    async def part(ctx: Context, value: int) -> int:
        return await ctx.step(echo, value)

    async def busy() -> list[int]:
        return await asyncio.gather(*(echo(n) for n in range(3)))

    async def workflow(ctx: Context) -> Any:
        await ctx.step(busy)
        return await asyncio.gather(*(part(ctx, n) for n in range(3)))

    kept: Kept = {}
    assert await called(workflow, kept) == await called(workflow, kept) == [0, 1, 2]
    assert len(kept) == 4


async def test_tasks_of_libraries_shift_nobodys_place() -> None:
    async def keep_alive() -> None:
        await asyncio.sleep(0)

    async def part(ctx: Context, value: int) -> int:
        return await ctx.step(echo, value)

    async def workflow(ctx: Context) -> Any:
        await asyncio.gather(*(keep_alive() for _ in range(random.randint(0, 5))))
        return await asyncio.gather(*(part(ctx, n) for n in range(3)))

    kept: Kept = {}
    for _ in range(5):
        assert await called(workflow, kept) == [0, 1, 2]
    assert len(kept) == 3


@given(
    tree=st.recursive(st.integers(0, 6), lambda inner: st.lists(inner, min_size=1, max_size=4), max_leaves=20),
    seed=st.integers(0, 1000),
)
def test_whatever_is_done_side_by_side_a_replay_gives_each_its_own(tree: Any, seed: int) -> None:
    """Leaves are steps, lists are tasks side by side; the order of arrival is another one in each execution, and some
    executions end in the middle."""

    async def all_of() -> None:
        asyncio.get_running_loop().set_task_factory(task_factory)
        chance = random.Random(seed)
        kept: Kept = {}
        asked: dict[tuple[int, ...], Any] = {}

        async def walk(ctx: Context, node: Any, place: tuple[int, ...]) -> None:
            if isinstance(node, int):
                seen = await ctx.step(echo, [*place, chance.random()], chance.randint(0, 8), name=f"s{node}")
                assert seen[:-1] == list(place)
                assert asked.setdefault(place, seen) == seen
                return
            for _ in range(chance.randint(0, 3)):
                await asyncio.sleep(0)
            await asyncio.gather(*(walk(ctx, each, (*place, n)) for n, each in enumerate(node)))

        async def workflow(ctx: Context) -> None:
            await walk(ctx, tree, ())
            await walk(ctx, tree, (-1,))

        for _ in range(3):
            task = asyncio.ensure_future(called(workflow, kept))
            for _ in range(chance.randint(0, 30)):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            await asyncio.sleep(0.001)  # what it left behind ends
        await called(workflow, kept)

    asyncio.run(all_of())


async def test_a_task_in_a_context_of_its_makers_choice_belongs_to_that() -> None:
    inner: list[Branch | None] = []

    async def look() -> None:
        inner.append(current.get())

    async def workflow(ctx: Context) -> None:
        await asyncio.create_task(look(), context=contextvars.Context())
        await asyncio.create_task(look())

    await called(workflow, {})
    none, branch = inner
    assert none is None and branch is not None and branch.path.endswith("look#0")


def test_a_long_place_is_kept_by_its_hash_and_still_told_from_others() -> None:
    deep = Branch()
    for n in range(100):
        deep = deep.began(f"coroutine{n}")
    one, other = deep.began("x"), deep.began("x")
    assert one.path != other.path
    assert max(len(one.path), len(other.path)) <= PATH_CHARS_MAX
    assert Branch(Branch(), "odd\x1fname").path.isprintable()


def test_tasks_may_begin_each_other_thousands_deep() -> None:
    deep = Branch(run=7)
    for _ in range(5000):
        deep = deep.began("next")
    assert deep.run_id == 7
    assert deep.path != deep.began("next").path
