"""Two kinds of work that incident I2 had in one queue: each tenant's ingestion, and runbooks for which people wait.

An ingestion takes as long as the service behind it, and that is what an experiment makes slower (``pace``, which
seawall.lab.load writes). What runs here notes when it began and how long it took (seawall/lab/rig/work.py).
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from seawall import App, Context, Event, Retry

HERE = Path(__file__).parent
INGEST_S = 0.2
RUNBOOK_S = 0.02
FEW = Retry(attempts=20, first_s=0.2, max_s=2)

app = App()
app.queue("runbooks", reserved=4, latency=2.0)
app.queue("ingestion", latency=1.0)


@app.workflow(on="lab.ingest", queue="ingestion", retry=FEW, timeout_s=300)
async def ingest(event: Event, ctx: Context) -> None:
    """One round of a tenant's ingestion."""
    lane = "flood" if event.tenant.startswith("flood") else "ingestion"
    began(lane, event.received_at)
    await ctx.step(fetch, event.headers["webhook-id"], ctx.idempotency_key("fetch"), lane)


@app.workflow(on="lab.runbook", queue="runbooks", retry=FEW)
async def runbook(event: Event, ctx: Context) -> None:
    """One step of a runbook, for which somebody waits."""
    began("runbook", event.received_at)
    await ctx.step(act, event.headers["webhook-id"], ctx.idempotency_key("act"))


async def fetch(key: str, idempotency: str, lane: str) -> None:
    """As long as the service behind it takes today."""
    start = time.monotonic()
    await asyncio.sleep(INGEST_S * slowness())
    effect(key, "fetch", idempotency)
    note("ended", lane, time.monotonic() - start)


async def act(key: str, idempotency: str) -> None:
    """What the runbook says."""
    await asyncio.sleep(RUNBOOK_S)
    effect(key, "act", idempotency)


def slowness() -> float:
    """How many times as long it takes now: from 1 on, step by step."""
    try:
        pace = json.loads((HERE / "pace").read_text())
    except (OSError, ValueError):
        return 1.0
    done = min(1.0, (time.time() - float(pace["began_s"])) / float(pace["over_s"]))
    return 1.0 + (float(pace["times"]) - 1.0) * max(0.0, done)


def began(lane: str, received_at: datetime) -> None:
    note("began", lane, (datetime.now(UTC) - received_at).total_seconds())


def note(word: str, lane: str, seconds: float) -> None:
    append("work", [word, lane, round(seconds, 4), time.time_ns() // 1000])


def effect(key: str, step: str, idempotency: str) -> None:
    append("effects", ["effect", key, step, idempotency, time.time_ns() // 1000])


def append(name: str, line: list[Any]) -> None:
    """In one write, to a file that is opened to append: whole, whoever else writes and whatever is killed."""
    descriptor = os.open(HERE / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, json.dumps(line).encode() + b"\n")
    finally:
        os.close(descriptor)
