"""The reconciling read: tickets that are due, or named by a hint, are looked up together, one bounded query at a time.

Self-clocking: the next query takes whatever became due while the last one ran. Deadlines are no business of this loop,
so that a store which hangs delays no answer.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from seawall.guard import Heart
from seawall.guard.budget import Budget
from seawall.guard.retry import Backoff
from seawall.kernel.clock import Clock
from seawall.kernel.error import Unavailable
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.ticket import Reply
from seawall.responder.answer import answer_of, is_over, results_wanted
from seawall.responder.setting import Settings
from seawall.responder.waiting import Board
from seawall.store import ticket
from seawall.store.pool import Store
from seawall.store.ticket import Outcome

BACKOFF_MIN_S = 0.05
IDLE_S = 0.5
"""A loop beats at least so often."""


class Reader:
    """Looks tickets up. One loop only: two would look at the same moment at the same rows."""

    def __init__(
        self, board: Board, store: Store, settings: Settings, *, clock: Clock, metrics: Metrics, rng: random.Random
    ) -> None:
        self._board = board
        self._store = store
        self.settings = settings
        self._clock = clock
        self._rng = rng
        self._timeout_s = settings.read_timeout_ms / 1000
        self._reads = metrics.counter("seawall_ticket_reads_total", "Queries that looked tickets up.")
        self._failures = metrics.counter(
            "seawall_ticket_read_failures_total", "Queries that looked tickets up and got no answer."
        )

    async def run(self, heart: Heart) -> None:
        """The supervised loop. Cancelled: tickets in its hands are put back."""
        backoff = Backoff(BACKOFF_MIN_S, self.settings.backoff_ms_max / 1000, self._rng)
        while True:
            taken = self._board.take(self.settings.batch_tickets)
            if not taken:
                await heart.beat()
                await self._idle()
                continue
            try:
                await self._look(taken, heart)
                await heart.beat()
                backoff.reset()
            except Unavailable as error:
                self._failures.value += 1
                heart.unready(str(error))
                await asyncio.sleep(backoff.pause_s(most_s=self.settings.backoff_ms_max / 1000))
            finally:
                for ticket_id in taken:
                    self._board.put_back(ticket_id)

    async def _idle(self) -> None:
        self._board.look_wanted.clear()
        wait_s = min(IDLE_S, self._board.next_look_s())
        try:
            async with asyncio.timeout(wait_s):
                await self._board.look_wanted.wait()
        except TimeoutError:
            pass

    async def _look(self, taken: Sequence[bytes], heart: Heart) -> None:
        self._reads.value += 1
        for outcome in await ticket.outcomes(self._store, taken, timeout_s=self._timeout_s):
            # Not one budget for the whole round: a ticket with slow bodies would take from those after it.
            if not is_over(outcome):
                self._board.put_back(outcome.ticket_id, event_id=outcome.event_id)
                continue
            reply = await answer(self._store, outcome, Budget(self._timeout_s, self._clock))
            self._board.answer(outcome.ticket_id, reply, outcome="reply" if outcome.reply else "status")
            await heart.beat()


async def answer(store: Store, outcome: Outcome, budget: Budget) -> Reply:
    """The answer to a ticket, with bodies that were too large for a batch read one by one, all within the budget.

    Raises:
        Unavailable: The store didn't give all of it in time.
    """
    body: bytes | None = None
    if outcome.reply is not None and outcome.reply.body is None:
        body = await ticket.reply_body(store, outcome.event_id, timeout_s=budget.left_s)
    results = {
        run.id: await ticket.run_result(store, run.id, timeout_s=budget.left_s) for run in results_wanted(outcome)
    }
    return answer_of(outcome, body=body, results=results)
