"""A long step says that it goes on, and how far it has come; nothing else has a heartbeat."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Any

import pytest

from seawall import Context, StepFailed
from seawall.kernel.seam.pulse import Pulse
from workflow.fake import MemoryRun


def long(ctx: Context) -> list[Any]:
    before = ctx.progress
    ctx.heartbeat()
    ctx.heartbeat({"page": 3})
    ctx.heartbeat()
    return [before, ctx.progress]


async def test_a_step_finds_what_it_told_last() -> None:
    run = MemoryRun()
    assert await run.context().step(long, run.context(), heartbeat_s=5) == [None, {"page": 3}]
    run = MemoryRun()
    run.told = b'{"page":2}'
    assert await run.context().step(long, run.context(), heartbeat_s=5, timeout_s=9) == [{"page": 2}, {"page": 3}]
    assert run.timeouts == [9]


async def test_its_longest_time_is_a_day_when_nothing_is_said_and_a_minute_without_heartbeats() -> None:
    run = MemoryRun()
    await run.context().step(long, run.context(), heartbeat_s=5)
    await run.context().step(str, 5)
    assert run.timeouts == [86_400.0, 60.0]


@pytest.mark.parametrize("value", [0, 0.1, float("nan"), float("inf"), "5", 1e9])
async def test_a_heartbeat_that_is_none_is_refused_before_anything_is_called(value: Any) -> None:
    run = MemoryRun()
    with pytest.raises(ValueError, match="heartbeat_s"):
        await run.context().step(long, run.context(), heartbeat_s=value)
    assert run.timeouts == []


async def test_who_has_no_heartbeat_is_told_so() -> None:
    run = MemoryRun()
    ctx = run.context()
    with pytest.raises(RuntimeError, match="heartbeat_s"):
        ctx.heartbeat()
    with pytest.raises(StepFailed, match="heartbeat_s"):
        await ctx.step(long, ctx)
    caught: list[BaseException] = []

    def own_thread() -> None:
        def beat(told: object) -> None:
            try:
                ctx.heartbeat(told)
            except RuntimeError as error:
                caught.append(error)

        for target in (beat, lambda told: contextvars.copy_context().run(beat, told)):
            made = threading.Thread(target=target, args=(1,))
            made.start()
            made.join()
        given = contextvars.copy_context()
        made = threading.Thread(target=given.run, args=(beat, 2))
        made.start()
        made.join()
        assert ctx.progress == 2

    await ctx.step(own_thread, heartbeat_s=5)
    assert len(caught) == 2


@pytest.mark.parametrize("told", [object(), "x" * 5000, {1, (2, object())}, {"done": float("nan")}, "\ud800"])
async def test_progress_that_can_not_be_kept_fails_the_step_for_good(told: object) -> None:
    ctx = MemoryRun().context()
    with pytest.raises(StepFailed, match="progress of a step") as failed:
        await ctx.step(lambda: ctx.heartbeat(told), name="long", heartbeat_s=5)
    assert not failed.value.retryable


def test_a_step_that_nobody_waits_for_is_told_with_its_next_heartbeat() -> None:
    now = 5.0
    pulse = Pulse(2.0, lambda: now)
    now = 6.0
    pulse.beat(b"1")
    assert (pulse.due, pulse.left_s, pulse.progress) == (8.0, 2.0, b"1")
    pulse.over = True
    with pytest.raises(asyncio.CancelledError):
        pulse.beat(b"2")
    assert pulse.progress == b"1"
