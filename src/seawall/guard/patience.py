"""Waiting for the store without looking dead: a slow store is its own trouble, not the loop's, and is named as such."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from seawall.guard.supervisor import Heart

T = TypeVar("T")

SAY_EVERY_S = 0.5
QUIET_S = 1.0
"""Waiting for so long is nothing to speak of."""

CANCEL_S = 0.8
"""How long cancelled work may take to roll back; less than the supervisor allows its loops."""


async def patiently(heart: Heart, work: Coroutine[Any, Any, T], *, what: str) -> T:
    """The work's result; while it takes longer than ``QUIET_S`` the loop says that it waits, and for what.

    The work has a deadline of its own.

    Cancelled: the work is cancelled too, and had ``CANCEL_S`` to end.
    """
    task = asyncio.ensure_future(work)
    waited_s = 0.0
    try:
        while True:
            done, _ = await asyncio.wait({task}, timeout=SAY_EVERY_S)
            if done:
                heart.touch()  # or many that take just less than QUIET_S would look like a hang
                return task.result()
            waited_s += SAY_EVERY_S
            if waited_s >= QUIET_S:
                heart.unready(f"{what}: no answer for {waited_s:.1f} s")
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=CANCEL_S)


async def rest(heart: Heart, seconds: float, *, reason: str) -> None:
    """Pause after a failure, alive but not ready."""
    while seconds > 0:
        heart.unready(reason)
        await asyncio.sleep(min(seconds, SAY_EVERY_S))
        seconds -= SAY_EVERY_S
