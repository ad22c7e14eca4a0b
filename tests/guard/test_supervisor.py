"""A loop that dies or falls silent is seen, named, and started again (incident I1: the silent listener)."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from seawall.guard import Heart, Supervisor
from seawall.guard.supervisor import CHECK_S
from seawall.kernel.metric import Metrics


async def until(true: Callable[[], bool], *, within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not true():
            await asyncio.sleep(0.005)


async def steady(heart: Heart) -> None:
    while True:
        await heart.beat()
        await asyncio.sleep(0.02)


async def test_a_loop_is_not_ready_before_its_first_beat() -> None:
    gate = asyncio.Event()

    async def late(heart: Heart) -> None:
        await gate.wait()
        await steady(heart)

    supervisor = Supervisor(Metrics())
    supervisor.add("late", late)
    async with supervisor:
        await asyncio.sleep(0)
        assert not supervisor.health()[0].ready
        gate.set()
        await until(lambda: supervisor.health()[0].ready)


async def test_a_dead_loop_is_logged_with_its_cause_unready_and_started_again(caplog: pytest.LogCaptureFixture) -> None:
    lives = 0
    may_live = asyncio.Event()

    async def mortal(heart: Heart) -> None:
        nonlocal lives
        lives += 1
        if lives == 1:
            await heart.beat()
            raise ConnectionError("the channel is gone")
        await may_live.wait()
        await steady(heart)

    metrics = Metrics()
    supervisor = Supervisor(metrics)
    supervisor.add("listener", mortal)
    with caplog.at_level(logging.ERROR, "seawall"):
        async with supervisor:
            await until(lambda: lives == 2)
            seen = supervisor.health()[0]
            assert not seen.ready
            assert "the channel is gone" in seen.reason
            may_live.set()
            await until(lambda: supervisor.health()[0].ready)

    assert any("the channel is gone" in str(vars(r)["seawall"]["cause"]) for r in caplog.records)
    assert metrics.counter("seawall_loop_restarts_total", "", loop="listener").value == 1


async def test_a_loop_that_returns_is_dead_too() -> None:
    async def brief(heart: Heart) -> None:
        await heart.beat()

    supervisor = Supervisor(Metrics())
    supervisor.add("brief", brief)
    async with supervisor:
        await until(lambda: supervisor.health()[0].restarts >= 2)


async def test_a_silent_loop_is_cancelled_and_started_again(caplog: pytest.LogCaptureFixture) -> None:
    lives = 0

    async def silent(heart: Heart) -> None:
        nonlocal lives
        lives += 1
        if lives == 1:
            await heart.beat()
            await asyncio.Event().wait()
        await steady(heart)

    supervisor = Supervisor(Metrics())
    supervisor.add("drain", silent, stall_s=0.2)
    with caplog.at_level(logging.ERROR, "seawall"):
        async with supervisor:
            await until(lambda: lives == 2)
            await until(lambda: supervisor.health()[0].ready)

    hang = next(r for r in caplog.records if r.getMessage() == "loop hangs")
    assert any("test_supervisor.py" in line for line in vars(hang)["seawall"]["stack"])


async def test_a_process_that_stood_still_calls_no_loop_of_it_hung(caplog: pytest.LogCaptureFixture) -> None:
    async def asking(heart: Heart) -> None:
        while True:
            # As whoever asks a store: several turns of the event loop from a question to its answer.
            for _ in range(5):
                await asyncio.sleep(0.02)
            await heart.beat()

    async def silent(heart: Heart) -> None:
        await heart.beat()
        await asyncio.Event().wait()

    supervisor = Supervisor(Metrics())
    for name in ("a", "b", "c"):
        supervisor.add(name, asking, stall_s=1.0)
    async with supervisor:
        await until(lambda: all(h.ready for h in supervisor.health()))
        time.sleep(1.5)
        await asyncio.sleep(2 * CHECK_S)

        assert [h.restarts for h in supervisor.health()] == [0, 0, 0]
        assert [r.getMessage() for r in caplog.records] == []
        supervisor.add("silent", silent, stall_s=1.0)
        await until(lambda: supervisor.health()[-1].restarts > 0)


async def test_a_loop_that_swallows_its_cancellation_ends_the_process() -> None:
    ended: list[int] = []
    release = asyncio.Event()

    async def stubborn(heart: Heart) -> None:
        await heart.beat()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    supervisor = Supervisor(Metrics(), die=ended.append)
    supervisor.add("stubborn", stubborn, stall_s=0.1)
    async with supervisor:
        await until(lambda: ended != [])
        release.set()

    assert set(ended) == {70}


BLOCKED = """
import asyncio, re, sys, time
from seawall.guard import supervisor, watchdog
from seawall.kernel.metric import Metrics

watchdog.BLOCKED_S, watchdog.HELD_S, watchdog.TICK_S = {blocked_s}, {held_s}, 0.2

async def block(heart):
    {how}

async def main():
    watching = supervisor.Supervisor(Metrics(), watch_blocking=True)
    watching.add("block", block)
    async with watching:
        await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("how", "blocked_s", "held_s"),
    [("time.sleep(60)", 1, 60), ("while True: pass", 1, 60), ("re.match('(a*)*b', 'a' * 40)", 60, 1)],
)
def test_a_process_that_is_blocked_from_its_first_moment_ends(how: str, blocked_s: int, held_s: int) -> None:
    """Also by code that never lets go of the interpreter."""
    code = BLOCKED.format(how=how, blocked_s=blocked_s, held_s=held_s)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30)
    assert ended.returncode == 1
    assert b"in block" in ended.stderr, "the stack says who blocked it"


def test_a_process_that_stood_still_goes_on() -> None:
    """By the clock alone it would end in the moment in which its machine comes back."""
    code = BLOCKED.format(how="print('beats', flush=True); await asyncio.sleep(60)", blocked_s=1, held_s=60)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None and child.stdout.readline() == b"beats\n"
            child.send_signal(signal.SIGSTOP)
            time.sleep(3)
            child.send_signal(signal.SIGCONT)
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(2)
        finally:
            child.kill()


async def test_unready_is_not_dead() -> None:
    async def waiting(heart: Heart) -> None:
        while True:
            heart.unready("PostgreSQL is away")
            await asyncio.sleep(0.02)

    supervisor = Supervisor(Metrics())
    supervisor.add("drain", waiting, stall_s=0.2)
    async with supervisor:
        await asyncio.sleep(0.5)
        health = supervisor.health()[0]

    assert (health.ready, health.reason, health.restarts) == (False, "PostgreSQL is away", 0)


async def test_leaving_stops_every_loop() -> None:
    supervisor = Supervisor(Metrics())
    supervisor.add("a", steady)
    supervisor.add("b", steady)
    async with supervisor:
        await until(lambda: all(h.ready for h in supervisor.health()))

    assert [h.reason for h in supervisor.health()] == ["stopped", "stopped"]
    assert not [t for t in asyncio.all_tasks() if t.get_name() in ("a", "b", "supervisor")]


async def test_a_supervisor_that_dies_takes_the_process_with_it() -> None:
    class BrokenClock:
        broken = False

        def monotonic(self) -> float:
            if self.broken:
                raise OSError("no clock")
            return 0.0

        def wall_us(self) -> int:
            return 0

    ended: list[int] = []
    clock = BrokenClock()
    supervisor = Supervisor(Metrics(), clock=clock, die=ended.append)
    supervisor.add("idle", lambda heart: asyncio.Event().wait())  # type: ignore[arg-type, return-value]
    async with supervisor:
        clock.broken = True
        await until(lambda: ended == [70])
