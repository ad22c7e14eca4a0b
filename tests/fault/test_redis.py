"""Slow Redis (incident I4): collectors waited for rate limits, then were evicted. Here a request waits 150 ms at the
most, soon not at all, and none is refused for an outage."""

from __future__ import annotations

import asyncio
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cache.server import Network, Server
from collector.rig import SourceTable, client, request, running, until
from seawall.cache.setting import Settings
from seawall.cache.shared import BOUNDS, Bounds, Shared
from seawall.guard.panel import Panel
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import SystemClock
from seawall.kernel.metric import Metrics
from seawall.lab.part.redis import wheel_engine
from stall import Stopwatch

PATIENT_S = 4.0
PATIENT = Bounds(ask_s=PATIENT_S)
"""That Redis decides all when nothing is wrong is no claim about the machine: then it may take its time."""


def of(port: int, *, patient: bool) -> Settings:
    made = Settings(url=f"redis://127.0.0.1:{port}")
    return replace(made, timeout_s=PATIENT_S, connect_s=PATIENT_S) if patient else made


@pytest.fixture
def server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), wheel_engine())
        server.start()
        yield server
        server.kill()


@pytest.mark.parametrize("fault", ["none", "hole", "killed", "stopped", "slow"])
async def test_intake_answers_every_request_whatever_redis_does(tmp_path: Path, server: Server, fault: str) -> None:
    sources, metrics, clock, panel = SourceTable(), Metrics(), SystemClock(), Panel()
    sources.add("tok", settings='{"rate_per_s":100000}')
    calm = fault == "none"
    async with Network(server.port) as network:
        shared = Shared(
            of(network.port, patient=calm), name="c1", clock=clock, metrics=metrics, alerts=Alerts(metrics, clock),
            panel=panel, rng=random.Random(7), bounds=PATIENT if calm else BOUNDS,
        )  # fmt: skip
        async with shared, running(tmp_path, sources=sources, limiter=shared.limiter) as rig:
            shared.register(rig.supervisor)
            told: list[tuple[int, float]] = []

            async def send(for_s: float) -> None:
                async with client(rig) as c:
                    end = time.monotonic() + for_s
                    while (began := time.monotonic()) < end:
                        await c.send(request(body=b"x"))
                        answer = await c.answer()
                        told.append((answer.status if answer else 0, time.monotonic() - began))
                        await asyncio.sleep(0.002)

            whole = Stopwatch()
            async with asyncio.TaskGroup() as group:
                for _ in range(4):
                    group.create_task(send(1.5))
                await asyncio.sleep(0.3)
                watch = Stopwatch()
                match fault:
                    case "hole":
                        network.hole = True
                    case "killed":
                        server.kill()
                    case "stopped":
                        server.send(signal.SIGSTOP)
                    case "slow":
                        network.delay_s = 2.0
                if fault != "none":
                    await until(lambda: panel.lines()[0].state == "open")
                    assert watch.s <= 1.0
            assert {status for status, _ in told} == {202} and len(told) > 100
            assert len(rig.records) == len(told)
            assert calm or max(took_s for _, took_s in told) <= 0.25 + whole.stalled_s
            shared_count = metrics.counter("seawall_limiter_shared_total", "").value
            assert shared_count == len(told) if calm else 0 < shared_count < len(told)


async def test_collectors_refuse_together_what_is_over_a_sources_rate(tmp_path: Path, server: Server) -> None:
    sources, clock = SourceTable(), SystemClock()
    sources.add("tok", settings='{"rate_per_s":0.01,"burst":7}')

    def limiter(metrics: Metrics) -> Shared:
        return Shared(
            of(server.port, patient=True), name="c", clock=clock, metrics=metrics, alerts=Alerts(metrics, clock),
            panel=Panel(), bounds=PATIENT,
        )  # fmt: skip

    async with limiter(Metrics()) as one, limiter(Metrics()) as two:
        (tmp_path / "1").mkdir()
        (tmp_path / "2").mkdir()
        async with (
            running(tmp_path / "1", sources=sources, limiter=one.limiter) as a,
            running(tmp_path / "2", sources=sources, limiter=two.limiter) as b,
            client(a) as c, client(b) as d,
        ):  # fmt: skip
            told = []
            for n in range(12):
                each = (c, d)[n % 2]
                await each.send(request(body=b"x"))
                answer = await each.answer()
                assert answer is not None
                told.append(answer.status)
            assert told == [202] * 7 + [429] * 5


async def test_who_leaves_while_the_limiter_is_asked_leaves_nothing_behind(tmp_path: Path, server: Server) -> None:
    sources, metrics, clock = SourceTable(), Metrics(), SystemClock()
    sources.add("tok", settings='{"rate_per_s":1000}')
    async with Network(server.port) as network:
        shared = Shared(
            Settings(url=f"redis://127.0.0.1:{network.port}"), name="c1", clock=clock, metrics=metrics,
            alerts=Alerts(metrics, clock), panel=Panel(),
        )  # fmt: skip
        async with shared, running(tmp_path, sources=sources, limiter=shared.limiter) as rig:
            network.hole = True
            async with client(rig) as c:
                await c.send(request(body=b"x" * 1000))
                await until(lambda: rig.metrics.gauge("seawall_bodies_bytes", "").now() == 1000)
            await until(lambda: rig.metrics.gauge("seawall_bodies_bytes", "").now() == 0)
            # It was complete and verified: closing one's side takes nothing back.
            await until(lambda: len(rig.records) == 1)
            async with client(rig) as c:
                await c.send(request(body=b"y") + request(body=b"z"))
                answers = [await c.answer(), await c.answer()]
                assert [a and a.status for a in answers] == [202, 202]
