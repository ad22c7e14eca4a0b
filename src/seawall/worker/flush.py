"""Group commit of outcomes: whatever came while the last flush ran goes into the next one. No timer.

A batch is sent again until its outcome is certain (every row of it may be repeated under the same epoch), halved while
the store refuses a value in it, and thinned when a lease in it is gone. Only then does anybody who waits hear of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from seawall.guard import Heart
from seawall.guard.retry import Backoff
from seawall.kernel.cause import Cause, status_of
from seawall.kernel.error import Unavailable, Uncertain, Unstorable
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.kernel.status import RunStatus
from seawall.store.flush import BrokenFence, flush
from seawall.store.lease import Lease
from seawall.store.pool import Session, Store
from seawall.store.run import prepare
from seawall.worker.batch import Batch
from seawall.worker.outcome import Outcomes
from seawall.worker.settings import Settings
from seawall.worker.shard import Held
from seawall.worker.width import Width

if TYPE_CHECKING:
    from seawall.worker.execution import Execution

log = logger("worker")

IDLE_S = 0.5
BACKOFF_MIN_S = 0.05
BACKOFF_MAX_S = 0.5
EXIT_BROKEN_FENCE = 71


class Flusher(Outcomes):
    """Collects outcomes and commits them. Nothing here waits for anything but the store.

    Args:
        settled: Called once for each run whose end, or failed attempt, is durable.
        lost: Called with a shard whose lease is gone; drops its runs.
        hint: Called with a run that somebody waits for, after its reply or end is durable.
        die: Ends the process when the fence is found broken.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        metrics: Metrics,
        *,
        settled: Callable[[Execution], None],
        lost: Callable[[Held], None],
        hint: Callable[[Execution], None],
        die: Callable[[int], object],
    ) -> None:
        super().__init__()
        self._store = store
        self._rng = random.Random()
        self.settings = settings
        self._settled = settled
        self._lost = lost
        self._hint = hint
        self._die = die
        self._sending: deque[Batch] = deque()  # in order; the first may be under way, or its outcome is uncertain
        self._sending_bytes = 0
        self.width = Width()
        self.away = False
        """The store didn't take the last flush, or isn't there for the next one."""
        self._flushes = metrics.counter("seawall_flushes_total", "Flushes committed by this worker.")
        self._refused = metrics.counter("seawall_flushes_refused_total", "Flushes refused since a lease was gone.")
        self._halved = metrics.counter("seawall_flushes_halved_total", "Flushes halved, to find what is refused.")
        self._steps = metrics.counter("seawall_steps_kept_total", "Outcomes of steps made durable.")
        metrics.gauge("seawall_unflushed_bytes", "Results that wait for the store.").read = lambda: self.bytes

    @property
    def bytes(self) -> int:
        """Of results that aren't durable yet."""
        return self._pending.bytes + self._sending_bytes

    def has(self, held: Held) -> bool:
        return super().has(held) or any(held in batch.held for batch in self._sending)

    async def run(self, heart: Heart) -> None:
        """The supervised loop. When it is killed, its successor sends what was under way once more."""
        backoff = Backoff(BACKOFF_MIN_S, BACKOFF_MAX_S, self._rng)
        while True:
            try:
                async with self._store.own_connection() as session:
                    await heart.beat()
                    await prepare(session)
                    while session.usable:
                        await self._round(session)
                        await heart.beat()
                        backoff.reset()
            except (Unavailable, Uncertain) as error:
                self.away = True
                heart.unready(str(error))
                await asyncio.sleep(backoff.pause_s())

    async def drain(self, timeout_s: float) -> bool:
        """Wait until everything handed in is durable; False when that takes too long."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def finish(self, timeout_s: float) -> bool:
        """Send what is left, after the loop has ended for good; False when the store doesn't take it in time."""
        try:
            async with asyncio.timeout(timeout_s), self._store.own_connection() as session:
                while not self._idle.is_set():
                    await self._round(session)
        except (TimeoutError, Unavailable, Uncertain):
            return False
        return True

    async def _round(self, session: Session) -> None:
        """Send one batch, or wait for one for a while."""
        if not self._sending:
            if not self._pending.count:
                self._idle.set()
                self.away = False  # there is a connection again, and nobody waits for what it is to take
                await self._wait()
                if not self._pending.count:
                    return
            self._collect()
        await self._send(session, self._sending[0])

    async def _wait(self) -> None:
        self._kick.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(IDLE_S):
                await self._kick.wait()

    def _collect(self) -> None:
        batch, self._pending = self._pending, Batch()
        self._sending_bytes = batch.bytes
        self._sending.append(batch)
        limits = self.settings
        while batch.count > limits.flush_rows_max or batch.bytes > limits.flush_bytes_max:
            executions = batch.executions()
            if len(executions) < 2:
                break
            self._sending.popleft()
            self._sending.extendleft(reversed(self._halves(batch, executions)))
            batch = self._sending[0]

    async def _send(self, session: Session, batch: Batch) -> None:
        try:
            again, batch.sent = batch.sent, True
            began = self._loop.time()
            standing = await flush(session, batch.rows(), again=again)
        except Unstorable as error:
            self._split(batch, error)
            return
        except BrokenFence as error:
            log.critical("the fence is broken; the process ends", extra=fields(detail=error.detail))
            self._die(EXIT_BROKEN_FENCE)
            raise
        self.away = False
        if standing is None:
            self.width.committed(began, now=self._loop.time())
            self._sending.popleft()
            self._confirm(batch)
        else:
            self._thin(batch, standing)
        if not self._sending:
            self._sending_bytes = 0

    def _confirm(self, batch: Batch) -> None:
        self._flushes.value += 1
        self._steps.value += len(batch.steps)
        for _, _, waiter in batch.steps:
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
        for _, execution in batch.answers:
            if execution.ticket:
                self._hint(execution)
        for _, execution in batch.ends:
            self._settled(execution)
            if execution.ticket:
                self._hint(execution)
        for _, execution in batch.agains:
            self._settled(execution)

    def _thin(self, batch: Batch, standing: set[Lease]) -> None:
        """Nothing was written since some lease is gone: let go of its runs, and send the others again."""
        self._refused.value += 1
        for held in batch.held:
            if held.lease not in standing:
                self._lost(held)
        left = [e for e in batch.executions() if not e.held.lost]
        part = batch.only(left, spent=True)
        if part.count:
            self._sending[0] = part
        else:
            self._sending.popleft()

    # ── a value that the store refuses ──

    def _halves(self, batch: Batch, executions: list[Execution]) -> list[Batch]:
        middle = len(executions) // 2
        first, second = batch.only(executions[:middle], spent=False), batch.only(executions[middle:], spent=True)
        # Only an estimate is needed: it bounds how far a batch is halved for its size.
        first.bytes = second.bytes = batch.bytes // 2
        return [first, second]

    def _split(self, batch: Batch, error: Unstorable) -> None:
        executions = batch.executions()
        self._sending.popleft()
        self._halved.value += 1
        parts = self._halves(batch, executions) if len(executions) > 1 else batch.singles()
        if len(parts) > 1:
            self._sending.extendleft(reversed(parts))
        elif executions:
            self._refuse(batch, executions[0], error)

    def _refuse(self, batch: Batch, execution: Execution, error: Unstorable) -> None:
        """One outcome alone is refused: a step fails in its workflow, anything else ends the run as dead."""
        log.warning("the store refuses a value", extra=fields(run=execution.id, cause=error.detail))
        waiter = batch.steps[0][2] if batch.steps else None
        if waiter is not None:
            if not waiter.done():
                waiter.set_exception(error)
            return
        if batch.ends and status_of(batch.ends[0][0].status) == RunStatus.DEAD:
            execution.unburied()
            return
        if batch.ends or batch.agains:
            execution.refill.left += 1
        execution.drop()
        execution.bury(f"its outcome can't be stored: {error.detail}", Cause.UNSTORABLE)
