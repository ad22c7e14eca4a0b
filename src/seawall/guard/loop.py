"""The event loop that nobody takes away.

``SystemExit`` in a task that user code made, or ``loop.stop()``, leaves asyncio's loop; its runner then cancels every
task, and each would take that for its own failure. So the process ends first, as by ``kill -9``: whatever was in hand
is found by the next one as it was.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NoReturn, TypeVar

from seawall.guard import outlet
from seawall.kernel.error import said
from seawall.kernel.log import fields, logger

log = logger("guard")

T = TypeVar("T")

EXIT_LOOP_LEFT = 73


def leave(cause: str) -> NoReturn:
    """End the process now: nothing is cancelled, flushed or given back."""
    log.critical("the event loop was taken away; the process ends", extra=fields(cause=cause))
    os._exit(EXIT_LOOP_LEFT)


def run(whole: Coroutine[Any, Any, T], *, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> T:
    """As ``asyncio.run``, for a process with user code in it: returns or raises only what ``whole`` does."""
    over = False

    async def main() -> T:
        nonlocal over
        try:
            return await whole
        finally:
            over = True

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        try:
            return runner.run(main())
        except BaseException as error:
            if not over:
                leave(said(error))
            raise


def leave_within(seconds: float, status: int) -> None:
    """Everything is done: let the process end by itself, or end it after so long. Else whoever joins threads at the end
    (asyncio, then the interpreter) would wait for as long as one of them hangs on a disk."""

    def left() -> None:
        others = [one.name for one in threading.enumerate() if one is not threading.main_thread() and not one.daemon]
        if others:  # else it is only slow, as on a busy machine
            # No error: all that was to be kept is kept, and whoever hangs there has nothing in hand that counts.
            log.warning("threads go on after everything ended; the process ends", extra=fields(names=others))
            outlet.flush()
            os._exit(status)

    timer = threading.Timer(seconds, left)
    timer.daemon = True
    timer.start()


async def uncancelled(waiting: Awaitable[object]) -> None:
    """Wait as a process's main task, which nobody cancels: signals come by the lifecycle. So it was user code, with all
    tasks that it found, and closing in order would write that down as everybody's own end."""
    try:
        await waiting
    except asyncio.CancelledError:
        leave("the main task was cancelled")


async def ended_tasks(timeout_s: float) -> bool:
    """Cancel every task but this one; False when some don't end in time: user code can swallow that for ever, and
    whoever closes the loop would wait for it."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=timeout_s)
    return all(task.done() for task in others)


def heed(task: asyncio.Future[Any]) -> None:
    """A callback for work whose error goes to who waits for it, if anybody still does."""
    if not task.cancelled():
        task.exception()
