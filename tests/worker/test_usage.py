"""Who holds slots is counted while they are held, and written in few rows, whatever runs there are."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from seawall import App, Context, Event
from seawall.kernel.metric import Metrics
from seawall.store import pool, usage
from seawall.store.usage import REST
from seawall.worker.usage import CELLS_MAX, WRITTEN_MAX, Tally, merged
from worker.rig import Rig

KEYS = st.tuples(st.integers(1, 3), st.integers(1, 4), st.sampled_from(["a", "b", "c", REST]))


@settings(deadline=None)
@given(st.lists(st.tuples(KEYS, st.floats(0, 100), st.integers(0, 5)), max_size=50), st.integers(1, 49))
def test_no_slot_time_is_lost_or_counted_twice_however_it_is_cut(
    counted: list[tuple[tuple[int, int, str], float, int]], cut: int
) -> None:
    tally = Tally(random.Random(1))
    written = []
    for n, (key, seconds, turns) in enumerate(counted):
        tally.add(key, seconds, turns)
        if n % cut == 0:
            written += tally.taken()[0]
    cells = merged([*written, *tally.taken()[0]])
    assert len({cell[:3] for cell in cells}) == len(cells)
    assert abs(sum(c.slot_us for c in cells) - sum(seconds for _, seconds, _ in counted) * 1e6) <= len(counted)
    assert sum(c.turns for c in cells) == sum(turns for _, _, turns in counted)


def test_very_many_tenants_are_few_rows_and_little_memory() -> None:
    tally = Tally(random.Random(1))
    for n in range(3 * CELLS_MAX):
        tally.add((1, n % 2, f"t{n}"), 1.0 + (n == 7) * 100, 1)
    assert len(tally._cells) <= CELLS_MAX + 2
    cells, _, _ = tally.taken()
    assert len(cells) <= WRITTEN_MAX + 2
    assert next(c for c in cells if c.tenant == "t7").slot_us == 101_000_000, "the largest keeps its name"
    assert sum(c.turns for c in cells) == 3 * CELLS_MAX


async def test_a_run_counts_while_it_runs_and_what_was_drawn_of_it_says_how_long_it_waited(rig: Rig) -> None:
    app, gate = App(), asyncio.Event()
    app.queue("slow", reserved=1)

    @app.workflow(on="test.thing", queue="slow")
    async def holds(event: Event, ctx: Context) -> None:
        await gate.wait()

    @app.workflow(on="test.thing")
    async def ends(event: Event, ctx: Context) -> None: ...

    metrics = Metrics()
    await rig.registered(app)
    [held] = await rig.add("holds", [{}])
    short = await rig.add("ends", [{} for _ in range(40)])
    since = time.monotonic()
    await rig.db.execute("update run set created_at = now() - interval '30 s' where id = $1", held)
    async with rig.worker(app, metrics=metrics) as worker:
        await rig.ended(short)
        await rig.until(lambda: worker._bench.count == 1)
        await worker._usage.write()
        rows = {r["tenant"] + str(r["queue_id"]): r for r in await rig.db.fetch("select * from slot_use")}
        queue = await rig.db.fetchval("select id from queue where name = 'slow'")
        before = rows[f"default{queue}"]
        assert before["slot_us"] > 0 and before["turns"] == 0, "it has not ended yet"
        samples = await rig.db.fetch("select * from queue_sample")
        [mine] = [row for row in samples if row["queue_id"] == queue]
        [waited_ms] = mine["starts_ms"]
        assert 30_000 <= waited_ms <= 30_001 + 1000 * (time.monotonic() - since) and mine["ends_ms"] == []
        [other] = [row for row in samples if row["queue_id"] != queue]
        assert other["ends_ms"] and len(other["starts_ms"]) + len(other["ends_ms"]) < 40
        gate.set()
        await rig.ended([held])
        await worker._usage.write()
        [after] = await rig.db.fetch("select * from slot_use where queue_id = $1", queue)
        assert after["slot_us"] > before["slot_us"] and after["turns"] == 1
    said = {(s.name, *s.labels): s.value for s in metrics.samples() if "slot_seconds" in s.name}
    assert said["seawall_slot_seconds_total", ("queue", "slow"), ("workflow", "holds")] > 0
    assert said["seawall_tenant_slot_seconds_total", ("tenant", "default")] > 0


async def test_who_got_slower_is_seen_at_the_same_number_of_runs(rig: Rig) -> None:
    app = App()
    for name in ("slower", "same"):
        app.workflow(on="test.thing", queue=name, name=name)(_nothing)
    await rig.registered(app)
    sql = (
        "insert into slot_use select date_trunc('minute', now()) - $1 * interval '1 minute', q.id, w.id, 't', $3, 100"
        " from queue q join workflow w on w.queue_id = q.id where q.name = $2"
    )
    for minutes, slower_us in ((0, 200_000_000), (60, 10_000_000)):
        await rig.db.execute(sql, minutes, "slower", slower_us)
        await rig.db.execute(sql, minutes, "same", 20_000_000)
    async with pool.Store(pool.Settings(dsn=rig.database.dsn), role="test") as store:
        found = await usage.top(store, by="queue", window_s=900, timeout_s=5)
        first, second = found.items
        assert (first.name, first.slower, first.turns, first.then_turns) == ("slower", 20.0, 100, 100)
        assert (second.name, second.slower, found.then_s) == ("same", 1.0, 3600)
        assert [line.name for line in (await usage.top(store, by="tenant", window_s=60, timeout_s=5)).items] == ["t"]
        assert [line.slower for line in (await usage.top(store, by="workflow", window_s=900, timeout_s=5)).items] == [
            20,
            1,
        ]
        await usage.add(store, uuid.uuid4(), [usage.Cell(1, 1, "t", 5, 1)], [], [])


async def _nothing(event: Event, ctx: Context) -> Any: ...
