"""Where executions hand in what came of them, until the next flush takes it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from seawall.store.flush import Again, Answer, End, Spent, Step
from seawall.worker.batch import Batch, Waiter
from seawall.worker.shard import Held

if TYPE_CHECKING:
    from seawall.worker.execution import Execution


class Outcomes:
    """Collects outcomes in the order in which they come. Each call returns at once; bounds are kept by whoever starts
    runs, who looks at what is still to be flushed."""

    def __init__(self) -> None:
        self._pending = Batch()
        self._kick = asyncio.Event()
        self._idle = asyncio.Event()  # nothing is pending or under way
        self._idle.set()
        self._loop = asyncio.get_running_loop()

    def step(self, execution: Execution, step: Step, *, wait: bool) -> Waiter | None:
        waiter = self._loop.create_future() if wait else None
        pending = self._pending
        pending.steps.append((step, execution, waiter))
        pending.bytes += len(step.result)
        self._joined(pending, execution)
        return waiter

    def end(self, execution: Execution, end: End) -> None:
        pending = self._pending
        pending.ends.append((end, execution))
        if end.result is not None:
            pending.bytes += len(end.result)
        self._joined(pending, execution)
        self._spend(pending, execution)

    def again(self, execution: Execution, again: Again) -> None:
        pending = self._pending
        pending.agains.append((again, execution))
        self._joined(pending, execution)
        self._spend(pending, execution)

    def answer(self, execution: Execution, answer: Answer) -> None:
        pending = self._pending
        pending.answers.append((answer, execution))
        pending.bytes += len(answer.body)
        self._joined(pending, execution)

    def clear(self, held: Held, spent: Spent) -> None:
        """Remove a refill row whose runs were never started."""
        self._pending.spent.append((spent, held))
        self._pending.held[held] = None
        self._pending.count += 1
        self._wake()

    def has(self, held: Held) -> bool:
        """Whether anything of a shard waits for the store."""
        return held in self._pending.held

    def _joined(self, pending: Batch, execution: Execution) -> None:
        pending.held[execution.held] = None
        pending.count += 1
        if pending.count == 1:
            self._wake()

    def _spend(self, pending: Batch, execution: Execution) -> None:
        """In the same flush as the last outcome of a refill its row goes: what is done can't become a suspect."""
        refill = execution.refill
        refill.left -= 1
        if refill.left == 0:
            pending.spent.append((refill.spent(), refill.held))

    def _wake(self) -> None:
        self._idle.clear()
        self._kick.set()
