"""The store's primary dies, and a replica that is half a minute behind takes its place: real servers, whole program.

What the replica lacks is routed again from the journal, runs that it doesn't know are made again for the same events,
and nothing of the time that was lost gets into what is there now.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest
from test_outage import APP, DRAIN_S, READY_S, traffic

from seawall.lab.checker import ledger
from seawall.lab.checker.verify import verify
from seawall.lab.part.node import DEFAULT
from seawall.lab.part.postgres import BOUNCER, Postgres
from seawall.lab.platform import Platform, Source
from seawall.lab.tree import Tree

FETCHED = Path(__file__).resolve().parents[2] / DEFAULT / "fetched"
RATE = 100

WAYS = [
    pytest.param(False, 30, marks=pytest.mark.slow, id="half a minute behind"),
    pytest.param(
        True, 5, marks=pytest.mark.parts, id="a little behind, and a pooler changes servers under connections"
    ),
]

UNIQUE = """
select count(*) from (
  select 1 from run_done group by event_id, workflow_id having count(*) > 1
  union all
  select 1 from step group by run_id, name, nth having count(*) > 1
  union all
  select 1 from step s where not exists (select 1 from run_done d where d.id = s.run_id)
                         and not exists (select 1 from run r where r.id = s.run_id)
) wrong
"""
"""Events that ran twice, effects that were kept twice, and effects of runs that this store never had."""


@pytest.fixture
def pair(tmp_path: Path, pooled: bool) -> Iterator[Postgres]:
    with Postgres(tmp_path / "postgres", bouncer=pooled, fetched=FETCHED) as part:
        yield part


@pytest.fixture
def tree(pair: Postgres, pooled: bool, tmp_path: Path) -> Iterator[Tree]:
    environment = {"SEAWALL_STORE_POOLER": pair.address(BOUNCER)} if pooled else {}
    dsn = tmp_path / "dsn"
    dsn.write_text(pair.dsn())
    dsn.chmod(0o600)
    options = ("--dsn-file", str(dsn))
    with Tree(
        tmp_path / "data", app=APP, log=tmp_path / "up.log", options=options, environment=environment
    ) as made:  # fmt: skip
        made.start()
        made.wait_ready(READY_S)
        pair.settle()
        yield made


def _ask(tree: Tree, source: Source, number: int, *, wait_s: int, ticket: str = "") -> tuple[int, str, bytes]:
    """Ask a workflow for its answer, or take a ticket up again: status, ticket and what was said."""
    with Platform(tree.place) as platform:
        host, port = platform.listen(source)
    body = json.dumps({"type": "quote.requested", "data": {"item": "berth-12m", "count": number}})
    with closing(http.client.HTTPConnection(host, port, timeout=wait_s + 20)) as connection:
        how = ("GET", ticket, None) if ticket else ("POST", source.path, body)
        connection.request(*how, {"Prefer": f"wait={wait_s}"})
        answer = connection.getresponse()
        return answer.status, ticket or answer.getheader("Location", ""), answer.read()


def _count(said: bytes) -> int:
    count: int = json.loads(said)["count"]
    return count


async def _numbers(pair: Postgres, node: str, sql: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(pair.dsn(node))
    try:
        return list(await connection.fetch(sql))
    finally:
        await connection.close()


@pytest.mark.parametrize(("pooled", "behind_s"), WAYS)
async def test_a_replica_that_is_behind_costs_no_event_and_no_order_of_who_is_right(
    pair: Postgres, tree: Tree, tmp_path: Path, pooled: bool, behind_s: int
) -> None:
    path = tmp_path / "ledger"
    with Platform(tree.place) as platform:
        source = platform.add_source("ask", kind="none", secret="", settings={"wait_ms_max": 25_000})
    pair.settle()
    with traffic(tree, path, rate=RATE):
        pair.kill("b")
        behind = (await _numbers(pair, "a", "select count(*) from run_done"))[0][0]
        time.sleep(behind_s)
        status, told, said = _ask(tree, source, 1, wait_s=20)
        assert (status, _count(said)) == (200, 1)
        lost = await _numbers(pair, "a", "select id, event_id from run_done union all select id, event_id from run")
        epoch = (await _numbers(pair, "a", "select max(epoch) from shard_lease"))[0][0]
        pair.kill("a")
        status, untold, _ = _ask(tree, source, 2, wait_s=1)
        assert status == 202, "the wait is over, and the ticket stays"
        pair.start("b")
        pair.promote("b")
        if pooled:
            pair.route("b")
        time.sleep(5)
    book = ledger.read(path)
    statuses = {a.status for run in book.runs for a in run.attempts}
    assert statuses == {202}, f"answers: {statuses}\n{tree.log_tail(20)}"
    with Platform(tree.place) as platform:
        verdict = verify(platform, book, timeout_s=DRAIN_S, workflows=("weigh",), must_succeed=True)
    assert verdict.holds, f"{verdict.counts()} {verdict.examples}\n{tree.log_tail(40)}"
    # An answer that was given in the lost time is there again, too, and so is one that nobody could give.
    for number, ticket in enumerate((told, untold), 1):
        status, _, said = _ask(tree, source, number, wait_s=20, ticket=ticket)
        assert (status, _count(said)) == (200, number)
    assert (await _numbers(pair, "b", UNIQUE))[0][0] == 0
    there = await _numbers(pair, "b", "select id, event_id from run_done")
    assert len(lost) > behind + behind_s * RATE / 2, "much was lost"
    events = {row["id"]: row["event_id"] for row in lost}
    assert all(events.get(row["id"], row["event_id"]) == row["event_id"] for row in there), "a number came again"
    leases = await _numbers(pair, "b", "select epoch from shard_lease where shard >= 0 and epoch > 0")
    assert min(row["epoch"] for row in leases) > epoch, "an epoch may come again"
    assert (await _numbers(pair, "b", "select count(*) from run where shard = -1"))[0][0] == 0
