"""The store goes away, hangs, or takes a flush without saying so; and each loop of the worker dies and hangs."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from seawall import App, Context, Event
from seawall.kernel.status import RunStatus
from seawall.testing.postgres import Database, PostgresServer
from store.proxy import Proxy
from worker.rig import Rig, opened

LOOPS = ["flush", "deadline", "lease", "refill", "timer", "hint", "listen", "solo"]


class Counted:
    """A workflow of two steps that counts the calls of each; the second ones wait for ``go``, when there is one."""

    def __init__(self, go: asyncio.Event | None = None) -> None:
        self.app = App()
        self.calls: dict[str, int] = {}
        self.app.workflow(on="test.thing", name="counted")(self._workflow)
        self._go = go

    async def _workflow(self, event: Event, ctx: Context) -> None:
        await ctx.step(self._count, f"first {event.id}", name="first")
        if self._go is not None:
            await self._go.wait()
        await ctx.step(self._count, f"second {event.id}", name="second")

    async def _count(self, call: str) -> str:
        self.calls[call] = self.calls.get(call, 0) + 1
        return call


@pytest.fixture
async def rig(database: Database) -> AsyncIterator[Rig]:
    async with opened(database) as rig:
        yield rig


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: a unix socket's name has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="sw-") as made:
        yield Path(made)


def through(dsn: str, host: Path) -> str:
    """The same database, reached by another folder's socket."""
    before, _, rest = dsn.partition("host=")
    return f"{before}host={host}{rest[rest.index('&') :] if '&' in rest else ''}"


async def all_succeed(rig: Rig, runs: list[int], timeout_s: float = 30) -> None:
    done = await rig.ended(runs, timeout_s)
    assert {row["status"] for row in done.values()} == {RunStatus.SUCCEEDED}, done


async def test_a_flush_whose_answer_was_lost_is_sent_again_and_counts_once(rig: Rig, folder: Path) -> None:
    counted = Counted()
    upstream = Path(rig.database.dsn.partition("host=")[2].partition("&")[0].replace("%2F", "/"))
    cuts = 0
    flushing: set[int] = set()

    def cut(data: bytes, way: str) -> str:
        nonlocal cuts
        if way == "up" and b"name: flush" not in data and b"first" in data:
            flushing.add(1)  # the values of a flush: its statement is prepared already
        elif way == "down" and flushing and cuts < 8:
            flushing.clear()
            cuts += 1
            return "cut"  # committed, and nobody tells us
        return "pass"

    dsn = through(rig.database.worker_dsn, folder)
    async with Proxy(upstream, folder) as proxy, rig.running(counted.app, dsn=dsn):
        proxy.cut = cut
        runs = await rig.add("counted", [{} for _ in range(40)])
        await all_succeed(rig, runs)
    assert cuts > 0
    assert len(counted.calls) == 80 and set(counted.calls.values()) == {1}
    assert await rig.db.fetchval("select count(*) from step") == 80
    assert await rig.db.fetchval("select count(*) from run") == 0
    assert await rig.db.fetchval("select count(*) from refill") == 0


async def test_every_connection_is_cut_again_and_again_and_each_step_is_called_once(rig: Rig) -> None:
    counted = Counted()
    async with rig.running(counted.app):
        runs: list[int] = []
        for _ in range(10):
            runs += await rig.add("counted", [{} for _ in range(20)])
            await rig.db.fetch(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and application_name = 'seawall-worker'"
            )
        await all_succeed(rig, runs)
    assert len(counted.calls) == 400 and set(counted.calls.values()) == {1}
    assert await rig.db.fetchval("select count(*) from refill") == 0


@pytest.mark.parametrize("how", ["kill", "hang"])
async def test_while_the_store_is_away_runs_wait_and_none_fails(server: PostgresServer, how: str) -> None:
    go = asyncio.Event()
    counted = Counted(go)
    database = Database(
        "seawall", server.dsn(database="seawall"), server.dsn(database="seawall", role="seawall_worker")
    )
    async with opened(database) as rig, rig.running(counted.app) as worker:
        runs = await rig.add("counted", [{} for _ in range(40)])
        await rig.until(lambda: rig.db.fetchval("select count(*) = 40 from step"))
        if how == "kill":
            rig.db.terminate()
            server.kill()
        else:
            server.hang()
        go.set()  # from now on there is something to write
        supervisor = worker.supervisor  # type: ignore[attr-defined]
        # Longer than the lease lasts: it is still ours afterwards, since nobody took it.
        async with asyncio.timeout(10):
            while not {"worker.flush", "worker.lease"} <= {p.name for p in supervisor.health() if not p.ready}:
                await asyncio.sleep(0.05)
        await asyncio.sleep(2)
        assert not any(p.restarts for p in supervisor.health() if p.name == "worker.flush")
        if how == "kill":
            server.start()
            rig.db = await asyncpg.connect(database.dsn)
        else:
            server.resume()
        await all_succeed(rig, runs)
        assert await rig.db.fetchval("select count(*) from run where shard < 0") == 0
    assert len(counted.calls) == 80 and set(counted.calls.values()) == {1}


@pytest.mark.parametrize("how", ["dies", "hangs"])
@pytest.mark.parametrize("name", LOOPS)
async def test_a_loop_that_dies_or_hangs_is_seen_restarted_and_loses_nothing(
    rig: Rig, name: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    counted = Counted()
    struck = asyncio.Event()
    armed = False

    async def pace(loop: str) -> None:
        nonlocal armed
        if armed and loop == f"worker.{name}":
            armed = False
            struck.set()
            if how == "dies":
                raise RuntimeError("struck by the test")
            await asyncio.Event().wait()

    async with rig.running(counted.app, pace=pace, solo_command=["false"]) as worker:
        supervisor = worker.supervisor  # type: ignore[attr-defined]
        runs = await rig.add("counted", [{} for _ in range(20)])
        armed = True
        async with asyncio.timeout(5):
            await struck.wait()
        runs += await rig.add("counted", [{} for _ in range(20)])

        def back() -> bool:
            return any(p.name == f"worker.{name}" and p.restarts == 1 and p.ready for p in supervisor.health())

        await rig.until(back, 5)
        await all_succeed(rig, runs)
        assert all(p.ready for p in supervisor.health())
    said = [r for r in caplog.records if r.message in ("loop died", "loop hangs")]
    assert [r.seawall["loop"] for r in said] == [f"worker.{name}"]  # type: ignore[attr-defined]
    assert set(counted.calls.values()) == {1} and len(counted.calls) == 80
