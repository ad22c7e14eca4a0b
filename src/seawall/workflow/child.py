"""Runs that a run begins: one whose end it waits for, or one that goes on by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from seawall.kernel import limit
from seawall.kernel.error import Unstorable
from seawall.kernel.seam.child import Begin, Child, ParentRun
from seawall.kernel.status import RunStatus
from seawall.workflow.patch import Patches
from seawall.workflow.retry import NonRetryable
from seawall.workflow.value import as_json
from seawall.workflow.wait import LOOK_S, checked_name

FIRST_LOOK_US = 300_000
"""A child that ends so soon is waited for in memory: to be put away costs more."""

LOOK_MIN_US, LOOK_MAX_US = 2_000_000, 300_000_000
"""How long a parent stays put away before it looks by itself. Mostly its child's worker wakes it before."""

OnParentEnd = Literal["cancel", "leave"]

NOTHING = msgspec.Raw(b"null")

_encode = msgspec.json.Encoder().encode


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a child."""

    run: int
    status: int
    result: msgspec.Raw = NOTHING  # not "or None": msgspec writes that as well, and reads nothing but null then
    error: str | None = None


_decode = msgspec.json.Decoder(Outcome).decode


class RunFailed(NonRetryable):
    """A run that was waited for has ended otherwise than well. Uncaught, it fails the run that waited, for good."""

    def __init__(self, *, workflow: str, run: int, status: str, error: str | None) -> None:
        self.workflow = workflow
        self.run = run
        self.status = status  # failed, cancelled or dead
        self.error = error
        super().__init__(f"run {run} of workflow {workflow} is {status}: {error or 'it says nothing'}")


class Children(Patches):
    """The part of a context that begins other runs."""

    __slots__ = ("_begun", "_unended")
    _run: ParentRun

    def __init__(self, run: ParentRun) -> None:
        super().__init__(run)
        self._begun = 0  # calls of run and start: a replay makes the same ones
        self._unended = 0  # those of them that nothing is kept of

    async def run(
        self, workflow: str | Callable[..., Any], payload: object = None, *, name: str | None = None,
        on_parent_end: OnParentEnd = "cancel",
    ) -> Any:  # fmt: skip
        """Begin a run of another workflow and wait, without a slot, for its end; as in ``sleep`` this run is put away.

        The other one is of the same tenant, has ``payload`` as its event's JSON, and its own retries and queue. It
        begins once, however often this workflow is called again.

        Args:
            workflow: Its name, or its function when that has the workflow's name.
            payload: What JSON can say, at most `limit.RESULT_BYTES_MAX`.
            name: Under which it is remembered, as for a step.
            on_parent_end: What becomes of the other run when this one ends before it, however it ends (cancelled,
                failed, late, or well: it may not have waited to the end): ``cancel`` or ``leave``. It is Temporal's
                ParentClosePolicy (REQUEST_CANCEL, ABANDON). Nobody hears then what a run says that was waited for, so
                it is cancelled by default. It goes on where it was when this one is tried again and comes here.

        Returns:
            What it returned, as it looks after JSON.

        Raises:
            RunFailed: It failed, was cancelled, or is dead. Kept as a step's failure is: this run's next attempt asks
                how it stands by then.
            RuntimeError: No version of that workflow takes new runs; or a step called it.
            NonRetryable: Runs are nested deeper than ``worker.nesting_max``, or this one begins more than
                ``worker.children_max``.
            ValueError, TypeError: That is no workflow's name, no JSON, or no such word.

        Durability: the other run is committed before it is waited for. What came of it is kept before return.
        """
        called, begin = self._begin(workflow, payload, on_parent_end)
        branch = self._waiting(called)
        key, nth = branch.occurrence(checked_name(name or f"ctx.run {called}"))
        memo = self._run.recall(key, nth)
        if memo is not None:
            return _said(called, _decode(memo.result))
        branch.busy += 1  # as for a wait: nothing beside it may put the run away before the other one has begun
        try:
            outcome = await self._end_of(key, nth, self._in_turn(begin))
        finally:
            branch.busy -= 1
        return _said(called, outcome)

    async def start(
        self, workflow: str | Callable[..., Any], payload: object = None, *, name: str | None = None,
        on_parent_end: OnParentEnd = "leave",
    ) -> int:  # fmt: skip
        """As ``run``, without waiting: returns the other run's number. It goes on when this one ends, by default."""
        called, begin = self._begin(workflow, payload, on_parent_end)
        branch = self._waiting(called)
        key, nth = branch.occurrence(checked_name(name or f"ctx.start {called}"))
        memo = self._run.recall(key, nth)
        if memo is not None:
            return _decode(memo.result).run
        branch.busy += 1
        try:
            child = await self._child(key, nth, self._in_turn(begin))
            return (await self._kept(key, nth, Outcome(run=child.run, status=child.status))).run
        finally:
            branch.busy -= 1

    def _begin(
        self, workflow: str | Callable[..., Any], payload: object, on_parent_end: OnParentEnd
    ) -> tuple[str, Begin]:  # fmt: skip
        if on_parent_end not in ("cancel", "leave"):
            raise ValueError(f'on_parent_end={on_parent_end!r}: "cancel" or "leave" is needed')
        self._begun += 1
        called = _called(workflow)
        data = as_json(payload, limit.RESULT_BYTES_MAX, "the payload")
        with_parent = on_parent_end == "cancel"
        return called, Begin(workflow=called, payload=data, with_parent=with_parent, number=self._begun, turn=0)

    def _in_turn(self, begin: Begin) -> Begin:
        self._unended += 1
        return msgspec.structs.replace(begin, turn=self._unended)

    async def _end_of(self, key: str, nth: int, begin: Begin) -> Outcome:
        run = self._run
        while True:
            child = await self._child(key, nth, begin)
            if RunStatus.SUCCEEDED <= child.status <= RunStatus.DEAD:
                result = NOTHING if child.result is None else msgspec.Raw(child.result)
                outcome = Outcome(run=child.run, status=child.status, result=result, error=child.error)
                return await self._kept(key, nth, outcome)
            begin = msgspec.structs.replace(begin, seen=True)
            age_us = child.now_us - child.began_us
            # Below 0: by the clock of another server. Who is taken for young is waited for with a slot.
            young = 0 <= age_us < FIRST_LOOK_US
            wait_us = FIRST_LOOK_US if young else min(LOOK_MAX_US, max(LOOK_MIN_US, age_us // 2))
            await run.rest(run.store_us() + wait_us, look_s=LOOK_S)

    async def _child(self, key: str, nth: int, begin: Begin) -> Child:
        child = await self._run.start_child(key, nth, begin)
        if child is None:
            raise RuntimeError(f"workflow {begin.workflow} takes no new runs: no worker has it, or it is frozen")
        return child

    async def _kept(self, key: str, nth: int, outcome: Outcome) -> Outcome:
        run = self._run
        failed = outcome.status > RunStatus.SUCCEEDED and outcome.status != RunStatus.CANCELLING
        done = run.keep(key, nth, _encode(outcome), failed=failed, attempt=1, started_us=run.now_us(), wait=True)
        assert done is not None
        try:
            await done
        except Unstorable as error:
            raise RuntimeError(f"what came of run {outcome.run} can't be kept: {error}") from error
        return outcome


def _called(workflow: object) -> str:
    name = workflow if isinstance(workflow, str) else getattr(workflow, "__name__", None)
    if not isinstance(name, str) or not 0 < len(name) <= limit.NAME_CHARS_MAX or not name.isprintable():
        raise TypeError(f"{workflow!r} is no workflow: give its name, or its function")
    return name


def _said(workflow: str, outcome: Outcome) -> Any:
    if outcome.status == RunStatus.SUCCEEDED:
        return msgspec.json.decode(outcome.result)
    status = RunStatus(outcome.status).word
    raise RunFailed(workflow=workflow, run=outcome.run, status=status, error=outcome.error)
