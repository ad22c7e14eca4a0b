"""A dependency that is away, slow, full or wrong costs its callers at most its timeout, and then nothing."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from seawall.guard.breaker import Cause, State
from seawall.guard.dependency import Dependency, Plan, cause_of
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import SystemClock
from seawall.kernel.error import Misconfigured, Rejected
from seawall.kernel.metric import Metrics


class Rig:
    def __init__(self, **plan: Any) -> None:
        self.metrics, clock = Metrics(), SystemClock()
        self.alerts = Alerts(self.metrics, clock)
        given = {"name": "geo", "timeout_s": 0.05, "without": "events carry no place"} | plan
        self.dependency: Dependency[str] = Dependency(
            Plan(**given), clock=clock, rng=random.Random(1), metrics=self.metrics, alerts=self.alerts,
            cause_of=cause_of,
        )  # fmt: skip
        self.asked = 0

    async def ask(self, work: Any) -> str:
        async def counted() -> str:
            self.asked += 1
            return await work()  # type: ignore[no-any-return]

        return await self.dependency.call(counted, lambda: "default")

    def fallbacks(self, cause: Cause) -> float:
        counter = self.metrics.counter("seawall_dependency_fallbacks_total", "", to="geo", cause=cause.value)
        return counter.value


async def fine() -> str:
    return "answer"


async def hangs() -> str:
    await asyncio.Event().wait()
    return "never"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ConnectionRefusedError(), Cause.REFUSED),
        (ConnectionResetError(), Cause.RESET),
        (EOFError(), Cause.RESET),
        (OSError("disk"), Cause.ERROR),
        (TimeoutError(), Cause.TIMEOUT),
    ],
)
async def test_each_failure_gives_the_default_and_is_counted_under_its_cause(error: Exception, cause: Cause) -> None:
    rig = Rig()

    async def fails() -> str:
        raise error

    assert await rig.ask(fails) == "default"
    assert rig.fallbacks(cause) == 1
    assert await rig.ask(fine) == "answer"


async def test_one_that_hangs_costs_its_timeout_and_then_nothing() -> None:
    rig = Rig(timeout_s=0.02)
    while rig.dependency.breaker.state is not State.OPEN:
        assert await rig.ask(hangs) == "default"
        await asyncio.sleep(0.1)  # beyond what is lumped into one failure
    asked = rig.asked
    assert asked <= 5
    assert [await rig.ask(hangs) for _ in range(100)] == ["default"] * 100
    assert rig.asked == asked
    assert rig.fallbacks(Cause.REJECTED) == 100
    [alert] = rig.alerts.active()
    assert alert.name == "breaker-open" and "events carry no place" in alert.summary


async def test_more_calls_at_once_than_the_bulkhead_holds_get_the_default_at_once() -> None:
    rig = Rig(inflight_max=3, timeout_s=0.5)
    gate = asyncio.Event()

    async def waits() -> str:
        await gate.wait()
        return "answer"

    calls = [asyncio.create_task(rig.ask(waits)) for _ in range(5)]
    while rig.fallbacks(Cause.REJECTED) < 2:
        await asyncio.sleep(0)
    gate.set()
    assert sorted(await asyncio.gather(*calls)) == ["answer"] * 3 + ["default"] * 2
    assert await rig.ask(fine) == "answer"


async def test_a_refusal_of_the_question_goes_up_and_says_nothing_against_the_dependency() -> None:
    rig = Rig()

    async def refuses() -> str:
        raise Rejected(404, "no such place")

    for _ in range(20):
        with pytest.raises(Rejected):
            await rig.ask(refuses)
    assert rig.dependency.breaker.state is State.CLOSED


async def test_a_cancelled_call_leaves_room_and_no_judgement() -> None:
    rig = Rig(inflight_max=1, timeout_s=1.0)
    for _ in range(20):
        call = asyncio.create_task(rig.ask(hangs))
        while rig.dependency._inflight == 0:
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
    assert await rig.ask(fine) == "answer"
    assert rig.dependency.breaker.state is State.CLOSED


@pytest.mark.parametrize("plan", [{"without": " "}, {"timeout_s": 60.0}])
def test_one_without_a_default_or_that_could_never_open_is_refused(plan: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured, match="breaker geo"):
        Rig(**plan)
