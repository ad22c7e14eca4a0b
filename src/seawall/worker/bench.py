"""What all executions of one process share: slots, deadlines, threads, and what to do with code that goes on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING
from uuid import UUID

from seawall.guard.spell import Spells
from seawall.guard.stack import stack_of
from seawall.kernel.approval import Links
from seawall.kernel.clock import Clock
from seawall.kernel.log import logger
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.approval import Question, Request
from seawall.kernel.seam.child import Child
from seawall.kernel.status import RunStatus
from seawall.store.approval import Place, ask
from seawall.store.child import Wanted, chain, standing, start
from seawall.store.pool import Store
from seawall.worker.asking import Asking
from seawall.worker.beat import Beats
from seawall.worker.deadline import Deadlines, Watch
from seawall.worker.ear import Ears
from seawall.worker.flush import Flusher
from seawall.worker.settings import Settings
from seawall.worker.thread import Threads
from seawall.worker.usage import Usage
from seawall.workflow.branch import task_factory

if TYPE_CHECKING:
    from seawall.worker.execution import Execution

log = logger("worker")

STUBBORN_MAX = 100
"""Runs that go on after their end, in one process: each holds its event, and whatever the workflow has in its hands."""

BEGINS_MAX = 2
"""Runs that are begun by others, and requests to people that are looked at, at once in one process."""

EXIT_THREADS_HANG, EXIT_MEDDLED, EXIT_STUBBORN = 72, 74, 75


class Bench:
    """What all executions of one process share."""

    def __init__(
        self,
        settings: Settings,
        flusher: Flusher,
        store: Store,
        *,
        clock: Clock,
        store_clock: Clock,
        metrics: Metrics,
        chance: random.Random,
        leave: Callable[[int, str], None],
        spells: Spells,
        ears: Ears,
        usage: Usage,
        links: Links,
        alone: bool = False,
    ) -> None:
        """Args:
        leave: Ends the process, with exit status and reason, when it can't go on.
        alone: A run is alone in this process, so that the process may end for it.
        """
        self.flusher = flusher
        self._store = store
        self._begins = Asking(BEGINS_MAX)
        self.grace_s = settings.cancel_grace_s
        self.nesting_max, self.children_max = settings.nesting_max, settings.children_max
        self.ears = ears
        self.beats = Beats(store, clock=clock)
        self.usage = usage
        self.links = links
        self.wall_us: Callable[[], int] = clock.wall_us
        self.monotonic: Callable[[], float] = store_clock.monotonic
        self.chance = chance
        self.deadlines = Deadlines(
            clock, store_away=self._store_away, grace_s=settings.cancel_grace_s, stubborn=self._stubborn
        )
        self.loop = asyncio.get_running_loop()
        self.loop.set_task_factory(task_factory)
        self.parked = False  # stopping: no step begins any more
        self.count = 0  # runs under way
        self.body_bytes = 0
        self.leave = leave
        self.spells = spells
        self._alone = alone
        self._outlived: set[Execution] = set()  # ended in the store, and their code goes on here
        self.threads = Threads(settings.threads_max, metrics=metrics, hang=self._threads_hang)
        self._ended = {
            status: metrics.counter("seawall_runs_ended_total", "Runs that ended, by how.", status=status.word)
            for status in (RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.DEAD)
        }
        self._retried = metrics.counter("seawall_runs_retried_total", "Attempts of runs that failed and are repeated.")
        self._put_away = metrics.counter(
            "seawall_runs_put_away_total", "Times that a run began to wait without a slot."
        )
        metrics.gauge("seawall_runs_inflight_count", "Runs under way in this process.").read = lambda: self.count
        metrics.gauge(
            "seawall_runs_stubborn_count", "Runs that failed at a deadline, and whose code goes on all the same."
        ).read = lambda: len(self._outlived)

    async def begin_child(self, wanted: Wanted) -> Child | None:
        """Have a run that another one begins be there. Waits for the store, as a flush does, as long as its run may."""
        return await self._begins.until_answered(lambda: start(self._store, wanted))

    async def children(self, parent: int) -> dict[UUID, Child]:
        """Runs that one has begun, that end with it and haven't ended, by their events. Waits as ``begin_child``."""
        return await self._begins.until_answered(lambda: standing(self._store, parent, most=self.children_max))

    async def ask(self, place: Place, question: Question) -> Request | None:
        """Have a request to people be there, or see how it stands; None: the run is gone. Waits as ``begin_child``."""
        return await self._begins.until_answered(lambda: ask(self._store, place, self.links.number, question))

    async def chain(self, run_id: int) -> str:
        """By which runs a run was begun, in words."""
        return " > ".join(await self._begins.until_answered(lambda: chain(self._store, run_id)))

    def _store_away(self) -> bool:
        """Whether a run may be waiting for the store: for a flush, or for an answer."""
        return self.flusher.away or self.ears.away or self._begins.in_vain or self.beats.in_vain

    def began(self, execution: Execution) -> None:
        """A run is in hand now."""
        self.count += 1
        self.body_bytes += execution.body_bytes

    def left(self, execution: Execution) -> None:
        """It is not any more: its end is durable, or it was dropped."""
        if execution.held.inflight.pop(execution.id, None) is execution:
            self.count -= 1
            self.body_bytes -= execution.body_bytes
            self.usage.left(execution)

    @property
    def tried(self) -> int:
        """Executions that ended a run or an attempt."""
        return int(sum(counter.value for counter in self._ended.values()) + self._retried.value)

    @property
    def failed(self) -> int:
        """Those of them that failed."""
        return self.tried - int(self._ended[RunStatus.SUCCEEDED].value)

    def counted(self, status: RunStatus) -> None:
        self._ended[status].value += 1

    def tried_again(self) -> None:
        self._retried.value += 1

    def put_away(self) -> None:
        self._put_away.value += 1

    def _threads_hang(self, count: int) -> None:
        self.leave(EXIT_THREADS_HANG, f"all {count} threads hang in steps that timed out")

    def _stubborn(self, watch: Watch) -> None:
        """Code that swallows cancellation can't be stopped, and to try its run again would be to run it twice at once.

        Alone in its process, the run takes the process with it: a death, counted like any other. Among others, the run
        fails for good, which frees its slot; what its code does from then on is its own affair, and no step of it
        begins and nothing is kept.
        """
        run = watch.run
        what = "workflow" if watch.of_run else "step"
        log.warning("code goes on after it was cancelled", extra=run.fields(what=what, stack=stack_of(watch.task)))
        self.spells.saw(
            "code-goes-on", f"a {what} of workflow {run.workflow.name} goes on after it was cancelled at its deadline",
            unaffected="other runs, while there are few of these", cure="look at its stack in the worker's log",
            workflow=run.workflow.name,
        )  # fmt: skip
        if run.task is None or run.task.done():
            return
        if self._alone:
            self.leave(EXIT_STUBBORN, f"run {run.id} goes on after it was cancelled at its deadline")
            return
        self._outlived.add(run)
        run.outlive()
        if len(self._outlived) > STUBBORN_MAX:
            self.leave(EXIT_STUBBORN, f"{len(self._outlived)} runs go on after they were cancelled at their deadlines")

    def departed(self, execution: Execution) -> None:
        """Its task has ended."""
        self._outlived.discard(execution)

    def close(self) -> None:
        """Give the threads up; those that hang can't be stopped."""
        self.threads.close()
        self.loop.set_task_factory(None)
