"""Waits as a workflow's author writes them, over an execution in memory."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from seawall.kernel.seam.wait import Arrived, Heard
from workflow.fake import MemoryRun

HOUR_US = 3600 * 1_000_000
ARRIVED = Arrived(
    id="0193", type="incident.answered", source="shop", tenant="acme", received_us=5_000_000, headers=b"X-One\x001",
    body=b'{"key":"x"}',
)  # fmt: skip


async def put_away(waiting: Any) -> None:
    with pytest.raises(asyncio.CancelledError, match="put away"):
        await waiting


async def test_the_time_of_a_sleep_begins_when_the_workflow_first_comes_there() -> None:
    run = MemoryRun()
    await put_away(run.context().sleep(minutes=30, hours=0.5))
    run.clock_us += HOUR_US // 2  # another execution, half an hour later
    await put_away(run.context().sleep(minutes=30, hours=0.5))
    run.clock_us += HOUR_US // 2
    await run.context().sleep(minutes=30, hours=0.5)
    assert run.rests == [1_000_000 + HOUR_US] * 2


async def test_sleeps_of_one_name_are_told_apart_by_their_count() -> None:
    run = MemoryRun()
    await put_away(run.context().sleep(5))
    run.clock_us += 5_000_000
    again = run.context()
    await again.sleep(5)
    await put_away(again.sleep(5))
    assert sorted(run.kept) == [("ctx.sleep", 0), ("ctx.sleep", 1)]


async def test_a_moment_is_the_same_in_every_time_zone_and_a_past_one_is_no_wait() -> None:
    run = MemoryRun()
    moment = datetime.fromtimestamp(7200, tz=UTC)
    await put_away(run.context().sleep_until(moment.astimezone(timezone(timedelta(hours=5, minutes=30)))))
    assert run.rests == [2 * HOUR_US]
    await MemoryRun().context().sleep_until(datetime.fromtimestamp(0, tz=UTC))


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"seconds": -1}, "-1 seconds; 0 to 3.16224e+07"),
        ({"days": 367}, "366 days"),
        ({"seconds": float("nan")}, "nan seconds"),
        ({"minutes": "5"}, "numbers are needed"),
        ({"seconds": 1, "name": "a\nb"}, "printable characters"),
    ],
)
async def test_what_is_no_time_to_sleep_is_refused_and_remembered_nowhere(given: dict[str, Any], error: str) -> None:
    run = MemoryRun()
    with pytest.raises((ValueError, TypeError), match=error.replace("+", r"\+")):
        await run.context().sleep(**given)
    assert not run.kept


@pytest.mark.parametrize(
    ("moment", "error"),
    [(datetime(2026, 1, 1), "says no time zone"), ("2026-01-01", "a datetime is needed")],  # noqa: DTZ001
)
async def test_a_moment_needs_a_time_zone(moment: Any, error: str) -> None:
    with pytest.raises((ValueError, TypeError), match=error):
        await MemoryRun().context().sleep_until(moment)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"type": "x"}, "0 fields to match"),
        ({"type": "", "key": "k"}, "printable characters"),
        ({"type": "x", "key": 1.5}, "whole number"),
        ({"type": "x", "match": {"/a~2": 1}}, "JSON Pointer"),
        ({"type": "x", "key": "k", "timeout": -1}, "-1 seconds"),
        ({"type": "x", "key": "k", "lookback": 86_401}, "lookback"),
    ],
)
async def test_what_is_nothing_to_wait_for_is_refused_and_opens_nothing(given: dict[str, Any], error: str) -> None:
    run = MemoryRun()
    with pytest.raises((ValueError, TypeError), match=error):
        await run.context().wait_for(**given)
    assert not run.kept and not run.listened


async def test_what_came_is_the_same_event_in_every_replay() -> None:
    run = MemoryRun()
    run.heard = Heard(event=ARRIVED)
    first = await run.context().wait_for("incident.answered", key="x", timeout=60)
    again = await run.context().wait_for("incident.answered", key="x", timeout=60)
    assert len(run.listened) == 1
    for event in (first, again):
        assert event is not None
        assert (event.id, event.json, event.headers["X-One"]) == (ARRIVED.id, {"key": "x"}, "1")
        assert event.received_at == datetime.fromtimestamp(5, tz=UTC)


async def test_that_nothing_came_is_remembered_too() -> None:
    run = MemoryRun()
    run.heard = Heard(over=True)
    assert [await run.context().wait_for("x", key="x", timeout=60) for _ in range(2)] == [None, None]
    assert len(run.listened) == 1
    [(name, nth, wanted)] = run.listened
    assert (name, nth, wanted.timeout_us, wanted.fields) == ("ctx.wait_for", 0, 60_000_000, (("/key", "x"),))


async def test_a_wait_without_an_end_rests_until_it_is_woken() -> None:
    run = MemoryRun()
    await put_away(run.context().wait_for("x", match={"/a/b": True}))
    assert run.rests[0] > 3600 * 24 * 365 * 1_000_000
