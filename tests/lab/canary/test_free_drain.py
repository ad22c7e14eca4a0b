"""Incident I5: the backlog was drained into a store that had just come back, and took it down again. The check of
drains must see it."""

from __future__ import annotations

import asyncio
import math
import time

import pytest

from router.rig import Rig, opened
from seawall.guard import Supervisor
from seawall.guard.governor import Act, Course
from seawall.guard.spell import Spells
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import SystemClock
from seawall.kernel.metric import Metrics
from seawall.lab import expect
from seawall.lab.expect import Finding
from seawall.lab.weak.drain import FreeGovernor
from seawall.router import Settings, governor
from seawall.router.governor import DrainGovernor
from seawall.store import drain, pool
from seawall.store.pool import Store
from seawall.testing.postgres import Database

from .desk import seen

NAME = "drain.rate_per_s"
FLOOR, BEGIN, GOAL = 5.0, 10.0, 100.0
WINDOW_S = 0.2
SAMPLES = 5
TROUBLE_S, FINE_S = 0.000_001, 30.0
"""What a commit may take. No store is as quick as the first: to a governor it is in trouble then."""


async def drained(dsn: str, kind: type[DrainGovernor], *, commit_s: float = TROUBLE_S, **bounds: float) -> Finding:
    """Whether a replay's rate is within bounds from the first time on that it was decided anew."""
    clock, metrics = SystemClock(), Metrics()
    settings = Settings(governor_window_s=WINDOW_S, governor_store_s=commit_s)
    async with Store(pool.Settings(dsn=dsn), role="test") as store:
        async with store.transaction() as session:
            await drain.put(session, "replay:1", Course(rate=BEGIN, floor=FLOOR, goal=GOAL))
        made = kind(store, settings, clock=clock, metrics=metrics, spells=Spells(Alerts(metrics, clock), clock))
        supervisor = Supervisor(metrics)
        supervisor.add("router.governor", made.run)
        samples: list[tuple[float, dict[str, float]]] = []
        began, decided_s, after = time.monotonic(), math.inf, 0
        async with supervisor, asyncio.timeout(30):
            while after < SAMPLES:
                at = time.monotonic() - began
                decided, lines = await drain.standing(store, timeout_s=5.0)
                if decided_s == math.inf and decided.act != Act.HOLD.value:
                    decided_s = at
                samples.append((at, {NAME: next(line.rate for line in lines if line.name == "replay:1")}))
                after += at >= decided_s
                await asyncio.sleep(0.05)
    return expect.stays(seen(samples=samples, fault_s=decided_s), NAME, **bounds)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(governor, "EVERY_S", 0.05)


@pytest.fixture
async def rig(database: Database):  # type: ignore[no-untyped-def]
    async with opened(database) as rig:
        yield rig


async def test_a_store_in_trouble_has_drains_cut_to_their_floor(rig: Rig) -> None:
    assert (await drained(rig.dsn, DrainGovernor, at_most=FLOOR)).held


async def test_the_canary_drains_into_it_as_fast_as_it_may(rig: Rig) -> None:
    finding = await drained(rig.dsn, FreeGovernor, at_most=FLOOR)
    assert not finding.held and "from 100 to 100" in finding.said


@pytest.mark.parametrize("kind", [DrainGovernor, FreeGovernor])
async def test_on_a_sound_store_both_let_a_drain_rise(rig: Rig, kind: type[DrainGovernor]) -> None:
    assert (await drained(rig.dsn, kind, commit_s=FINE_S, at_least=BEGIN)).held
