"""Triggers that are queued in a database and executed behind it (incident I5), and fresh work beside them.

A trigger's run keeps the pages that it looks up. One that waited long finds its cache cold, and looks up more. Once
somebody switches on caching code whose cache isn't there (``uncached``, which seawall.lab.load writes), each looks up,
and keeps, everything by itself: many times as much for the same store.
What runs here notes when it began and how long it took (seawall/lab/rig/work.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from seawall import App, Context, Event, Retry

HERE = Path(__file__).parent
PAGES, PAGES_COLD, PAGES_UNCACHED = 1, 4, 16
COLD_S = 5.0
PAGE_CHARS = 6000
FEW = Retry(attempts=20, first_s=0.2, max_s=2)

app = App()
app.queue("triggers", latency=0)
app.queue("fresh", reserved=4, latency=2.0)


@app.workflow(on="lab.trigger", queue="triggers", retry=FEW)
async def execute(event: Event, ctx: Context) -> None:
    """One trigger."""
    key = event.headers["webhook-id"]
    waits_s = waited_s(event)
    note("began", "trigger", waits_s)
    await ctx.step(deliver, key, ctx.idempotency_key("deliver"))
    # A step of its own: a run that is begun anew decides as it did at first.
    for n in range(await ctx.step(pages, waits_s)):
        await ctx.step(look_up, key, n)
    note("ended", "trigger", waited_s(event))


@app.workflow(on="lab.fresh", queue="fresh", retry=FEW)
async def fresh(event: Event, ctx: Context) -> None:
    """What somebody waits for."""
    note("began", "fresh", waited_s(event))
    await ctx.step(deliver, event.headers["webhook-id"], ctx.idempotency_key("deliver"))


async def deliver(key: str, idempotency: str) -> None:
    """To whomever it is for."""
    append("effects", ["effect", key, "deliver", idempotency, time.time_ns() // 1000])


async def pages(waits_s: float) -> int:
    """How many there are to look up."""
    if (HERE / "uncached").exists():
        return PAGES_UNCACHED
    return PAGES_COLD if waits_s > COLD_S else PAGES


async def look_up(key: str, n: int) -> str:
    """A page that doesn't compress."""
    seed = f"{key}.{n}".encode()
    return "".join(hashlib.sha512(seed + bytes([m])).hexdigest() for m in range(PAGE_CHARS // 128))


def waited_s(event: Event) -> float:
    return (datetime.now(UTC) - event.received_at).total_seconds()


def note(word: str, lane: str, seconds: float) -> None:
    append("work", [word, lane, round(seconds, 4), time.time_ns() // 1000])


def append(name: str, line: list[Any]) -> None:
    """In one write, to a file that is opened to append: whole, whoever else writes and whatever is killed."""
    descriptor = os.open(HERE / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, json.dumps(line).encode() + b"\n")
    finally:
        os.close(descriptor)
