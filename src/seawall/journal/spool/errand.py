"""One batch of spooled records on its way to Kafka, and what became of each."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from functools import partial
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


class _Answers:
    """Outcomes of so many records, None where nothing was heard."""

    def __init__(self, count: int) -> None:
        self.outcomes: list[Outcome | None] = [None] * count
        self._left = count
        self._complete = asyncio.Event()

    def settle(self, index: int, outcome: Outcome) -> None:
        self.outcomes[index] = outcome
        self._left -= 1
        if self._left == 0:
            self._complete.set()

    def refuse(self, first: int, error: SeawallError) -> None:
        """This one and all after it weren't taken."""
        for index in range(first, len(self.outcomes)):
            self.settle(index, error)

    async def all(self, heart: Heart, clock: Clock) -> list[Outcome | None]:
        """When all are known, or ``ANSWER_S`` passed."""
        deadline = clock.monotonic() + ANSWER_S
        while self._left and clock.monotonic() < deadline:
            heart.touch()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TOUCH_S):
                    await self._complete.wait()
        return self.outcomes


async def sent(kafka: Journal, frames: Sequence[Frame], heart: Heart, clock: Clock) -> list[Outcome | None]:
    """Send them in order; what became of each, None where nothing was heard."""
    answers = _Answers(len(frames))
    for index, frame in enumerate(frames):
        try:
            kafka.submit(frame.payload, partial(answers.settle, index))
        except Rejected as error:
            answers.settle(index, error)
        except SeawallError as error:
            # The queue is full: the rest waits for the next round, so that nothing is overtaken.
            answers.refuse(index, error)
            break
    return await answers.all(heart, clock)


async def passed(
    frames: Sequence[Frame], outcomes: Sequence[Outcome | None], park: Park, heart: Heart, clock: Clock
) -> int:
    """How many from the first one on are where they belong: in Kafka, or parked."""
    said = enumerate(outcomes)
    count = next((n for n, outcome in said if not isinstance(outcome, Position | Rejected)), len(outcomes))
    refused = [(n, outcome) for n, outcome in enumerate(outcomes[:count]) if isinstance(outcome, Rejected)]
    answers = _Answers(len(refused))
    # All at once, so that they are synced together: one after the other, a batch of them took longer than a loop may
    # be silent, and was begun again and again.
    for index, (n, why) in enumerate(refused):
        try:
            park(frames[n].payload, why, partial(answers.settle, index))
        except SeawallError as error:
            answers.refuse(index, error)
            break
    kept = await answers.all(heart, clock)
    return next((refused[i][0] for i, outcome in enumerate(kept) if not isinstance(outcome, Position)), count)
