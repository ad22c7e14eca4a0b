"""Who answers for all roles together asks those that there should be, and misses nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest

from seawall.guard import Heart, Supervisor
from seawall.guard.panel import Panel
from seawall.kernel.error import Rejected
from seawall.kernel.metric import Metrics
from seawall.store import pool
from seawall.watch import HealthServer
from seawall.watch.fleet import Fleet
from seawall.watch.health import Vitals

ROLES = ("collector", "router", "worker")


def fleet(folder: Path, *, roles: Sequence[str] = ROLES, required: Sequence[str] = ROLES[:2]) -> Fleet:
    """Of a platform without an app."""
    own = Vitals(Supervisor(Metrics()), Metrics(), role="console", panel=Panel())
    store = pool.Store(pool.Settings(dsn="postgresql://nobody@127.0.0.1:1/none"), role="health")
    return Fleet(own, {role: folder / f"{role}.sock" for role in roles}, store, required=required)


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


async def test_a_role_that_is_not_running_is_explained_by_who_should_have_started_it(tmp_path: Path) -> None:
    async def refused(heart: Heart) -> None:
        while True:
            heart.unready("worker can't start: --app app.py: can't be imported: line 7")
            await asyncio.sleep(0.1)

    parent = Supervisor(Metrics())
    parent.add("role.worker", refused)
    up = HealthServer(parent, Metrics(), role="up", unix_path=tmp_path / "up.sock", panel=Panel())
    async with parent, up:
        await asyncio.sleep(0)
        page = await fleet(tmp_path, roles=(*ROLES, "up"), required=ROLES).answer("/readyz")
    assert page is not None and page.status == 503
    reason = msgspec.json.decode(page.body)["reason"]
    assert "worker: not running" in reason
    assert reason.endswith("up: role.worker: worker can't start: --app app.py: can't be imported: line 7")
