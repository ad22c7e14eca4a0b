"""One batch of spooled records on its way to Kafka, and what became of each."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Protocol

from seawall.guard.supervisor import Heart
from seawall.kernel.clock import Clock
from seawall.kernel.error import Rejected, SeawallError
from seawall.kernel.seam.journal import Done, Frame, Journal, Outcome, Position

ANSWER_S = 20.0
"""Longest wait for the outcome of one batch; Kafka's client gives up earlier."""

TOUCH_S = 0.5


class Park(Protocol):
    """Puts a record aside (``Spool.park``)."""

    def __call__(self, payload: bytes, why: Rejected, done: Done) -> None: ...


async def sent(kafka: Journal, frames: Sequence[Frame], heart: Heart, clock: Clock) -> list[Outcome | None]:
    """Send them in order; what became of each, None where nothing was heard."""
    outcomes: list[Outcome | None] = [None] * len(frames)
    complete, left = asyncio.Event(), len(frames)

    def settle(index: int, outcome: Outcome) -> None:
        nonlocal left
        outcomes[index] = outcome
        left -= 1
        if left == 0:
            complete.set()

    for index, frame in enumerate(frames):
        try:
            kafka.submit(frame.payload, lambda outcome, index=index: settle(index, outcome))  # type: ignore[misc]
        except Rejected as error:
            settle(index, error)
        except SeawallError as error:
            # The queue is full: the rest waits for the next round, so that nothing is overtaken.
            for later in range(index, len(frames)):
                settle(later, error)
            break
    deadline = clock.monotonic() + ANSWER_S
    while not complete.is_set() and clock.monotonic() < deadline:
        heart.touch()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TOUCH_S):
                await complete.wait()
    return outcomes


async def passed(frames: Sequence[Frame], outcomes: Sequence[Outcome | None], park: Park) -> int:
    """How many from the first one on are where they belong: in Kafka, or parked."""
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, Rejected):
            if not await _parked(park, frames[index].payload, outcome):
                return index
        elif not isinstance(outcome, Position):
            return index
    return len(outcomes)


async def _parked(park: Park, payload: bytes, why: Rejected) -> bool:
    kept: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    try:
        park(payload, why, lambda outcome: None if kept.done() else kept.set_result(outcome))
        async with asyncio.timeout(ANSWER_S):
            return isinstance(await kept, Position)
    except (SeawallError, TimeoutError):
        return False
