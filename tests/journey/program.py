"""The program, run as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

READY_S = 60.0

APP = """
from seawall import App, Context, Event

app = App()


@app.workflow(on="github.*")
async def push(event: Event, ctx: Context) -> dict:
    size = await ctx.step(measure, event.body.decode())
    return {"size": await ctx.step(double, size)}


@app.workflow(on="asked")
async def answer(event: Event, ctx: Context) -> None:
    ctx.respond({"answer": event.json["question"][::-1]})


@app.workflow(on="slow")
async def slow(event: Event, ctx: Context) -> None:
    await ctx.step(wait_long)


async def measure(text: str) -> int:
    return len(text)


async def double(size: int) -> int:
    return 2 * size


async def wait_long() -> None:
    import asyncio
    await asyncio.sleep(30)
"""


@dataclass
class Said:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def seawall(*arguments: str, stdin: str = "", timeout_s: float = 60.0, **environment: str) -> Said:
    """Run the program."""
    done = subprocess.run(
        [sys.executable, "-m", "seawall", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env={**{k: v for k, v in os.environ.items() if not k.startswith("SEAWALL_")}, **environment},
    )
    return Said(done.returncode, done.stdout, done.stderr)
