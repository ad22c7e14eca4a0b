"""What runs cost that sleep, and how punctually they go on.

1,000,000 runs call `ctx.sleep_until` in a real worker, and are put away for a day. Then windows take turns in which
nothing happens: with those runs, and with a store that has none, since a worker that waits for work costs something
itself. Last, 100,000 more sleep and go on spread over a minute, 1,667 a second as a million over ten minutes would,
while the others sleep on. Each run says itself how long after its moment it went on.

    python bench/wait.py                                     # about six minutes
    python bench/wait.py --runs 20000 --wakes 10000 --span 6
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.engine import Engine
from bench.result import Row, fdatasync_p50_ms, publish, row

from seawall import App, Context, Event
from seawall.testing.postgres import PostgresServer
from seawall.worker import fewer_collections

RUNS, WAKES, SPAN_S = 1_000_000, 100_000, 60.0
FAR_S = 86_400.0
ROUNDS, QUIET_S, SETTLE_S = 4, 10.0, 3.0
PUT_AWAY_PER_S = 2_000
"""At least so many are put away a second: the first of those that go on may do so when all are asleep."""

app = App()


@dataclass(slots=True)
class Plan:
    """When runs go on."""

    begin: float = 0.0  # wall clock
    each_s: float = 0.0
    first: int = 0  # the number of the run that goes on at `begin`

    def moment(self, number: int) -> float:
        return self.begin + (number - self.first) * self.each_s


PLAN = Plan()


@app.workflow(on="far")
async def far(event: Event, ctx: Context) -> None:
    await ctx.sleep_until(datetime.fromtimestamp(PLAN.begin + FAR_S, UTC))


@app.workflow(on="near")
async def near(event: Event, ctx: Context) -> float:
    moment = PLAN.moment(event.json["n"])
    await ctx.sleep_until(datetime.fromtimestamp(moment, UTC))
    return time.time() - moment


class Gauge:
    """CPU of worker and PostgreSQL, and time, since it was made."""

    def __init__(self, cpu: Callable[[], tuple[float, float]]) -> None:
        self._cpu = cpu
        self._before, self._begin = cpu(), time.perf_counter()

    def read(self) -> tuple[float, float, float]:
        """CPU seconds of the worker, of PostgreSQL, and seconds."""
        after = self._cpu()
        return after[0] - self._before[0], after[1] - self._before[1], time.perf_counter() - self._begin


async def asleep(engine: Engine, runs: int) -> None:
    """Wait until no run is ready any more, and so many are asleep."""
    # By the index of what is ready: to look at each row that sleeps, twice a second, would be in the figures.
    await engine.db.execute("set enable_seqscan = off")
    while await engine.db.fetchval("select exists (select 1 from run where state = 0)"):
        await asyncio.sleep(0.5)
    count = await engine.db.fetchval("select count(*) from run where state = 1")
    assert count == runs, f"{count:,} runs sleep, and not {runs:,}"


async def put_away(engine: Engine, runs: int) -> tuple[float, float]:
    """All begin and fall asleep; returns how many a second, and microseconds of CPU for each."""
    PLAN.begin = time.time()
    await engine.preload("far", runs, body={})
    gauge = Gauge(engine.cpu)
    async with engine.worker():
        await asleep(engine, runs)
        worker_s, postgres_s, took = gauge.read()
    print(
        f"  {runs:,} put to sleep at {runs / took:,.0f}/s: worker {worker_s / runs * 1e6:.0f} + PostgreSQL"
        f" {postgres_s / runs * 1e6:.0f} us",
        flush=True,
    )
    await engine.rest()
    return runs / took, (worker_s + postgres_s) / runs * 1e6


async def quiet(engine: Engine, name: str, seconds: float) -> float:
    """Percent of a core while nothing happens."""
    async with engine.worker():
        await asyncio.sleep(SETTLE_S)
        gauge = Gauge(engine.cpu)
        await asyncio.sleep(seconds)
        worker_s, postgres_s, took = gauge.read()
    print(
        f"  {name:7} worker {worker_s / took:6.2%} + PostgreSQL {postgres_s / took:6.2%} of a core",
        flush=True,
    )
    return (worker_s + postgres_s) / took * 100


async def wake(engine: Engine, runs: int, wakes: int, span_s: float) -> tuple[list[float], float]:
    """Seconds after its moment at which each went on, sorted; and microseconds of CPU for each wake-up."""
    PLAN.first, PLAN.each_s = runs + 1, span_s / wakes
    before_s = wakes / PUT_AWAY_PER_S + SETTLE_S
    PLAN.begin = time.time() + before_s + wakes / 20_000  # the preload's time, generously
    await engine.preload("near", runs + wakes, body={"n": "#"})
    async with engine.worker() as ended:
        await asleep(engine, runs + wakes)
        assert time.time() < PLAN.begin, "they were put away too slowly; give fewer --wakes"
        await asyncio.sleep(PLAN.begin - time.time() - 0.1)
        gauge = Gauge(engine.cpu)
        while ended.value < wakes and time.time() < PLAN.begin + span_s + 120:
            await asyncio.sleep(0.1)
        worker_s, postgres_s, _ = gauge.read()
    late = await engine.db.fetch(
        "select convert_from(d.result, 'utf8')::float8 as late from run_done d join event e on e.id = d.event_id"
        " where e.type = 'near'"
    )
    assert len(late) == wakes, f"{len(late):,} of {wakes:,} went on"
    return sorted(r["late"] for r in late), (worker_s + postgres_s) / wakes * 1e6


async def measure(server: PostgresServer, *, runs: int, wakes: int, span_s: float, seconds: float) -> list[Row]:
    async with Engine(server, "none", app) as none, Engine(server, "many", app) as many:
        rate, cpu_us = await put_away(many, runs)
        shares: dict[str, list[float]] = {"none": [], "many": []}
        for n in range(ROUNDS):
            for engine in (none, many)[:: -1 if n % 2 else 1]:
                shares[engine.name].append(await quiet(engine, engine.name, seconds))
        late, wake_us = await wake(many, runs, wakes, span_s)
    idle = statistics.median(shares["none"])
    # The difference of the means: each window has few ticks of the clock by which the kernel counts.
    cost = statistics.mean(shares["many"]) - statistics.mean(shares["none"])
    return [
        row("wait: fdatasync p50 (machine)", fdatasync_p50_ms(), "ms"),
        row("wait: runs that slept", runs, "runs"),
        row("wait: runs put to sleep", rate, "/s"),
        row("wait: CPU of putting a run to sleep", cpu_us, "us"),
        row("wait: worker and PostgreSQL, idle, nothing asleep", idle, "% of a core"),
        row("wait: … what the sleeping runs add", cost, "% of a core", at_most=1),
        row("wait: woken a second", wakes / span_s, "/s"),
        row("wait: went on within 1 s of their moment", 100 * sum(x <= 1 for x in late) / wakes, "%", at_least=99),
        row("wait: … before it", sum(x < 0 for x in late), "runs", at_most=0),
        row("wait: … late, p50", statistics.median(late) * 1000, "ms"),
        row("wait: … late, p99", late[int(wakes * 0.99)] * 1000, "ms"),
        row("wait: CPU of waking a run, until its end", wake_us, "us"),
    ]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--runs", type=int, default=RUNS)
    arguments.add_argument("--wakes", type=int, default=WAKES)
    arguments.add_argument("--span", type=float, default=SPAN_S, help="seconds over which they go on")
    arguments.add_argument("--seconds", type=float, default=QUIET_S, help="of each window in which nothing happens")
    asked = arguments.parse_args()
    fewer_collections()
    logging.getLogger("seawall").setLevel(logging.CRITICAL)  # that runs waited for the worker of the next window
    with PostgresServer(settings={"shared_buffers": "256MB", "max_wal_size": "4GB"}) as server:
        publish(
            uvloop.run(measure(server, runs=asked.runs, wakes=asked.wakes, span_s=asked.span, seconds=asked.seconds))
        )


if __name__ == "__main__":
    main()
