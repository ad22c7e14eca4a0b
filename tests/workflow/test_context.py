"""Steps and replies, over an execution in memory."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from typing import Any

import pytest

from seawall import NonRetryable, Retry, StepFailed
from seawall.kernel import limit
from seawall.workflow import Unkeepable
from workflow.fake import MemoryRun


@dataclasses.dataclass
class Point:
    x: int
    y: tuple[int, ...]


async def point() -> Point:
    return Point(1, (2, 3))


async def test_null_and_texts_about_it_are_kept_as_they_are() -> None:
    async def odd() -> object:
        return {"null": None, "text": "null", "list": [None, 1.5]}

    assert await MemoryRun().context().step(odd) == {"null": None, "text": "null", "list": [None, 1.5]}


async def test_the_first_execution_and_a_replay_see_the_very_same_value() -> None:
    first = MemoryRun()
    seen = await first.context().step(point)
    replay = MemoryRun(first.kept)
    assert seen == await replay.context().step(point) == {"x": 1, "y": [2, 3]}
    assert replay.waits == []


async def test_steps_of_one_name_are_told_apart_by_their_count() -> None:
    async def echo(n: int) -> int:
        return n

    run = MemoryRun()
    context = run.context()
    assert await asyncio.gather(*(context.step(echo, n) for n in (5, 6, 7))) == [5, 6, 7]
    assert {key: memo.result for key, memo in run.kept.items()} == {
        ("echo", 0): b"5",
        ("echo", 1): b"6",
        ("echo", 2): b"7",
    }


async def test_arguments_reach_the_function_and_pure_steps_do_not_wait() -> None:
    async def add(a: int, *, b: int) -> int:
        return a + b

    run = MemoryRun()
    assert await run.context().step(add, 1, b=2, pure=True) == 3
    assert run.waits == [False]


async def test_a_step_is_tried_again_with_growing_waits_and_no_more_than_asked() -> None:
    calls: list[int] = []

    async def flaky() -> None:
        calls.append(1)
        raise ConnectionError("reset")

    run = MemoryRun()
    with pytest.raises(StepFailed, match="step flaky failed, tried 4 times: ConnectionError: reset") as caught:
        await run.context().step(flaky, retry=Retry(attempts=4, first_s=1, factor=7))
    assert len(calls) == 4
    assert all(0 <= wait <= bound for wait, bound in zip(run.pauses, (1, 7, 49), strict=True))
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert caught.value.retryable and caught.value.attempts == 4


async def test_retry_after_is_a_floor_and_a_long_one_leaves_the_memory() -> None:
    class Busy(Exception):
        def __init__(self, seconds: Any) -> None:
            self.retry_after_s = seconds

    async def busy(seconds: Any) -> None:
        raise Busy(seconds)

    retry = Retry(attempts=2, first_s=0)
    for asked, pauses in ((7, [7.0]), ("nonsense", [0.0]), (float("inf"), [0.0]), (-3, [0.0])):
        run = MemoryRun()
        with pytest.raises(StepFailed):
            await run.context().step(busy, asked, retry=retry)
        assert run.pauses == pauses
    run = MemoryRun()
    with pytest.raises(StepFailed) as caught:
        await run.context().step(busy, 3600, retry=retry)
    assert run.pauses == [] and caught.value.retry_after_s == 3600


async def test_a_long_pause_of_a_steps_own_retry_is_the_runs_to_make() -> None:
    async def down() -> None:
        raise ConnectionError("down")

    run = MemoryRun()
    with pytest.raises(StepFailed) as caught:
        await run.context().step(down, retry=Retry(attempts=3, first_s=86_400, max_s=86_400))
    assert run.pauses == [] and 60 < caught.value.retry_after_s <= 86_400
    with pytest.raises(StepFailed) as caught:
        await run.context().step(down, name="last", retry=Retry(attempts=1, first_s=86_400, max_s=86_400))
    assert caught.value.retry_after_s == 0, "there is no next try of its own to wait for"


async def test_a_failure_is_remembered_like_a_value() -> None:
    async def refused() -> None:
        raise NonRetryable("stolen")

    first = MemoryRun()
    with pytest.raises(StepFailed) as one:
        await first.context().step(refused, retry=Retry(attempts=5))
    with pytest.raises(StepFailed) as two:
        await MemoryRun(first.kept).context().step(refused)
    for error in (one.value, two.value):
        assert (error.type, error.message, error.attempts, error.retryable) == ("NonRetryable", "stolen", 1, False)


@pytest.mark.parametrize(
    "value",
    [object(), {1, object()}, "\ud800", "x" * limit.RESULT_BYTES_MAX, float("nan"), {"a": [1, (float("-inf"),)]}],
)
async def test_what_cannot_be_kept_fails_the_step_without_another_try(value: object) -> None:
    calls: list[int] = []

    async def make() -> object:
        calls.append(1)
        return value

    with pytest.raises(StepFailed) as caught:
        await MemoryRun().context().step(make, retry=Retry(attempts=5))
    assert caught.value.type == "Unkeepable" and not caught.value.retryable and len(calls) == 1


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), None])
async def test_a_step_without_a_usable_timeout_is_refused_and_not_called(timeout_s: Any) -> None:
    calls: list[int] = []
    with pytest.raises(ValueError, match="timeout_s="):
        await MemoryRun().context().step(calls.append, 1, name="x", timeout_s=timeout_s)
    assert not calls


async def test_a_step_without_a_usable_name_is_refused() -> None:
    context = MemoryRun().context()
    with pytest.raises(TypeError, match="give it one with name="):
        await context.step(lambda: 1)
    with pytest.raises(TypeError, match="name="):
        await context.step(functools.partial(point))
    assert await context.step(lambda: 1, name="one") == 1
    for name in ("", "x" * 101, "nul\0"):
        with pytest.raises(ValueError, match="printable"):
            await context.step(point, name=name)


@pytest.mark.parametrize(
    ("value", "body", "content_type"),
    [
        ({"a": 1}, b'{"a":1}', "application/json"),
        (None, b"null", "application/json"),
        ("hé", "hé".encode(), "text/plain; charset=utf-8"),
        (b"\0\xff", b"\0\xff", "application/octet-stream"),
    ],
)
async def test_a_reply_is_sent_as_its_value_suggests(value: object, body: bytes, content_type: str) -> None:
    run = MemoryRun()
    context = run.context()
    context.respond(value)
    context.respond("a second one changes nothing", status=500)
    (reply,) = run.replies
    assert (reply.status, reply.content_type, reply.body) == (200, content_type, body)


@pytest.mark.parametrize(
    ("value", "options"),
    [
        ("x", {"status": 99}),
        ("x", {"status": "200"}),
        ("x", {"status": 600}),
        ("x", {"content_type": "text/html\r\nSet-Cookie: a=b"}),
        ("x", {"content_type": ""}),
        ("x" * (limit.RESULT_BYTES_MAX + 1), {}),
        (object(), {}),
    ],
)
async def test_a_wrong_reply_is_refused_and_the_next_one_may_be_right(value: object, options: dict[str, Any]) -> None:
    run = MemoryRun()
    context = run.context()
    with pytest.raises((ValueError, Unkeepable)):
        context.respond(value, **options)
    context.respond("right")
    assert [reply.body for reply in run.replies] == [b"right"]
