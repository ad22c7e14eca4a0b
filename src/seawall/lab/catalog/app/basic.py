"""The workflows of the lab's platform, unless an experiment names others: one for events, one that answers who waits.

The rig copies this file into its own folder; each step writes down there what it does (seawall/lab/checker/effect.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from seawall import App, Context, Event, Retry

EFFECTS = Path(__file__).with_name("effects")

app = App()


@app.workflow(on="lab.event", retry=Retry(attempts=20, first_s=0.2, max_s=2))
async def weigh(event: Event, ctx: Context) -> dict[str, Any]:
    """Two durable steps over whatever bytes came."""
    size = await ctx.step(count, event.headers["webhook-id"], ctx.idempotency_key("count"), event.body.hex())
    return {"bytes": size, "sha256": await ctx.step(
        checksum, event.headers["webhook-id"], ctx.idempotency_key("checksum"), event.body.hex()
    )}  # fmt: skip


@app.workflow(on="lab.ask", retry=Retry(attempts=20, first_s=0.2, max_s=2))
async def answer(event: Event, ctx: Context) -> None:
    """Says who asked: a sender knows its own answer by its own key."""
    key = event.headers["webhook-id"]
    said = await ctx.step(checksum, key, ctx.idempotency_key("checksum"), event.body.hex())
    ctx.respond({"key": key, "sha256": said})


async def count(key: str, idempotency: str, data: str) -> int:
    """Its bytes."""
    effect(key, "count", idempotency)
    return len(data) // 2


async def checksum(key: str, idempotency: str, data: str) -> str:
    """Their checksum."""
    effect(key, "checksum", idempotency)
    return hashlib.sha256(bytes.fromhex(data)).hexdigest()


def effect(key: str, step: str, idempotency: str) -> None:
    """In one write, to a file that is opened to append: whole, whoever else writes and whatever is killed."""
    line = json.dumps(["effect", key, step, idempotency, time.time_ns() // 1000]).encode() + b"\n"
    descriptor = os.open(EFFECTS, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)
