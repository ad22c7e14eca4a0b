"""Workflows that take their time."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from seawall import App, Context, Event

app = App()


async def quick() -> str:
    return "quick"


async def long() -> str:
    """Takes 0.7 s; or, in a process that was given a ``GATE``, until there is such a file."""
    gate = os.environ.get("GATE")
    if gate is None:
        await asyncio.sleep(0.7)
    while gate is not None and not Path(gate).exists():
        await asyncio.sleep(0.01)
    return "long"


@app.workflow(on="test.thing")
async def slow(event: Event, ctx: Context) -> None:
    await ctx.step(quick)
    await ctx.step(long)


async def endless() -> None:
    await asyncio.sleep(600)


@app.workflow(on="test.other")
async def never_ends(event: Event, ctx: Context) -> None:
    await ctx.step(endless)
