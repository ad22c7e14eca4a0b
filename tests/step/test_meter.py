"""A service that doesn't work costs nobody its timeouts, and a flood of services no memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from seawall.console.panel import BREAKER
from seawall.guard.breaker import Cause
from seawall.step import StepDeclined, StepUnavailable
from seawall.step.meter import SERVICES_MAX
from seawall.testing.clock import ManualClock
from step.rig import toolbox

Work = Callable[[], Awaitable[int]]


async def fine() -> int:
    return 1


async def hung() -> int:
    raise StepUnavailable("no answer", cause=Cause.TIMEOUT, sent=True)


async def wrong() -> int:
    raise StepDeclined("404", status=404)


async def limited() -> int:
    raise StepUnavailable("429", cause=None, sent=True, status=429)


async def test_after_failures_in_a_row_it_isnt_called_any_more_until_a_trial_succeeds() -> None:
    clock = ManualClock()
    async with toolbox(clock=clock) as made:
        call = made.tools.meter.call
        for _ in range(5):
            clock.advance(1.0)
            with pytest.raises(StepUnavailable, match="no answer"):
                await call("page", "a:443", hung)
        with pytest.raises(StepUnavailable, match="isn't called now") as caught:
            await call("page", "a:443", fine)
        assert not caught.value.sent and caught.value.retry_after_s >= 1.0
        assert await call("page", "b:443", fine) == 1, "another service has a breaker of its own"
        assert await call("other", "a:443", fine) == 1, "and so has another step"
        assert [alert.labels for alert in made.alerts.active()] == [{"breaker": "page:a:443"}]
        assert {line.name: line.state for line in made.panel.lines()}["page:a:443"] == "open"
        clock.advance(2.0)
        assert await call("page", "a:443", fine) == 1
        assert made.alerts.active() == [] and await call("page", "a:443", fine) == 1
        assert made.count("seawall_step_failures_total", step="page", cause="timeout") == 5
        assert made.count("seawall_step_failures_total", step="page", cause="rejected") == 1


@pytest.mark.parametrize(("work", "label"), [(wrong, "invalid"), (limited, "limited")])
async def test_mistakes_and_limits_speak_against_no_service(work: Work, label: str) -> None:
    clock = ManualClock()
    async with toolbox(clock=clock) as made:
        for _ in range(50):
            with pytest.raises((StepDeclined, StepUnavailable)):
                await made.tools.meter.call("page", "a", work)
            clock.advance(1.0)
        assert await made.tools.meter.call("page", "a", fine) == 1
        assert made.count("seawall_step_failures_total", step="page", cause=label) == 50


async def test_only_so_many_are_under_way_and_a_cancelled_one_gives_its_place_back() -> None:
    begun = asyncio.Event()

    async def forever() -> int:
        begun.set()
        await asyncio.Event().wait()
        return 0

    async with toolbox(inflight_max=1) as made:
        first = asyncio.create_task(made.tools.meter.call("page", "a", forever))
        await begun.wait()
        with pytest.raises(StepUnavailable, match="inflight_max"):
            await made.tools.meter.call("page", "a", fine)
        assert await made.tools.meter.call("page", "b", fine) == 1
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert await made.tools.meter.call("page", "a", fine) == 1


async def test_a_breakers_name_is_one_that_a_hand_can_write() -> None:
    async with toolbox() as made:
        await made.tools.meter.call("page", "a/b c\n?" + "x" * 999, fine)
        (line,) = made.panel.lines()
        assert line.name.startswith("page:a_b_c__xx") and BREAKER.fullmatch(line.name)


async def test_a_cancelled_trial_lets_the_next_call_try() -> None:
    clock, begun = ManualClock(), asyncio.Event()

    async def forever() -> int:
        begun.set()
        await asyncio.Event().wait()
        return 0

    async with toolbox(clock=clock) as made:
        for _ in range(5):
            clock.advance(1.0)
            with pytest.raises(StepUnavailable):
                await made.tools.meter.call("page", "a", hung)
        clock.advance(2.0)
        trial = asyncio.create_task(made.tools.meter.call("page", "a", forever))
        await begun.wait()
        with pytest.raises(StepUnavailable, match="half_open"):
            await made.tools.meter.call("page", "a", fine)
        trial.cancel()
        await asyncio.gather(trial, return_exceptions=True)
        assert await made.tools.meter.call("page", "a", fine) == 1


async def test_services_without_end_take_no_memory_and_those_in_use_stay() -> None:
    clock, begun = ManualClock(), asyncio.Event()

    async def forever() -> int:
        begun.set()
        await asyncio.Event().wait()
        return 0

    async with toolbox(clock=clock) as made:
        held = asyncio.create_task(made.tools.meter.call("page", "held", forever))
        await begun.wait()
        for number in range(3 * SERVICES_MAX):
            await made.tools.meter.call("page", f"s{number}", fine)
        names = made.tools.meter.services()
        assert len(names) == SERVICES_MAX == len(made.panel.lines()) and "page:held" in names
        held.cancel()
        await asyncio.gather(held, return_exceptions=True)
        for _ in range(5):
            clock.advance(1.0)
            with pytest.raises(StepUnavailable):
                await made.tools.meter.call("page", "down", hung)
        for number in range(3 * SERVICES_MAX):
            await made.tools.meter.call("page", f"t{number}", fine)
        assert "page:down" in made.tools.meter.services(), "nobody closes another's breaker by naming hosts"
    assert len(list(made.metrics.samples())) < 20, "no metric has a host in its labels"
