"""Incident I4: Redis, or Kafka, becomes a hole in the network. A client that waits for it holds each event as long, and
one that waits only a moment holds each event a moment, for as long as the outage lasts. The check of waits must see
both."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from statistics import median

import pytest

from cache.server import Network, Server
from journal.kafka_rig import opened, record
from seawall.cache.setting import Settings
from seawall.cache.shared import Shared
from seawall.guard import Supervisor
from seawall.guard.panel import Panel
from seawall.journal.spool.joint import Joint
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import SystemClock
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.limiter import Rate
from seawall.lab import expect
from seawall.lab.expect import Seen
from seawall.lab.part.redis import wheel_engine
from seawall.lab.weak.client import PatientShared, UnbrokenShared
from seawall.lab.weak.kafka import PatientJoint, UnbrokenJoint
from seawall.testing.kafka import MockKafka

from .desk import seen

NAME = "intake.wait_s"
RATE = Rate(100_000)
SENDERS = 4
BEFORE_S, FAULT_S, PAUSE_S = 0.4, 2.0, 0.05
FELT_S, PROVEN_S = 0.1, 10.0
"""An outage has begun when an answer was held up for so long; at the latest so long after it was made."""

CUT_S = 2.0
"""Whoever still waits then has waited for too long, by any measure."""

OUTAGE_KNOWN_S = 1.2
"""Into an outage; from then on nobody should wait."""

MOST_S, HARDLY_S = 0.5, 0.3


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


Ask = Callable[[Callable[[object], None]], None]
"""Calls what it is given when the answer is there."""


async def waited(ask: Ask) -> float:
    """For one answer; at most ``CUT_S``."""
    answered: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    def done(found: object) -> None:
        if not answered.done():
            answered.set_result(found)

    began = time.monotonic()
    ask(done)
    await asyncio.wait([answered], timeout=CUT_S)
    return time.monotonic() - began


class Outage:
    """Senders that go on through an outage, and what they waited."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._samples: list[tuple[float, dict[str, float]]] = []
        self._cut_s = self._felt_s = math.inf

    async def through(self, ask: Ask, cut: Callable[[], None]) -> Seen:
        """Some time before the outage, and some from the first answer on that it holds up."""
        sending = [asyncio.create_task(self._send(ask)) for _ in range(SENDERS)]
        await asyncio.sleep(BEFORE_S)
        self._cut_s = self._now()
        cut()
        await asyncio.gather(*sending)
        return seen(samples=self._samples, fault_s=self._felt_s)

    def _now(self) -> float:
        return time.monotonic() - self._began

    async def _send(self, ask: Ask) -> None:
        while (asked_s := self._now()) < min(self._felt_s, self._cut_s + PROVEN_S) + FAULT_S:
            waited_s = await waited(ask)
            if asked_s + waited_s > self._cut_s and waited_s > FELT_S:
                self._felt_s = min(self._felt_s, max(asked_s, self._cut_s))
            self._samples.append((self._now(), {NAME: waited_s}))
            await asyncio.sleep(PAUSE_S)


async def without_redis(kind: type[Shared], server: Server) -> Seen:
    async with Network(server.port) as network, limiter(kind, network) as shared:
        return await Outage().through(
            lambda done: shared.limiter.ask([(b"canary", RATE)], done), lambda: setattr(network, "hole", True)
        )


async def without_kafka(kind: type[Joint], folder: Path) -> Seen:
    with MockKafka("events") as brokers:
        async with opened(brokers, folder, topic="events", kind=kind) as desk:
            await desk.warm()
            return await Outage().through(
                lambda done: desk.joint.submit(record(), done), lambda: brokers.slow(3_600_000)
            )


def holds_nobody_up(run: Seen) -> bool:
    """The check: events wait hardly at all, but for some by which the outage is found out, or for a busy machine."""
    return expect.stays(run, NAME, at_most=HARDLY_S, skip_s=OUTAGE_KNOWN_S, share=0.5).held


def waits(run: Seen) -> list[float]:
    """Long after the outage could have been known."""
    return run.values(NAME, "fault", OUTAGE_KNOWN_S)


async def test_a_client_with_a_breaker_holds_nobody_up(redis: Server) -> None:
    run = await without_redis(Shared, redis)
    assert expect.stays(run, NAME, at_most=MOST_S, during="before").held
    assert expect.stays(run, NAME, at_most=MOST_S).held
    assert holds_nobody_up(run)


async def test_the_patient_canary_holds_events_for_seconds(redis: Server) -> None:
    run = await without_redis(PatientShared, redis)
    assert expect.stays(run, NAME, at_most=MOST_S, during="before").held
    assert not holds_nobody_up(run) and max(waits(run)) > 0.9 * CUT_S


async def test_the_unbroken_canary_holds_each_event_a_moment_until_the_end(redis: Server) -> None:
    run = await without_redis(UnbrokenShared, redis)
    assert expect.stays(run, NAME, at_most=MOST_S, during="before").held
    # It is no hang: each waits its moment, or what is left of that of one who asked just before.
    assert not holds_nobody_up(run) and MOST_S < median(waits(run)) < CUT_S


@pytest.mark.slow
async def test_a_journal_with_a_breaker_holds_nobody_up(tmp_path: Path) -> None:
    run = await without_kafka(Joint, tmp_path)
    assert expect.stays(run, NAME, at_most=MOST_S, during="before").held
    assert holds_nobody_up(run)


@pytest.mark.slow
async def test_the_journal_of_the_patient_canary_holds_events_for_seconds(tmp_path: Path) -> None:
    run = await without_kafka(PatientJoint, tmp_path)
    assert expect.stays(run, NAME, at_most=MOST_S, during="before").held
    assert not holds_nobody_up(run) and max(waits(run)) > 0.9 * CUT_S


@pytest.mark.slow
async def test_the_journal_of_the_unbroken_canary_holds_each_event_a_moment(tmp_path: Path) -> None:
    run = await without_kafka(UnbrokenJoint, tmp_path)
    assert expect.stays(run, NAME, at_most=MOST_S, during="before").held
    assert not holds_nobody_up(run) and MOST_S < median(waits(run)) < CUT_S
