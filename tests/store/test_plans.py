"""What is asked again and again reads few rows, also while nearly all that waits is of one queue or key."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from seawall.store.statement import statements
from seawall.testing.postgres import Database

ROWS = 20_000
KEY, ID = b"another", UUID(int=1)

FILL = f"""
insert into queue (name, beside, depth_max) select 'q' || n, nullif(n - 1, 0), 1000 from generate_series(1, 4) n;
insert into workflow (name, version, pattern, queue_id, active)
  select 'w' || n, '1', '', n, true from generate_series(1, 4) n;
insert into shard_lease (queue_id, shard, owner, expires_at)
  select q, s, gen_random_uuid(), now() + interval '1 hour' from generate_series(1, 4) q, generate_series(-1, 3) s;
insert into run (id, event_id, workflow_id, tenant, queue_id, shard, vt)
  select n, gen_random_uuid(), 1, 't', 1, n % 4, n from generate_series(1, {ROWS}) n;
insert into deferred select gen_random_uuid(), 1, 't', 1, 0, false, n, 0 from generate_series(1, {ROWS}) n;
insert into run_frozen select 'w1', n from generate_series(1, {ROWS}) n;
insert into workflow_hand values ('w1', null, true);
insert into wait (run_id, name, nth, key, since_us) select n, 'w', 0, 'one', 0 from generate_series(1, {ROWS}) n;
insert into run_until (run_id, until, total_ms)
  select n, now() + (n - 10) * interval '1 minute', 1000 from generate_series(1, {ROWS}) n;
insert into run_child select n, n + 1 from generate_series(1, {ROWS}) n;
insert into progress (run_id, name, nth, at) select n, 's', 0, now() from generate_series(1, {ROWS}) n;
analyze run, deferred, run_frozen, wait, queue, workflow, shard_lease, workflow_hand, run_until, run_child, progress;
"""

ASKED: dict[tuple[str, str], list[Any]] = {
    ("worker", "nobodys_queues"): [],
    ("worker", "nobodys_workflows"): [[1], 5.0],
    ("worker", "suspects"): [[1, 2], [ID, ID], [1]],
    ("worker", "left_behind"): [[1], [1]],
    ("router", "virtual_now"): [100_000, 100_000],
    ("depth", "depths"): [],
    ("replay", "full"): [1000],
    ("version", "thawed"): [1000],
    ("queue", "lines"): [1000, 100],
    ("watch", "queues"): [1000, 100, 100],
    ("until", "look"): [],
    ("until", "due"): [1000],
    ("until", "begin"): [[5, 50_000], [1, 1], [None, 5]],
    ("cancel", "mark"): [[5, 7, 50_000], ["enough"], 119],
    ("child", "part+orphans"): [5, 6, 1000],
    ("child", "part_of+orphans"): [[5, 50_000], 1000],
    ("child", "parents"): [[ID]],
    ("child", "standing"): [5, 1000],
    ("wait", "wake_heard"): [[5, 50_000], 100_000, 100_000, [1], ["t"], [5]],
    ("worker", "wake"): [[1, 2], 100, 100_000, 100_000, [1], ["t"], [5]],
    ("progress", "note"): [[1, 2], [0, 0], [0, 0], [5, 50_000], ["s", "s"], [0, 0], [b"1", None], [0, 0]],
    ("progress", "last"): [5, "s", 0],
    ("progress", "prune_ended"): [5, 1000],
    ("wait", "note"): [[KEY], [1], [ID], 1000],
    ("wait", "hear"): [[KEY], [1], [ID]],
    ("wait", "hear_broad"): [KEY, 1000],
}


@pytest.fixture
async def full(database: Database) -> AsyncIterator[asyncpg.Connection]:
    db = await asyncpg.connect(database.dsn)
    await db.execute(FILL)
    await db.execute("insert into correlation (key, received_us, event_id, asked) values ($1, 1, $2, 0)", KEY, ID)
    yield db
    await db.close()


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


async def test_what_is_asked_each_second_reads_no_more_than_it_needs(full: asyncpg.Connection) -> None:
    """Without an order the planner takes a scan of the whole table for a quick way to the first of many rows; and then
    there is none."""
    for mode in ("force_custom_plan", "force_generic_plan"):
        await full.execute(f"set plan_cache_mode = {mode}")
        for (file, name), values in ASKED.items():
            asked = "\n".join(statements(file)[part] for part in name.split("+"))
            sql = f"explain (analyze, timing off, format json) {asked}"
            [[row]] = await full.fetch(sql, *values)
            for node in nodes(json.loads(row)[0]["Plan"]):
                read = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
                assert read < ROWS / 2, (file, name, mode, node["Node Type"], node.get("Relation Name"))
