"""Workflows that take their time."""

from __future__ import annotations

import asyncio

from seawall import App, Context, Event

app = App()


async def quick() -> str:
    return "quick"


async def long() -> str:
    await asyncio.sleep(0.7)
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
