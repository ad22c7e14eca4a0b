"""Waiting for a dependency isn't a hang, however many waits there are, and is told when it takes long."""

from __future__ import annotations

import asyncio

import pytest

from seawall.guard import Supervisor
from seawall.guard.patience import QUIET_S, patiently
from seawall.guard.supervisor import Heart
from seawall.kernel.metric import Metrics


@pytest.mark.parametrize("wait_s", [QUIET_S / 4, QUIET_S * 1.6], ids=["many short ones", "a long one"])
async def test_a_loop_that_waits_for_its_dependency_is_not_taken_for_dead(wait_s: float) -> None:
    reasons, done = set(), asyncio.Event()

    async def ask(heart: Heart) -> None:
        for _ in range(round(1.6 / wait_s)):
            await patiently(heart, asyncio.sleep(wait_s), what="the store")
        done.set()
        await asyncio.Event().wait()

    supervisor = Supervisor(Metrics())
    supervisor.add("ask", ask, stall_s=1.2)
    async with supervisor:
        async with asyncio.timeout(10):
            while not done.is_set():
                reasons.add(supervisor.health()[0].reason)
                await asyncio.sleep(0.05)
        (loop,) = supervisor.health()
    assert loop.restarts == 0
    assert ("the store: no answer for 1.0 s" in reasons) == (wait_s > QUIET_S)
