"""What a workflow does with the world: steps that are kept, and a reply."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeVar, overload

import msgspec

from seawall.kernel import limit
from seawall.kernel.error import Unstorable, said
from seawall.kernel.seam.approval import AskingRun
from seawall.kernel.seam.run import Memo
from seawall.kernel.seam.ticket import Reply
from seawall.workflow.approval import Approvals
from seawall.workflow.branch import Branch, current
from seawall.workflow.heartbeat import Heartbeats, beaten, checked_heartbeat
from seawall.workflow.retry import NEVER, NonRetryable, Retry, StepFailed, may_retry, retry_after_s
from seawall.workflow.value import as_json
from seawall.workflow.wait import checked_name

T = TypeVar("T")

PAUSE_MAX_S = 60.0
"""A step's longest wait in memory, where its run holds a slot. A longer one ends the attempt: the run waits in the
store."""

USUAL_S: Final = float("60")
"""A try's longest time when nothing is said. Known by its identity: who writes 60 means it, also beside heartbeats."""

LONG_STEP_S: Final = 86_400.0
"""The same for a step that has heartbeats."""

MESSAGE_CHARS_MAX = 2000

_SECONDS = (int, float)  # isinstance() with `int | float` makes a new type in each step
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Unkeepable(NonRetryable):
    """A value that can't be kept: no JSON, or larger than `limit.RESULT_BYTES_MAX`."""


def encoded(value: object, *what: str) -> bytes:
    """A value as JSON.

    Raises:
        Unkeepable: It is no JSON, or too large; the words of ``what`` name it.
    """
    try:
        return as_json(value, limit.RESULT_BYTES_MAX, *what)
    except ValueError as error:
        raise Unkeepable(str(error)) from error


class Context(Approvals, Heartbeats):
    """One execution of one run, in its workflow's hands."""

    __slots__ = ("_chance", "_event_id", "_replied", "_workflow")

    def __init__(self, run: AskingRun, *, event_id: str, workflow: str, chance: random.Random) -> None:
        super().__init__(run)
        self._event_id = event_id
        self._workflow = workflow
        self._chance = chance
        self._replied = False

    @property
    def run_id(self) -> int:
        """The run's number in the store, for links and logs. To make an effect idempotent use ``idempotency_key``."""
        return self._run.id

    @property
    def attempt(self) -> int:
        """Counts from 1: how often the workflow has been called for this run."""
        return self._run.attempt

    def lay(self, over: Callable[[AskingRun], AskingRun]) -> None:
        """Speak to the run through something else from now on. Not for workflows: `seawall.testing` does."""
        self._run = over(self._run)

    def idempotency_key(self, step: str) -> str:
        """32 hex digits that are the same in every attempt of this event's workflow, and in no other: give it to a
        service, and a step that is repeated after a crash has its effect once.

        Made from the event's id, not the run's number: a store that was restored may use a number again.
        """
        text = "\0".join((self._event_id, self._workflow, step))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    @overload
    async def step(
        self,
        function: Callable[..., Awaitable[T]],
        /,
        *args: Any,
        name: str | None = None,
        retry: Retry | None = None,
        timeout_s: float = USUAL_S,
        heartbeat_s: float | None = None,
        pure: bool = False,
        **kwargs: Any,
    ) -> T: ...

    @overload
    async def step(
        self,
        function: Callable[..., T],
        /,
        *args: Any,
        name: str | None = None,
        retry: Retry | None = None,
        timeout_s: float = USUAL_S,
        heartbeat_s: float | None = None,
        pure: bool = False,
        **kwargs: Any,
    ) -> T: ...

    async def step(
        self,
        function: Callable[..., Any],
        /,
        *args: Any,
        name: str | None = None,
        retry: Retry | None = None,
        timeout_s: float = USUAL_S,
        heartbeat_s: float | None = None,
        pure: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Call ``function`` once in this run's life, however often the workflow is called again.

        Args:
            function: ``async def``, or a plain function, which runs in a thread.
            args, kwargs: For the function.
            name: Under which its value is kept, with the task that takes the step (the run's own, or one that was begun
                in it: branch.py) and the count of this name there. Default: the function's name.
            retry: How often it is tried within this attempt of the run. None: once; the run's own retry repeats it.
                A wait of more than `PAUSE_MAX_S` isn't made in memory: the step fails then, and asks the run to wait.
            timeout_s: One try's longest time. A thread can't be stopped: its effect may come later. Default: a minute,
                or a day with ``heartbeat_s``.
            heartbeat_s: For a long step, which calls ``ctx.heartbeat()``: the longest time between two such calls.
                Silent for longer, a try has failed (``HeartbeatMissed``).
            pure: Doing it again gives the same value and no effect, so the workflow needn't wait until it is kept.

        Returns:
            What the function returned, as it looks after JSON (a tuple comes as a list, a dataclass as a dict): a
            replay gets the very same.

        Raises:
            StepFailed: It raised to the end of its tries, took too long, or returned what can't be kept.
            ValueError, TypeError: ``name``, ``timeout_s`` or ``heartbeat_s`` is no such thing; nothing was called.

        Durability: its value is on stable storage before return (not with ``pure``).
        Cancelled: the run is being put away; what the function did stands, and it may be called again.
        """
        run = self._run
        name = _name_of(function) if name is None else checked_name(name)
        if heartbeat_s is not None:
            heartbeat_s = checked_heartbeat(name, heartbeat_s)
            timeout_s = LONG_STEP_S if timeout_s is USUAL_S else timeout_s
        if not (isinstance(timeout_s, _SECONDS) and timeout_s > 0):
            raise ValueError(f"step {name}: timeout_s={timeout_s!r}: seconds above 0 are needed")
        branch = self._here()
        key, nth = branch.occurrence(name)
        memo = run.recall(key, nth)
        if memo is not None:
            return _recalled(name, memo)
        branch.busy += 1
        try:
            started_us = run.now_us()
            attempt = 0
            while True:
                attempt += 1
                # What a step does is a branch of its own: a replay doesn't do it, so nothing outside may count it.
                token = current.set(Branch(branch, key, nth))
                try:
                    if heartbeat_s is None:
                        value = await run.call(function, args, kwargs, timeout_s=timeout_s)
                    else:
                        pulse = await run.pulse(key, nth, heartbeat_s)
                        call = partial(run.call, function, args, kwargs, timeout_s=timeout_s)
                        value = await beaten(call, pulse)
                    data = encoded(value, "the result of step", name)
                    break
                except Exception as error:
                    # The user's function is foreign: whatever it raises is this step's failure, not ours.
                    delay_s = self._next_try_s(error, attempt, retry or NEVER)
                    if delay_s is None or delay_s > PAUSE_MAX_S:
                        failed = self._failed(name, key, nth, error, attempt, started_us, after_s=delay_s or 0.0)
                        raise await failed from error
                finally:
                    current.reset(token)
                await run.pause(delay_s)
            kept = run.keep(key, nth, data, failed=False, attempt=attempt, started_us=started_us, wait=not pure)
            if kept is not None:
                try:
                    await kept
                except Unstorable as error:
                    raise _step_failed(name, error, attempt, retryable=False) from error
        finally:
            branch.busy -= 1
        return _decode(data)

    def respond(self, value: object, status: int = 200, content_type: str | None = None) -> None:
        """Answer whoever waits on this event. The event's first reply wins; a later one changes nothing.

        Args:
            value: Bytes and text are sent as they are, anything else as JSON.
            status: HTTP status of 200 to 599.
            content_type: Default: by the value (``application/octet-stream``, ``text/plain; charset=utf-8``,
                ``application/json``).

        Raises:
            ValueError, Unkeepable: It can't be a reply; nothing was sent.

        Durability: it joins the next flush at once; a crash before that flush loses it together with the run's end,
            so that the workflow is called again and replies again.
        """
        if not isinstance(status, int) or not 200 <= status <= 599:
            raise ValueError(f"respond(status={status!r}): a whole number of 200 to 599 is needed")
        body, usual = _reply_body(value)
        kind = content_type if content_type is not None else usual
        if not kind.isascii() or not kind.isprintable() or not 0 < len(kind) <= 200:
            raise ValueError(f"respond(content_type={kind!r}): 1 to 200 printable ASCII characters are needed")
        if self._replied:
            return
        self._replied = True
        self._run.reply(Reply(status=status, content_type=kind, body=body))

    def _next_try_s(self, error: Exception, attempt: int, retry: Retry) -> float | None:
        """Seconds to wait before the next try, or None when there is none."""
        if attempt >= retry.attempts or not may_retry(error):
            return None
        return retry.delay_s(attempt, error, self._chance)

    async def _failed(
        self, name: str, key: str, nth: int, error: Exception, attempt: int, started_us: int, *, after_s: float
    ) -> StepFailed:
        """Keep the failure, so that a workflow which goes on after it takes the same way in a replay. ``after_s``: how
        long the run is to wait at least before it tries again."""
        failure = _step_failed(name, error, attempt, retryable=may_retry(error))
        failure.retry_after_s = max(failure.retry_after_s, after_s)
        data = _encode(
            {
                "type": failure.type,
                "message": failure.message,
                "retryable": failure.retryable,
                "attempts": attempt,
            }
        )
        kept = self._run.keep(key, nth, data, failed=True, attempt=attempt, started_us=started_us, wait=True)
        assert kept is not None
        await kept
        return failure


def _step_failed(name: str, error: Exception, attempt: int, *, retryable: bool) -> StepFailed:
    type_name, _, text = said(error).partition(": ")
    return StepFailed(
        step=name,
        type=type_name,
        message=text.encode("utf-8", "replace").decode()[:MESSAGE_CHARS_MAX],
        attempts=attempt,
        retryable=retryable,
        retry_after_s=retry_after_s(error),
    )


def _recalled(name: str, memo: Memo) -> object:
    value = _decode(memo.result)
    if not memo.failed:
        return value
    raise StepFailed(
        step=name,
        type=value["type"],
        message=value["message"],
        attempts=value["attempts"],
        retryable=value["retryable"],
    )


def _name_of(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", None)
    if not isinstance(name, str) or name == "<lambda>":
        raise TypeError(f"step {function!r} has no name to keep its value under: give it one with name=")
    return name if len(name) <= limit.NAME_CHARS_MAX else name[: limit.NAME_CHARS_MAX]


def _reply_body(value: object) -> tuple[bytes, str]:
    if isinstance(value, bytes | bytearray | memoryview):
        body, kind = bytes(value), "application/octet-stream"
    elif isinstance(value, str):
        body, kind = value.encode("utf-8", "replace"), "text/plain; charset=utf-8"
    else:
        return encoded(value, "the reply"), "application/json"
    if len(body) > limit.RESULT_BYTES_MAX:
        raise Unkeepable(f"the reply is {len(body)} bytes; at most {limit.RESULT_BYTES_MAX} are kept")
    return body, kind
