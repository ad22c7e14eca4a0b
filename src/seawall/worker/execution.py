"""One execution of one run: the worker's side of ``kernel/seam/run.py``."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any
from uuid import UUID

from seawall.kernel.approval import Claim
from seawall.kernel.cause import Cause, cause_of, status_of, with_cause
from seawall.kernel.correlation import key_of
from seawall.kernel.error import Fenced, said
from seawall.kernel.event import derived_id
from seawall.kernel.log import fields, logger
from seawall.kernel.seam.approval import Question, Request
from seawall.kernel.seam.child import Begin, Child
from seawall.kernel.seam.pulse import HeartbeatMissed, Pulse
from seawall.kernel.seam.run import Memo
from seawall.kernel.seam.ticket import Reply
from seawall.kernel.seam.wait import Heard, Wanted
from seawall.kernel.status import RunStatus
from seawall.store import approval, child
from seawall.store.cancel import Order
from seawall.store.flush import Again, Answer, End, Step
from seawall.store.pool import text_array
from seawall.store.run import Ready
from seawall.store.wait import Asked, Place
from seawall.worker.bench import EXIT_MEDDLED, Bench
from seawall.worker.deadline import Watch
from seawall.worker.ear import heard
from seawall.worker.kin import Kin
from seawall.worker.shard import Held, Refill
from seawall.worker.thread import ordinary
from seawall.workflow import Context, Event, NonRetryable, Workflow, encoded, may_retry
from seawall.workflow.branch import Branch, at_rest, current

log = logger("worker")

ERROR_CHARS_MAX = 4000
SUMMARY_CHARS_MAX = 300
LEFT_POLL_S = 0.02
"""How often a run that ended looks for steps that it left: rare, and not worth a future for each step."""

REST_S = 1.0
"""A run that goes on within so long isn't put away: it would cost more than the slot that it holds."""

REST_LOOK_S, REST_LOOK_MAX_S = 0.01, 0.5
"""How often a task that waits looks whether the others of its run have come to rest: soon, then seldom."""

_COROUTINE = inspect.CO_COROUTINE


class RunTask(asyncio.Task[None]):
    """A run's task, which knows whether a stranger has cancelled it.

    The run itself may: whatever it began, a timeout or a task group, has its context. We do it by ``Task.cancel``
    itself. Anybody else is another run's code, or a loop that is being taken down.
    """

    __slots__ = ("meddled", "run_id")
    meddled: bool
    run_id: int

    def cancel(self, msg: Any | None = None) -> bool:
        here = current.get()
        if here is None or here.run_id != self.run_id:
            self.meddled = True
        return super().cancel(msg)


# Size: the seam's calls and the ways to end guard one state, attempt by attempt; it is the run itself.
class Execution:
    """A run under way. The shard's ``inflight`` owns its task: an entry leaves with its last flush, or dropped."""

    __slots__ = (
        "_begets", "_bench", "_calls", "_ended", "_grace", "_kept", "_kin", "_memos", "_order", "_over", "_rests",
        "_row", "_started_us", "attempt", "bereaves", "body_bytes", "dropped", "event_id", "final", "held", "id",
        "listens", "now_us", "refill", "task", "ticket", "workflow",
    )  # fmt: skip

    def __init__(
        self,
        bench: Bench,
        refill: Refill,
        row: Ready,
        workflow: Workflow,
        memos: dict[tuple[str, int], Memo | None] | None,
    ) -> None:
        self._bench = bench
        self._memos = memos
        self._row = row
        self.now_us = bench.wall_us
        self._started_us = bench.wall_us()
        self._begets = False  # it began, or looked at, a run that ends with it
        self._kin: Kin | None = None
        self._calls = 0  # steps that are being called now; several, when a workflow does them at once
        self._kept: asyncio.Future[None] | None = None  # of the outcome that was handed in last
        self._rests: dict[Branch, int] | None = None  # tasks that do nothing but wait, and until when
        self._order: Order | None = None  # that it is to end, and how
        self._grace: Watch | None = None  # how long it may take for that
        self._over = False  # the workflow has returned or raised: no step of this attempt may begin any more
        self._ended = False  # this attempt's outcome was handed in: nothing may follow it
        self.refill = refill
        self.held: Held = refill.held
        self.id: int = row.id
        self.event_id: UUID = row.event_id
        self.attempt: int = row.attempt + 1
        self.body_bytes = len(row.body or b"")
        self.ticket: bool = row.ticket
        self.workflow = workflow
        self.dropped = False
        self.final = False  # its end was handed in, not only this attempt's
        self.bereaves = False  # it has ended, and runs that it began may have to end too
        self.listens = row.waits > 0 or row.attempt > 0  # others may wake it, by what this or an earlier one has begun
        self.task: RunTask | None = None

    def is_over(self) -> bool:
        """Whether nobody waits any more for what its code does: its outcome was handed in, or it was dropped. Callable
        in any thread."""
        return self._ended or self.dropped

    @property
    def vt(self) -> int:
        """Its place in the queue, when it was read."""
        return self._row.vt

    @property
    def commits(self) -> bool:
        """Whether it waits for a commit, and for nothing else."""
        return self._ended or (self._kept is not None and not self._kept.done())

    @property
    def accounted(self) -> tuple[int, int, str]:
        """To which queue, workflow and tenant its slot's time is counted."""
        return self.held.lease.queue_id, self._row.workflow_id, self._row.tenant or ""

    # ── the seam ──

    def recall(self, name: str, nth: int) -> Memo | None:
        # Taken out: what is left is what an earlier execution has done beyond this place.
        return None if self._memos is None else self._memos.pop((name, nth), None)

    def has_more(self) -> bool:
        return bool(self._memos)

    async def pulse(self, name: str, nth: int, every_s: float) -> Pulse:
        return await self._bench.beats.pulse(self, name, nth, every_s)

    def call(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], *, timeout_s: float,
        pulse: Pulse | None = None,
    ) -> Coroutine[Any, Any, object]:  # fmt: skip
        called = self._called(function, args, kwargs, timeout_s, pulse)
        return called if pulse is None else self._bench.beats.listened(pulse, called)

    async def _called(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], timeout_s: float,
        pulse: Pulse | None,
    ) -> object:  # fmt: skip
        bench = self._bench
        if self._over or self.dropped or bench.parked:
            await self._refused()
        is_async = _is_async(function)
        if not is_async:
            await bench.threads.take()
            if self._over or self.dropped or bench.parked:  # it may have been a long wait
                bench.threads.give()
                await self._refused()
        task = asyncio.current_task(bench.loop)
        assert task is not None
        watch = bench.deadlines.set(task, timeout_s, self, pulse=pulse)
        self._calls += 1
        try:
            if is_async:
                return await function(*args, **kwargs)
            return await bench.threads.call(function, args, kwargs, timeout_s=timeout_s, pulse=pulse)
        except asyncio.CancelledError:
            if watch.was_it():
                if pulse is not None and pulse.missed:
                    raise HeartbeatMissed(f"no heartbeat came for {pulse.every_s:g} s") from None
                raise TimeoutError(f"it took longer than {timeout_s:g} s") from None
            raise
        except (SystemExit, KeyboardInterrupt, StopIteration, StopAsyncIteration) as error:
            raise ordinary(error) from error
        finally:
            self._calls -= 1
            bench.deadlines.clear(watch)

    async def _refused(self) -> None:
        """Never returns."""
        if self._over or self._ended:
            raise asyncio.CancelledError("the workflow ended, or was put away, before this step of it began")
        while True:  # until we are cancelled: the process stops, or the run isn't ours any more
            await asyncio.Event().wait()

    def keep(
        self, name: str, nth: int, result: bytes, *, failed: bool, attempt: int, started_us: int, wait: bool
    ) -> Awaitable[None] | None:
        if self._ended:
            raise asyncio.CancelledError("the run ended before this step of it did")
        step = Step(self.id, name, nth, result, failed, self.held.lease.epoch, attempt, started_us)
        waiter = self._bench.flusher.step(self, step, wait=wait)
        if waiter is not None:
            self._kept = waiter
        return waiter

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def store_us(self) -> int:
        return self._row.now_us + int((self._bench.monotonic() - self.refill.read_at) * 1_000_000)

    async def listen(self, name: str, nth: int, wanted: Wanted) -> Heard:
        self.listens = True
        key = key_of(self._row.tenant, wanted.type, wanted.fields)
        asked = Asked(
            lease=self.held.lease, place=Place(self.id, name, nth), key=key,
            lookback_us=wanted.lookback_us, timeout_us=wanted.timeout_us,
        )  # fmt: skip
        standing = await self._bench.ears.look(asked, wanted.type, [field for field, _ in wanted.fields])
        if standing is None or self._ended or self._over:
            await self._refused()
            raise AssertionError("it never returns")
        return heard(standing)

    async def start_child(self, name: str, nth: int, begin: Begin) -> Child | None:
        row, bench = self._row, self._bench
        if self._over or self._ended or self.dropped or bench.parked:
            await self._refused()
        nesting = child.nesting_of(row.source, row.headers) + 1
        if nesting > bench.nesting_max:
            chain = await bench.chain(self.id)
            raise NonRetryable(f"runs are nested {nesting} deep, worker.nesting_max is {bench.nesting_max}: {chain}")
        if begin.number > bench.children_max:
            most = bench.children_max
            raise NonRetryable(f"a run begins more than {most} others (worker.children_max): let those begin some, too")
        self._begets = self._begets or begin.with_parent
        self.listens = True  # to their ends
        names = self.workflow.name, name, str(nth)
        wanted = child.Wanted(
            event_id=derived_id(self.event_id.bytes, *names),
            other_id=derived_id(self.event_id.bytes, *names, str(self.id)),
            workflow=begin.workflow, tenant=row.tenant, parent=self.id, lease=self.held.lease, nesting=nesting,
            payload=begin.payload, turn=begin.turn, with_parent=begin.with_parent,
        )  # fmt: skip
        if (row.waits or begin.seen) and (found := await self._standing(wanted)) is not None:
            return found
        try:
            return await bench.begin_child(wanted)
        except Fenced:
            await self._refused()
            raise

    async def _standing(self, wanted: child.Wanted) -> Child | None:
        """One that hasn't ended, when it is known without a statement of its own."""
        if self._kin is None:
            bench = self._bench
            self._kin = Kin(lambda: bench.children(self.id), bench.loop.time)
        return await self._kin.look(UUID(bytes=wanted.event_id), UUID(bytes=wanted.other_id))

    async def ask(self, name: str, nth: int, question: Question) -> Request:
        if self._over or self._ended or self.dropped or self._bench.parked:
            await self._refused()
        found = await self._bench.ask(approval.Place(run_id=self.id, name=name, nth=nth), question)
        if found is None:
            await self._refused()
            raise AssertionError("it never returns")
        return found

    def link(self, request: Request, person: int) -> str:
        claim = Claim(request.id, self.id, request.nonce, request.expires_us, person)
        return self._bench.links.link(claim, number=request.key)

    async def rest(self, until_us: int, *, look_s: float = math.inf) -> None:
        here = current.get()
        assert here is not None, "only a run's own code rests"
        rests = self._rests
        if rests is None:
            rests = self._rests = {}
        rests[here] = until_us
        pause_s, waited_s = REST_LOOK_S, 0.0
        try:
            if look_s < math.inf and until_us <= self.store_us():
                # The store has just said that it isn't over: its clock has gone back (another server, maybe), and ours
                # goes on from what it was. Asked again at once, it would be asked without a pause until it agrees.
                await asyncio.sleep(REST_LOOK_MAX_S)
            while (left_s := (until_us - self.store_us()) / 1_000_000) > 0:
                if self._over or self._ended:
                    raise asyncio.CancelledError("the run was put away, or has ended, while this task of it waits")
                first_us = min(rests.values())
                if first_us - self.store_us() > REST_S * 1_000_000 and self._calm and at_rest(here, rests):
                    self._put_away(first_us)
                if waited_s >= look_s:
                    return
                await asyncio.sleep(min(left_s, pause_s))
                waited_s += pause_s
                pause_s = min(2 * pause_s, REST_LOOK_MAX_S)
        finally:
            rests.pop(here, None)  # two tasks that were begun with one context are one here

    def _put_away(self, until_us: int) -> None:
        """End this execution: another one begins when the moment has come."""
        self._ended = True
        delay_ms = max(0, until_us - self.store_us()) // 1000 + 1
        row = self._row
        again = Again(
            self.id, row.attempt, delay_ms, row.waits + 1, row.wakes, failed=False, started_us=self._started_us
        )
        self._bench.put_away()
        self._bench.flusher.again(self, again)
        self.drop()

    @property
    def _calm(self) -> bool:
        """Whether no step is being called or kept."""
        return not self._calls and (self._kept is None or self._kept.done())

    def reply(self, reply: Reply) -> None:
        if self._ended:
            return
        answer = Answer(self.event_id, self.id, reply.status, reply.content_type, reply.body)
        self._bench.flusher.answer(self, answer)

    @property
    def parent(self) -> int | None:
        """The run that began this one; None: an event from outside did, or a schedule."""
        return child.parent_of(self._row.source, self._row.headers)

    def gone(self, told: Callable[[Workflow, str, bytes], None]) -> None:
        """Tell of a run that isn't under way any more: its workflow, tenant and body."""
        told(self.workflow, self._row.tenant, self._row.body or b"")

    # ── its life ──

    def begin(self) -> None:
        """Call the workflow, in a task of its own."""
        self.task = task = RunTask(self._drive(), loop=self._bench.loop, name="run")
        task.run_id, task.meddled = self.id, False
        task.add_done_callback(self._departed)

    async def _drive(self) -> None:
        """From the workflow's first line to its end in the next flush. The task's outermost code: it never raises.

        Cancelled: by ``drop``, or by a stranger; then nothing more is written.
        """
        bench, workflow = self._bench, self.workflow
        assert self.task is not None
        watch = bench.deadlines.set(self.task, workflow.timeout_s, self, of_run=True)
        result = b""
        failure: BaseException | None = None
        late = False
        try:
            event, context = self._arguments()
            current.set(context.branch)
            value = await workflow.function(event, context)
            result = encoded(value, "the result of workflow", workflow.name)
        except asyncio.CancelledError as error:
            if self.dropped:
                return
            if self._order is not None:
                failure = error
            elif watch.was_it():
                late, failure = True, TimeoutError(f"the workflow took longer than {workflow.timeout_s:g} s")
            elif self._meddled():
                return
            else:
                failure = error
        except BaseException as error:  # noqa: BLE001
            # Outermost: user code may raise anything, SystemExit too, which must not end the event loop.
            failure = error
        finally:
            self._over = True
            bench.deadlines.clear(watch)
            if self._grace is not None:
                bench.deadlines.clear(self._grace)
        # One that is cancelled isn't begun again, so what it has left needn't have come to an end.
        if self._order is None and not self._calm and not await self._calmed():
            return
        if self._ended:
            return
        if self._order is not None:
            self._end_cancelled(self._order, failure)
            failure = None
        elif failure is None:
            self._end(RunStatus.SUCCEEDED, result=result, error=None)
        else:
            self._failed(failure, late=late)
            failure = None  # its traceback holds this frame: without this, a cycle for each failed run

    async def _calmed(self) -> bool:
        """Wait for steps that the workflow began and left, as ``asyncio.gather`` does when one of several raises. What
        they did belongs to this attempt: begun again beside them, they would have their effects twice, and a failure
        kept late would be taken for the next attempt's. Each has a deadline. False: dropped meanwhile."""
        try:
            while not self._calm:  # noqa: ASYNC110 - see LEFT_POLL_S
                await asyncio.sleep(LEFT_POLL_S)
        except asyncio.CancelledError:
            return not (self.dropped or self._meddled())
        return True

    def _meddled(self) -> bool:
        """Whether somebody else's code cancelled this run. That is nothing that it did itself, and whoever cancels
        tasks that aren't his has cancelled others too: the process ends as it is, and only the guilty dies alone."""
        if self._ended or self.task is None or not (self.task.meddled and self.task.cancelling()):
            return False
        self._bench.leave(EXIT_MEDDLED, f"run {self.id} was cancelled, neither by itself nor by us")
        return True

    def outlive(self) -> None:
        """Fail for good although the workflow's code goes on."""
        self._over = True
        if not (self._ended or self.dropped) and self._order is not None:
            log.warning("run was cancelled, and its code goes on", extra=self.fields(why=self._order.why))
            self._end_ordered(self._order, "; its code went on after that")
        elif not (self._ended or self.dropped):
            error = "TimeoutError: it went on after it was cancelled at its deadline, so it can't be tried again here"
            log.warning("run failed", extra=self.fields(error=error))
            self._end(RunStatus.FAILED, result=None, error=error, cause=Cause.TIMEOUT)

    def _departed(self, task: asyncio.Task[None]) -> None:
        """The task has ended. Whatever let it end without a word, the run must neither be lost nor hold its slot."""
        self._bench.departed(self)
        error = None if task.cancelled() else task.exception()
        if self._ended or self.dropped:
            return
        if error is not None:
            log.error("a run's task died", extra=self.fields(cause=said(error)))
            self._failed(error)
        elif self._order is not None:  # before its first line
            self._end_cancelled(self._order, None)
        elif task.cancelled() and not self._meddled():  # before its first line
            self._failed(asyncio.CancelledError())

    def bury(self, reason: str, cause: Cause) -> None:
        """End as dead: it can't be run, or its end can't be stored."""
        log.warning("run is dead", extra=fields(run=self.id, event=str(self.event_id), reason=reason))
        self._bench.spells.saw(
            "run-dead", f"run {self.id} of workflow {self.workflow.name} is dead: {reason}"[:SUMMARY_CHARS_MAX],
            unaffected="other runs", cure=f"seawall runs show {self.id}", workflow=self.workflow.name,
        )  # fmt: skip
        self._end(RunStatus.DEAD, result=None, error=reason, cause=cause)

    def unburied(self) -> None:
        """Even its end as dead is refused. It stays in hand, so that it isn't read and run again and again."""
        log.critical("a dead run can't be stored", extra=fields(run=self.id))
        self._bench.spells.saw(
            "run-unburied", f"run {self.id} of workflow {self.workflow.name} is dead, and the store refuses to say so",
            unaffected="other runs", cure="look for constraints or triggers that were added to the schema",
            workflow=self.workflow.name,
        )  # fmt: skip

    def cancel(self, order: Order) -> None:
        """Have its workflow end: what it awaits raises ``CancelledError``, its ``finally`` may still take steps, and
        after `cancel_grace_s` it is ended whatever its code does."""
        if self._order is not None or self._ended or self.dropped or self.task is None or self.task.done():
            return
        self._order = order
        if not self._over:
            self._grace = self._bench.deadlines.set(self.task, self._bench.grace_s, self, of_run=True)
        asyncio.Task.cancel(self.task)

    def _end_cancelled(self, order: Order, failure: BaseException | None) -> None:
        unquiet = failure is not None and not isinstance(failure, asyncio.CancelledError)
        self._end_ordered(order, f"; while it ended: {said(failure)}" if failure is not None and unquiet else "")

    def _end_ordered(self, order: Order, more: str) -> None:
        status, cause = RunStatus(status_of(order.ends_as)), cause_of(order.ends_as)
        why = order.why + more
        level = logging.INFO if status is RunStatus.CANCELLED else logging.WARNING
        log.log(level, f"run is {status.word}", extra=self.fields(why=why[:ERROR_CHARS_MAX]))
        self._end(status, result=None, error=why, cause=cause)

    def drop(self) -> None:
        """Forget it without a trace: somebody else owns its shard, or this process stops."""
        self.dropped = True
        if self.task is not None:
            asyncio.Task.cancel(self.task)

    def _arguments(self) -> tuple[Event, Context]:
        row = self._row
        id = str(self.event_id)  # the same as `id_text`, by the driver's own C code
        event = Event(
            id=id, type=row.type, tenant=row.tenant, source=row.source, received_at=row.received_at,
            headers=row.headers, body=row.body,
        )  # fmt: skip
        return event, Context(self, event_id=id, workflow=self.workflow.name, chance=self._bench.chance)

    def _failed(self, error: BaseException, *, late: bool = False) -> None:
        retry = self.workflow.retry
        text = said(error)
        if self.attempt >= retry.attempts or not may_retry(error):
            log.warning("run failed", extra=self.fields(error=text[:ERROR_CHARS_MAX]))
            cause = Cause.TIMEOUT if late else Cause.ATTEMPTS if may_retry(error) else Cause.NON_RETRYABLE
            self._end(RunStatus.FAILED, result=None, error=text, cause=cause)
            return
        delay_s = retry.delay_s(self.attempt, error, self._bench.chance)
        log.info("run is tried again", extra=self.fields(error=text[:ERROR_CHARS_MAX], delay_s=round(delay_s, 3)))
        self._bench.tried_again()
        self._ended = True
        self._bench.flusher.again(
            self,
            Again(
                self.id,
                self.attempt,
                int(delay_s * 1000),
                self._row.waits,
                self._row.wakes,
                failed=True,
                started_us=self._started_us,
            ),
        )

    def _end(self, status: RunStatus, *, result: bytes | None, error: str | None, cause: Cause | None = None) -> None:
        if error is not None:
            (error,) = text_array([error[:ERROR_CHARS_MAX]])
        self._ended = self.final = True
        # What an earlier execution began, this one may not have come to: worth a look where it didn't end well.
        self.bereaves = self._begets or (status is not RunStatus.SUCCEEDED and self.held.may_have_memos(self._row))
        self._bench.counted(status)
        end = End(self.id, with_cause(status, cause), self.attempt, result, error, self._started_us)
        self._bench.flusher.end(self, end)

    def fields(self, **values: object) -> dict[str, object]:
        return fields(run=self.id, workflow=self.workflow.name, attempt=self.attempt, **values)


def _is_async(function: Callable[..., Any]) -> bool:
    code = getattr(function, "__code__", None)
    if code is not None:
        return bool(code.co_flags & _COROUTINE)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004
