"""A primary that dies: its replica takes over, and the limiter with it; nobody is kept waiting meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from seawall.cache.client import Client
from seawall.cache.setting import Settings, target
from seawall.cache.shared import Shared
from seawall.guard import Supervisor
from seawall.guard.panel import Panel
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import SystemClock
from seawall.kernel.metric import Metrics
from seawall.lab.part.redis import Redis, wheel_engine
from stall import Stopwatch

from .server import Network, Server
from .test_limiter import SLOW, allowed, crowd, until


@pytest.fixture(params=[True, pytest.param(False, marks=pytest.mark.parts)], ids=["wheel", "real"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Redis]:
    """A primary, its replica and three sentinels."""
    part = Redis(tmp_path / "pair", replica=True, wheel=request.param)
    part.up(60)
    yield part
    part.down()


async def test_a_fail_over_is_followed_and_harms_nobody(pair: Redis) -> None:
    metrics, panel, clock = Metrics(), Panel(), SystemClock()
    # The replica first: it is asked, says what it is, and is passed by.
    url = f"redis://127.0.0.1:{pair.port('r2')},127.0.0.1:{pair.port('r1')}"
    shared = Shared(
        Settings(url=url), name="c1", clock=clock, metrics=metrics, alerts=Alerts(metrics, clock), panel=panel
    )
    supervisor = Supervisor(metrics)
    shared.register(supervisor)
    decided = metrics.counter("seawall_limiter_shared_total", "")

    async def redis_decides() -> None:
        """Also where a busy machine doesn't hear each of its words within 150 ms."""
        before = decided.value
        for n in range(20):
            assert await allowed(shared.limiter, (b"alone%d" % n, SLOW))
            if decided.value > before:
                return
        raise AssertionError("Redis was never heard within 150 ms")

    async with shared, supervisor:
        assert [await allowed(shared.limiter, (b"k", SLOW)) for _ in range(4)] == [True] * 4
        await redis_decides()
        latencies: list[float] = []
        whole = Stopwatch()
        async with asyncio.TaskGroup() as group:
            group.create_task(crowd(shared.limiter, latencies, for_s=2.0))
            await asyncio.sleep(0.2)
            await asyncio.to_thread(pair.kill, "r1")
        assert max(latencies) <= 0.25 + whole.stalled_s
        await until(lambda: panel.lines()[0].state == "closed", within_s=20)
        watch = Stopwatch()
        # The replica had the count, and if it hadn't, we had.
        assert [await allowed(shared.limiter, (b"k", SLOW)) for _ in range(2)] == [True, False]
        assert watch.s < 0.5
        await redis_decides()
        await until(lambda: pair.primary() == "r2")


async def test_an_old_address_that_swallows_everything_takes_no_try_of_the_new_one(tmp_path: Path) -> None:
    """As in an upgrade (incident I1): each try of both took all of its time at the old one, every second time."""
    server = Server(tmp_path / "redis", wheel_engine())
    server.start()
    try:
        async with Network(server.port) as old:
            old.hole = True
            settings = Settings(url=f"redis://127.0.0.1:{old.port},127.0.0.1:{server.port}", connect_s=0.15)
            for _ in range(3):
                client = Client(settings, target(settings.url), name="test")
                watch = Stopwatch()
                assert await client.ask("PING") == b"PONG"
                assert watch.s < 0.15 and client.turn == 1
                client.drop("once more")
                assert await client.ask("PING") == b"PONG"
                await client.close()
            old.hole = False
    finally:
        server.kill()
