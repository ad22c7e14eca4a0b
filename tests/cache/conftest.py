from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import pytest

from seawall.cache.setting import Settings
from seawall.cache.shared import BOUNDS, Bounds, Shared
from seawall.guard import Supervisor
from seawall.guard.panel import Panel
from seawall.guard.shed import ShedList
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import SystemClock
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.flag import Switch, always
from seawall.lab.part.node import FETCHED, quiet
from seawall.lab.part.redis import find, wheel_engine

from .server import Network, Server


@pytest.fixture(scope="module", params=["wheel", pytest.param("real", marks=pytest.mark.parts)])
def started(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The wheel's Valkey; among the tests on real parts also Redis."""
    engine = wheel_engine() if request.param == "wheel" else find(FETCHED, quiet)
    server = Server(tmp_path_factory.mktemp("redis"), engine)
    yield server
    server.kill()


@pytest.fixture
def server(started: Server) -> Server:
    """A server that runs and holds nothing, whatever was done to it before."""
    started.kill()
    started.forget()
    started.start()
    return started


@dataclass
class Rig:
    shared: Shared
    metrics: Metrics
    alerts: Alerts
    panel: Panel
    network: Network
    supervisor: Supervisor
    shed: ShedList

    @property
    def state(self) -> str:
        return self.panel.lines()[0].state

    def count(self, name: str, **labels: str) -> float:
        return sum(
            s.value for s in self.metrics.samples() if s.name == name and labels.items() <= dict(s.labels).items()
        )


Running = Callable[..., AbstractAsyncContextManager[Rig]]

LONG_S = 4.0
"""Instead of a tenth of a second, where only what Redis says matters: a busy machine may not hear it so soon."""


@pytest.fixture
def running(server: Server) -> Running:
    """A shared limiter before the server, with a network between that can be spoilt; a ``patient`` one gives Redis the
    time that it needs, and never decides alone because of a busy machine."""

    @contextlib.asynccontextmanager
    async def run(
        *, loops: bool = False, password: str = "", on: Switch = always, patient: bool = False, **settings: float
    ) -> AsyncIterator[Rig]:
        metrics, panel, clock = Metrics(), Panel(), SystemClock()
        alerts = Alerts(metrics, clock)
        shed = ShedList(clock=clock, metrics=metrics, alerts=alerts)
        if patient:
            settings = {"timeout_s": LONG_S, "connect_s": LONG_S, **settings}
        async with Network(server.port) as network:
            shared = Shared(
                Settings(url=f"redis://:{password}@127.0.0.1:{network.port}", **settings), name="c1", clock=clock,
                metrics=metrics, alerts=alerts, panel=panel, rng=random.Random(7), shed=shed, on=on,
                bounds=Bounds(ask_s=LONG_S) if patient else BOUNDS,
            )  # fmt: skip
            supervisor = Supervisor(metrics)
            if loops:
                shared.register(supervisor)
            async with shared, supervisor:
                yield Rig(shared, metrics, alerts, panel, network, supervisor, shed)

    return run
