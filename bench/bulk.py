"""How fast a flood is cancelled: 1,000,000 queued runs, by one bulk, as a router does it.

``preload`` writes them, a router in a process of its own has nothing else to do, and no worker runs: as when somebody
has paused the queue to clear it. Counted is from the call that fixes which runs are meant until the last has ended.

    python bench/bulk.py                # about two minutes
    python bench/bulk.py --runs 100000
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from dataclasses import replace
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.engine import Engine, feeder
from bench.result import Row, fdatasync_p50_ms, publish, row, tree_cpu_s

from seawall import App, Context, Event
from seawall.kernel.clock import SystemClock
from seawall.kernel.selection import of_runs
from seawall.store import bulk, pool
from seawall.store.bulk import Act, Wish
from seawall.store.change import Author
from seawall.store.pool import Store
from seawall.testing.postgres import PostgresServer

RUNS = 1_000_000
CALL_S = 60.0
PATIENCE_S = 600.0

app = App()


@app.workflow(on="job")
async def job(event: Event, ctx: Context) -> None:
    pass


async def measure(server: PostgresServer, runs: int) -> list[Row]:
    async with Engine(server, "bulk", app) as engine:
        await engine.preload("job", runs, body={"n": "#"})
        with feeder(engine):
            await asyncio.sleep(2)  # it has started
            cpu, begin = tree_cpu_s(server.pid), time.perf_counter()
            async with Store(pool.Settings(dsn=engine.dsn), role="console") as store:
                now_us = SystemClock().wall_us()
                narrow = of_runs("workflow=job", now_us=now_us)
                wish = Wish(
                    act=Act.CANCEL, narrow=replace(narrow, states=Act.CANCEL.states), text="workflow=job", expected=runs
                )
                id = await bulk.make(store, wish, Author("bench", SystemClock(), ""), timeout_s=CALL_S)
                chosen_s = time.perf_counter() - begin
                async with asyncio.timeout(PATIENCE_S):
                    while (line := await bulk.one(store, id, timeout_s=CALL_S)) is None or line.state != "done":
                        await asyncio.sleep(0.05)
            took_s = time.perf_counter() - begin
            cpu = tree_cpu_s(server.pid) - cpu
        left = await engine.db.fetchval("select count(*) from run")
        ended = await engine.db.fetchval("select count(*) from run_done where status = 7")
        print(f"  {runs:,} chosen in {chosen_s:.1f} s, over after {took_s:.1f} s, {line.missed} missed", flush=True)
        assert ended + left == runs, f"{ended:,} were cancelled, {left:,} are left, of {runs:,}"
    return [
        row("bulk: fdatasync p50 (machine)", fdatasync_p50_ms(), "ms"),
        row("bulk: choosing which runs are meant", chosen_s, "s"),
        row("bulk: runs cancelled, from the call to the last one's end", runs / took_s, "/s", at_least=50_000),
        row("bulk: PostgreSQL CPU of a run", cpu / runs * 1e6, "us"),
        row("bulk: left", left, "runs", at_most=0),
    ]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--runs", type=int, default=RUNS)
    asked = arguments.parse_args()
    with PostgresServer(settings={"shared_buffers": "256MB", "max_wal_size": "4GB"}) as server:
        publish(uvloop.run(measure(server, asked.runs)))


if __name__ == "__main__":
    main()
