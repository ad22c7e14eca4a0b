"""The store answers late, or its rows and tables are locked by somebody else: intake goes on with 2xx, no loop is taken
for dead since it waits, no lease is lost by our own slowness, and afterwards every event is there.

Over the whole program and a real PostgreSQL; the fault proxy stands before it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
from test_outage import APP, READY_S, _judge, _until, traffic

from seawall.lab.part.fault import Fault
from seawall.lab.part.postgres import Postgres
from seawall.lab.part.proxy import FaultProxy
from seawall.lab.tree import Tree

LINK = "store"
NEARLY_MS = 400
"""Routing a batch is some fifteen round trips over a new connection: such a line is nearly too slow, yet of use."""

FAR_MS = 2000
"""As long as a worker's statement may take altogether: as good as away."""

FAR_S = 12
"""Longer than a lease."""

LOCKED_S = 4

LOCKS = {
    "a table, by a session that does nothing": "lock table run in access exclusive mode",
    "an index that is built for long": "create index later on event (tenant, type)",
    "rows that everybody needs": "select 1 from shard_lease, log_position, queue for update",
}


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("slow") / "postgres", bouncer=False) as part:
        yield part


@pytest.fixture
def line(part: Postgres, tmp_path: Path) -> Iterator[FaultProxy]:
    with FaultProxy(tmp_path / "proxy") as proxy:
        proxy.link(LINK, part.port("a"))
        yield proxy


@pytest.fixture
async def sql(part: Postgres, tmp_path: Path) -> AsyncIterator[asyncpg.Connection]:
    """A database of the test's own, past the proxy."""
    name = f"db{time.time_ns()}"
    admin = await asyncpg.connect(part.dsn("a"))
    await admin.execute(f"create database {name}")
    await admin.close()
    connection = await asyncpg.connect(part.dsn("a", database=name))
    yield connection
    await connection.close()


@pytest.fixture
async def tree(sql: asyncpg.Connection, line: FaultProxy, tmp_path: Path) -> AsyncIterator[Tree]:
    dsn = tmp_path / "dsn"
    database = await sql.fetchval("select current_database()")
    dsn.write_text(f"postgresql://postgres@127.0.0.1:{line.links()[LINK]['port']}/{database}")
    dsn.chmod(0o600)
    with Tree(tmp_path / "data", app=APP, log=tmp_path / "up.log", options=("--dsn-file", str(dsn))) as made:
        made.start()
        made.wait_ready(READY_S)
        yield made


async def _epochs(sql: asyncpg.Connection) -> list[int]:
    found: list[int] = await sql.fetchval("select array_agg(epoch order by queue_id, shard) from shard_lease")
    return found


def _nobody_hung(tree: Tree) -> None:
    said = tree.log.read_text()
    for wrong in ("loop hangs", "loop died", "a shard was lost", "what no live worker has"):
        assert wrong not in said


@pytest.mark.slow
async def test_a_slow_line_to_the_store_is_slow_and_one_of_two_seconds_as_good_as_none(
    tree: Tree, line: FaultProxy, sql: asyncpg.Connection, tmp_path: Path
) -> None:
    with traffic(tree, tmp_path / "ledger", rate=50):
        epochs = await _epochs(sql)
        line.set(LINK, Fault(kind="latency", way="up", ms=NEARLY_MS))
        before = await sql.fetchval("select count(*) from run_done")
        end = time.monotonic() + 40
        while await sql.fetchval("select count(*) from run_done") < before + 50:
            assert time.monotonic() < end, f"nothing gets on\n{tree.log_tail(30)}"
            time.sleep(0.2)
        line.set(LINK, Fault(kind="latency", way="up", ms=FAR_MS))
        time.sleep(FAR_S)
        line.clear(LINK)
    _judge(tree, tmp_path / "ledger")
    _nobody_hung(tree)
    assert await _epochs(sql) == epochs, "no lease was lost"


@pytest.mark.slow
async def test_locks_of_others_cost_time_and_are_named(tree: Tree, sql: asyncpg.Connection, tmp_path: Path) -> None:
    with traffic(tree, tmp_path / "ledger", rate=50):
        epochs = await _epochs(sql)
        for what, lock in LOCKS.items():
            async with sql.transaction():
                await sql.execute(lock)
                # In full: "router.clock", one of the loops that stand, has a lock in its name.
                _until(lambda: "lock timeout" in tree.unready(), within_s=2 * LOCKED_S)
                time.sleep(LOCKED_S)
                with contextlib.suppress(asyncpg.DuplicateTableError):
                    await sql.execute("drop index if exists later")
            _until(lambda: not tree.unready(), within_s=READY_S)
            assert await _epochs(sql) == epochs, what
    _judge(tree, tmp_path / "ledger")
    _nobody_hung(tree)
