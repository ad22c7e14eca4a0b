"""Incident I4: Redis becomes a hole in the network. A client that waits for it holds each event as long, and one that
waits only a moment holds each event a moment, for as long as the outage lasts. The check of waits must see both."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cache.server import Network, Server
from seawall.cache.setting import Settings
from seawall.cache.shared import Shared
from seawall.guard import Supervisor
from seawall.guard.panel import Panel
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import SystemClock
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.limiter import Rate
from seawall.lab import expect
from seawall.lab.expect import Seen
from seawall.lab.part.redis import wheel_engine
from seawall.lab.weak.client import PatientShared, UnbrokenShared

from .desk import seen

NAME = "limiter.wait_s"
RATE = Rate(100_000)
SENDERS = 4
BEFORE_S, FAULT_S, PAUSE_S = 0.4, 1.6, 0.05
CUT_S = 2.0
"""Whoever still waits then has waited for too long, by any measure."""

OUTAGE_KNOWN_S = 1.0
"""Into an outage; from then on nobody should wait."""

MOST_S, HARDLY_S = 0.5, 0.1


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(Path(tmp_path_factory.mktemp("redis")), wheel_engine())
    server.start()
    yield server
    server.kill()


@contextlib.asynccontextmanager
async def limiter(kind: type[Shared], network: Network) -> AsyncIterator[Shared]:
    metrics, clock = Metrics(), SystemClock()
    shared = kind(
        Settings(url=f"redis://127.0.0.1:{network.port}"), name="c1", clock=clock, metrics=metrics,
        alerts=Alerts(metrics, clock), panel=Panel(), rng=random.Random(7),
    )  # fmt: skip
    supervisor = Supervisor(metrics)
    shared.register(supervisor)
    async with shared, supervisor:
        async with asyncio.timeout(20):
            while not shared.limiter.heard:
                await asyncio.sleep(0.01)
        yield shared


async def asked(shared: Shared) -> float:
    """One question; how long it waited, at most ``CUT_S``."""
    answered: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    def decided(found: object) -> None:
        if not answered.done():
            answered.set_result(found)

    began = time.monotonic()
    shared.limiter.ask([(b"canary", RATE)], decided)
    await asyncio.wait([answered], timeout=CUT_S)
    return time.monotonic() - began


async def through_an_outage(kind: type[Shared], server: Server) -> Seen:
    """What senders' questions waited, before the hole and in it."""
    samples: list[tuple[float, dict[str, float]]] = []
    async with Network(server.port) as network, limiter(kind, network) as shared:
        began = time.monotonic()

        async def send() -> None:
            while time.monotonic() - began < BEFORE_S + FAULT_S:
                waited_s = await asked(shared)
                samples.append((time.monotonic() - began, {NAME: waited_s}))
                await asyncio.sleep(PAUSE_S)

        sending = [asyncio.create_task(send()) for _ in range(SENDERS)]
        await asyncio.sleep(BEFORE_S)
        network.hole = True
        fault_s = time.monotonic() - began
        await asyncio.gather(*sending)
    return seen(samples=samples, fault_s=fault_s)


async def test_a_client_with_a_breaker_holds_nobody_up(redis: Server) -> None:
    run = await through_an_outage(Shared, redis)
    assert expect.stays(run, NAME, at_most=MOST_S, during="before").held
    assert expect.stays(run, NAME, at_most=MOST_S).held
    assert expect.stays(run, NAME, at_most=HARDLY_S, skip_s=OUTAGE_KNOWN_S, share=0.8).held


async def test_the_patient_canary_holds_events_for_seconds(redis: Server) -> None:
    run = await through_an_outage(PatientShared, redis)
    assert expect.stays(run, NAME, at_most=MOST_S, during="before").held
    found = expect.stays(run, NAME, at_most=MOST_S)
    assert not found.held and max(run.values(NAME, "fault")) > 0.9 * CUT_S


async def test_the_unbroken_canary_holds_each_event_a_moment_until_the_end(redis: Server) -> None:
    run = await through_an_outage(UnbrokenShared, redis)
    assert expect.stays(run, NAME, at_most=MOST_S, during="before").held
    assert not expect.stays(run, NAME, at_most=HARDLY_S, skip_s=OUTAGE_KNOWN_S, share=0.8).held
    # It is no hang: each of them waits its 750 ms, long after the outage could have been known.
    late = run.values(NAME, "fault", OUTAGE_KNOWN_S)
    assert min(late) > MOST_S and max(late) < CUT_S
