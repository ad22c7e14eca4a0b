"""Who answers for all roles together asks those that there should be, and misses nobody else."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from seawall.guard import Supervisor
from seawall.guard.panel import Panel
from seawall.kernel.error import Rejected
from seawall.kernel.metric import Metrics
from seawall.store import pool
from seawall.watch import HealthServer
from seawall.watch.fleet import Fleet
from seawall.watch.health import Vitals

ROLES = ("collector", "router", "worker")


def fleet(folder: Path) -> Fleet:
    """Of a platform without an app."""
    own = Vitals(Supervisor(Metrics()), Metrics(), role="console", panel=Panel())
    store = pool.Store(pool.Settings(dsn="postgresql://nobody@127.0.0.1:1/none"), role="health")
    return Fleet(own, {role: folder / f"{role}.sock" for role in ROLES}, store, required=ROLES[:2])


async def test_a_platform_without_an_app_misses_no_worker_and_knows_a_mistyped_name(tmp_path: Path) -> None:
    asked = fleet(tmp_path)
    assert (await asked.alerts())[1] == ["collector", "router"], "those that there should be"
    async with AsyncExitStack() as stack:
        for role in ROLES[:2]:
            await stack.enter_async_context(
                HealthServer(
                    Supervisor(Metrics()), Metrics(), role=role, unix_path=tmp_path / f"{role}.sock", panel=Panel()
                )
            )
        assert await asked.flags() == ([], [])
        with pytest.raises(Rejected, match="no role has a breaker 'kafak'"):
            await asked.force("kafak", "open")


async def test_a_worker_that_began_and_does_not_answer_is_missed(tmp_path: Path) -> None:
    (tmp_path / "worker.sock").touch()  # as kill -9 leaves it
    assert (await fleet(tmp_path).alerts())[1] == list(ROLES)
