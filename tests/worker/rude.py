"""Workflows that do to their process what no workflow should."""

from __future__ import annotations

import asyncio
import contextlib
import sys

from seawall import App, Context, Event, Retry

app = App()


@app.workflow(on="test.thing", retry=Retry(attempts=1))
async def innocent(event: Event, ctx: Context) -> str:
    await asyncio.sleep(0.5)
    return "done"


async def leave() -> None:
    sys.exit(0)


@app.workflow(on="test.thing", retry=Retry(attempts=1))
async def rude(event: Event, ctx: Context) -> None:
    match event.json:
        case "exit":
            await asyncio.gather(leave())
        case "interrupt":
            raised = asyncio.create_task(interrupt())
            await asyncio.sleep(5)
            raised.cancel()
        case "stop":
            asyncio.get_running_loop().stop()
            await asyncio.sleep(5)
        case "cancel":
            for task in asyncio.all_tasks():
                task.cancel()
            await asyncio.sleep(5)


async def interrupt() -> None:
    raise KeyboardInterrupt


@app.workflow(on="test.thing", retry=Retry(attempts=1), timeout_s=0.2)
async def stubborn(event: Event, ctx: Context) -> None:
    while True:
        with contextlib.suppress(BaseException):
            await asyncio.sleep(1)
