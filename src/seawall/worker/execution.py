"""One execution of one run: the worker's side of ``kernel/seam/run.py``."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

from seawall.kernel.clock import Clock
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.run import Memo
from seawall.kernel.seam.ticket import Reply
from seawall.kernel.status import RunStatus
from seawall.store.flush import Again, Answer, End, Step
from seawall.store.pool import text_array
from seawall.store.run import Ready
from seawall.worker.deadline import Deadlines
from seawall.worker.flush import Flusher
from seawall.worker.settings import Settings
from seawall.worker.shard import Held, Refill
from seawall.workflow import Context, Event, Workflow, encoded, may_retry

log = logger("worker")

ERROR_CHARS_MAX = 4000
LEFT_POLL_S = 0.02
"""How often a run that ended looks for steps that it left: rare, and not worth a future for each step."""

_COROUTINE = inspect.CO_COROUTINE


class Bench:
    """What all executions of one process share."""

    def __init__(
        self,
        settings: Settings,
        flusher: Flusher,
        *,
        clock: Clock,
        metrics: Metrics,
        chance: random.Random,
        leave: Callable[[str], None],
    ) -> None:
        """Args:
        leave: Ends the process, with the reason, when it can't go on.
        """
        self.flusher = flusher
        self.wall_us: Callable[[], int] = clock.wall_us
        self.chance = chance
        self.deadlines = Deadlines(clock, store_away=lambda: flusher.away)
        self.loop = asyncio.get_running_loop()
        self.parked = False  # stopping: no step begins any more
        self.count = 0  # runs under way
        self.body_bytes = 0
        self._threads_max = settings.threads_max
        self._leave = leave
        self._threads = ThreadPoolExecutor(settings.threads_max, thread_name_prefix="step")
        self._abandoned = 0
        self._ended = {
            status: metrics.counter("seawall_runs_ended_total", "Runs that ended, by how.", status=status.word)
            for status in (RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.DEAD)
        }
        self._retried = metrics.counter("seawall_runs_retried_total", "Attempts of runs that failed and are repeated.")
        metrics.gauge("seawall_runs_inflight_count", "Runs under way in this process.").read = lambda: self.count
        metrics.gauge("seawall_threads_abandoned_count", "Threads that still run a step that timed out.").read = (
            lambda: self._abandoned
        )

    def began(self, execution: Execution) -> None:
        """A run is in hand now."""
        self.count += 1
        self.body_bytes += execution.body_bytes

    def left(self, execution: Execution) -> None:
        """It is not any more: its end is durable, or it was dropped."""
        if execution.held.inflight.pop(execution.id, None) is execution:
            self.count -= 1
            self.body_bytes -= execution.body_bytes

    def counted(self, status: RunStatus) -> None:
        self._ended[status].value += 1

    def tried_again(self) -> None:
        self._retried.value += 1

    async def in_thread(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> object:
        """Call a plain function in a thread, with this task's context.

        Cancelled: the thread goes on to its end, and its place in the pool is taken so long. When all places are taken
        that way, no plain step could ever run again, so the process ends and its successor begins with fresh threads.
        """
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        future = self._threads.submit(context.run, _quietly, function, args, kwargs)
        try:
            failed, value = await asyncio.wrap_future(future, loop=loop)
        except asyncio.CancelledError:
            if not future.cancelled() and not future.done():
                self._abandoned += 1
                future.add_done_callback(self._returned)
                if self._abandoned >= self._threads_max:
                    self._leave(f"all {self._abandoned} threads hang in steps that timed out")
            raise
        if failed:
            raise value
        # A decorator may hide that a function is async def: then the thread only made the coroutine.
        return await value if inspect.isawaitable(value) else value

    def _returned(self, _: object) -> None:
        self._abandoned -= 1

    def close(self) -> None:
        """Give the threads up; those that hang can't be stopped."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _quietly(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[bool, Any]:
    """In the thread: (raised, value or exception). An exception as a value, since asyncio can't set StopIteration, and
    SystemExit would end the pool's thread."""
    try:
        return False, function(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001
        # Outermost in its thread, and raised again in the step: the user's function may raise anything.
        return True, _ordinary(error)


def _ordinary(error: BaseException) -> Exception:
    """What a step raised, as something that can travel: SystemExit must not end the event loop."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration | StopAsyncIteration):
        return error
    ours = RuntimeError(f"{type(error).__name__}: {error}")
    ours.__cause__ = error
    return ours


class Execution:
    """A run under way. The shard's ``inflight`` owns its task: an entry leaves with its last flush, or dropped."""

    __slots__ = (
        "_bench", "_calls", "_kept", "_memos", "_over", "_row", "_started_us", "attempt", "body_bytes", "dropped",
        "event_id", "held", "id", "now_us", "refill", "task", "ticket", "workflow",
    )  # fmt: skip

    def __init__(
        self, bench: Bench, refill: Refill, row: Ready, workflow: Workflow, memos: dict[tuple[str, int], Memo] | None
    ) -> None:
        self._bench = bench
        self._memos = memos
        self._row = row
        self.now_us = bench.wall_us
        self._started_us = bench.wall_us()
        self._calls = 0  # steps that are being called now; several, when a workflow does them at once
        self._kept: asyncio.Future[None] | None = None  # of the outcome that was handed in last
        self._over = False  # the workflow has returned or raised: no step of this attempt may begin any more
        self.refill = refill
        self.held: Held = refill.held
        self.id: int = row.id
        self.event_id: UUID = row.event_id
        self.attempt: int = row.attempt + 1
        self.body_bytes = len(row.body or b"")
        self.ticket: bool = row.ticket
        self.workflow = workflow
        self.dropped = False
        self.task: asyncio.Task[None] | None = None

    # ── the seam ──

    def recall(self, name: str, nth: int) -> Memo | None:
        return None if self._memos is None else self._memos.get((name, nth))

    async def call(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], *, timeout_s: float
    ) -> object:
        bench = self._bench
        if self._over:
            raise asyncio.CancelledError("the workflow ended before this step of it began")
        if bench.parked or self.dropped:
            await asyncio.Event().wait()  # until we are cancelled: the process stops, or the run isn't ours any more
        task = asyncio.current_task(bench.loop)
        assert task is not None
        watch = bench.deadlines.set(task, timeout_s)
        self._calls += 1
        try:
            if _is_async(function):
                return await function(*args, **kwargs)
            return await bench.in_thread(function, args, kwargs)
        except asyncio.CancelledError:
            if watch.was_it():
                raise TimeoutError(f"it took longer than {timeout_s:g} s") from None
            raise
        except (SystemExit, KeyboardInterrupt, StopIteration, StopAsyncIteration) as error:
            raise _ordinary(error) from error
        finally:
            self._calls -= 1
            bench.deadlines.clear(watch)

    def keep(
        self, name: str, nth: int, result: bytes, *, failed: bool, attempt: int, started_us: int, wait: bool
    ) -> Awaitable[None] | None:
        step = Step(self.id, name, nth, result, failed, self.held.lease.epoch, min(attempt, 32767), started_us)
        waiter = self._bench.flusher.step(self, step, wait=wait)
        if waiter is not None:
            self._kept = waiter
        return waiter

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def reply(self, reply: Reply) -> None:
        answer = Answer(self.event_id, self.id, reply.status, reply.content_type, reply.body)
        self._bench.flusher.answer(self, answer)

    # ── its life ──

    async def drive(self) -> None:
        """From the workflow's first line to its end in the next flush. The task's outermost code: it never raises.

        Cancelled: by ``drop`` only; then nothing more is written.
        """
        bench, workflow = self._bench, self.workflow
        assert self.task is not None
        watch = bench.deadlines.set(self.task, workflow.timeout_s, of_run=True)
        result = b""
        failure: BaseException | None = None
        try:
            event, context = self._arguments()
            value = await workflow.function(event, context)
            result = encoded(value, "the result of workflow", workflow.name)
        except asyncio.CancelledError as error:
            if self.dropped:
                return
            expired = watch.was_it()
            failure = TimeoutError(f"the workflow took longer than {workflow.timeout_s:g} s") if expired else error
        except BaseException as error:  # noqa: BLE001
            # Outermost: user code may raise anything, SystemExit too, which must not end the event loop.
            failure = error
        finally:
            self._over = True
            bench.deadlines.clear(watch)
        if (self._calls or (self._kept is not None and not self._kept.done())) and not await self._calmed():
            return
        if failure is None:
            self._end(RunStatus.SUCCEEDED, result=result, error=None)
        else:
            self._failed(failure)
            failure = None  # its traceback holds this frame: without this, a cycle for each failed run

    async def _calmed(self) -> bool:
        """Wait for steps that the workflow began and left, as ``asyncio.gather`` does when one of several raises. What
        they did belongs to this attempt: begun again beside them, they would have their effects twice, and a failure
        kept late would be taken for the next attempt's. Each has a deadline. False: dropped meanwhile."""
        try:
            while self._calls or (self._kept is not None and not self._kept.done()):  # noqa: ASYNC110 - see LEFT_POLL_S
                await asyncio.sleep(LEFT_POLL_S)
        except asyncio.CancelledError:
            return not self.dropped
        return True

    def bury(self, reason: str) -> None:
        """End as dead: it can't be run, or its end can't be stored."""
        log.error("run is dead", extra=fields(run=self.id, event=str(self.event_id), reason=reason))
        self._end(RunStatus.DEAD, result=None, error=reason)

    def drop(self) -> None:
        """Forget it without a trace: somebody else owns its shard, or this process stops."""
        self.dropped = True
        if self.task is not None:
            self.task.cancel()

    def _arguments(self) -> tuple[Event, Context]:
        row = self._row
        id = str(self.event_id)  # the same as `id_text`, by the driver's own C code
        event = Event(
            id=id, type=row.type, tenant=row.tenant, source=row.source, received_at=row.received_at,
            headers=row.headers, body=row.body,
        )  # fmt: skip
        return event, Context(self, event_id=id, workflow=self.workflow.name, chance=self._bench.chance)

    def _failed(self, error: BaseException) -> None:
        retry = self.workflow.retry
        said = f"{type(error).__name__}: {error}"
        if self.attempt >= retry.attempts or not may_retry(error):
            log.warning("run failed", extra=self._fields(error=said))
            self._end(RunStatus.FAILED, result=None, error=said)
            return
        delay_s = retry.delay_s(self.attempt, error, self._bench.chance)
        log.info("run is tried again", extra=self._fields(error=said, delay_s=round(delay_s, 3)))
        self._bench.tried_again()
        self._bench.flusher.again(self, Again(self.id, self.attempt, int(delay_s * 1000)))

    def _end(self, status: RunStatus, *, result: bytes | None, error: str | None) -> None:
        if error is not None:
            (error,) = text_array([error[:ERROR_CHARS_MAX]])
        self._bench.counted(status)
        self._bench.flusher.end(self, End(self.id, status, self.attempt, result, error, self._started_us))

    def _fields(self, **values: object) -> dict[str, object]:
        return fields(run=self.id, workflow=self.workflow.name, attempt=self.attempt, **values)


def _is_async(function: Callable[..., Any]) -> bool:
    code = getattr(function, "__code__", None)
    if code is not None:
        return bool(code.co_flags & _COROUTINE)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004
