"""A thousand innocent runs, and some that kill whatever executes them."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from seawall import App, Context, Event

app = App()


def note(line: str) -> None:
    """One line in a file that outlives the process: which step bodies really ran."""
    with Path(os.environ["NOTES"]).open("a") as file:
        file.write(line + "\n")


async def first(id: str) -> str:
    note(f"first {id}")
    return id


async def second(id: str) -> str:
    await asyncio.sleep(0.002)
    note(f"second {id}")
    return id


@app.workflow(on="test.thing")
async def mixed(event: Event, ctx: Context) -> str:
    await ctx.step(first, event.id)
    match event.json.get("poison"):
        case "exit":
            os._exit(9)
        case "block":
            time.sleep(600)
        case "memory":
            hoard = []
            while True:
                hoard.append(bytearray(64 << 20))
    return await ctx.step(second, event.id)
