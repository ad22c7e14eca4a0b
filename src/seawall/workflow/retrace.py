"""Calls a workflow's code against what is kept of a run, without effects: does it find its way to where the run is?

Kept steps give what they gave. At a step that isn't kept, a wait that isn't over or a moment that hasn't come, the task
that came there stands still; when every task of the run does, or the workflow has ended, what was asked for is compared
with what is kept. Nothing is called but the workflow itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, NamedTuple, NoReturn

from seawall.kernel.error import said
from seawall.kernel.seam.approval import Question, Request
from seawall.kernel.seam.child import Begin, Child
from seawall.kernel.seam.pulse import Pulse
from seawall.kernel.seam.run import Memo, step_parts
from seawall.kernel.seam.ticket import Reply
from seawall.kernel.seam.wait import Heard, Wanted
from seawall.workflow.app import Workflow
from seawall.workflow.branch import Branch, at_rest, current, task_factory
from seawall.workflow.context import Context
from seawall.workflow.event import Event
from seawall.workflow.patch import PATCH
from seawall.workflow.retry import StepFailed

REST_S: Final = 5.0
"""How long a workflow may take between two steps."""

END_S: Final = 1.0
LOOK_S: Final = 0.002
SOON: Final = 20
"""So many rounds of the loop are waited before a clock is: most code is at rest by then."""

NAMES_MAX: Final = 5

Key = tuple[str, int]


class Kept(NamedTuple):
    """What is kept of a step or wait."""

    name: str  # with the task that took it, as the run seam has it
    nth: int
    result: bytes | None  # None: a wait that is open
    failed: bool
    started_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A run, as far as it has come."""

    id: int
    attempt: int  # failed ones so far
    over: bool
    failed: bool  # it is over, and no success
    now_us: int  # by the store's clock
    event: Event
    kept: Sequence[Kept]


class Severity(IntEnum):
    """What a finding means for runs that are under way."""

    DIFFERS = 1  # they go on, otherwise than before
    BREAKS = 2  # they fail, or do something again or at the wrong time


@dataclass(frozen=True, slots=True)
class Finding:
    """What the code makes of a history."""

    severity: Severity
    what: str


class Retracing:
    """The run seam of one history; see WaitingRun."""

    def __init__(self, history: History) -> None:
        self.id = history.id
        self.attempt = history.attempt + 1
        self.unasked = {(kept.name, kept.nth): kept for kept in history.kept}
        self.asked: list[Kept] = []
        self.new: list[Key] = []  # asked for, and not kept
        self.still: set[Branch] = set()  # tasks that have come as far as the run has
        self._now_us = history.now_us

    def recall(self, name: str, nth: int) -> Memo | None:
        kept = self.unasked.pop((name, nth), None)
        if kept is not None:
            self.asked.append(kept)
        elif not name.startswith(PATCH):
            self.new.append((name, nth))
        return None if kept is None or kept.result is None else Memo(kept.result, kept.failed)

    def has_more(self) -> bool:
        return bool(self.unasked)

    async def pulse(self, name: str, nth: int, every_s: float) -> Pulse:
        await self._stand_still()

    async def call(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], *, timeout_s: float,
        pulse: Pulse | None = None,
    ) -> object:  # fmt: skip
        await self._stand_still()

    def keep(
        self, name: str, nth: int, result: bytes, *, failed: bool, attempt: int, started_us: int, wait: bool
    ) -> Awaitable[None] | None:
        return asyncio.sleep(0) if wait else None

    async def pause(self, seconds: float) -> None:
        await self._stand_still()

    def reply(self, reply: Reply) -> None:
        """Nobody hears it."""

    def now_us(self) -> int:
        return self._now_us

    def store_us(self) -> int:
        return self._now_us

    async def rest(self, until_us: int, *, look_s: float = math.inf) -> None:
        # Who slept beside others may have been woken by them: what is kept beyond says that it was over.
        if until_us > self._now_us:
            await self._stand_still()

    async def listen(self, name: str, nth: int, wanted: Wanted) -> Heard:
        await self._stand_still()

    async def start_child(self, name: str, nth: int, begin: Begin) -> Child | None:
        await self._stand_still()

    async def ask(self, name: str, nth: int, question: Question) -> Request:
        # Open: what comes before it is waited for goes on.
        return Request(
            id=0, nonce=b"", question=question.text, key=0, people=question.people, asked_us=self._now_us,
            expires_us=self._now_us + question.within_us,
        )  # fmt: skip

    def link(self, request: Request, person: int) -> str:
        return f"https://retraced.invalid/{person}"

    def __getattr__(self, name: str) -> Callable[..., Awaitable[NoReturn]]:
        """What else the seam may have leads beyond what is kept."""
        if name.startswith("_"):
            raise AttributeError(name)

        async def stand_still(*args: object, **kwargs: object) -> NoReturn:
            await self._stand_still()

        return stand_still

    async def _stand_still(self) -> NoReturn:
        here = current.get()
        assert here is not None, "only a run's own code comes here"
        self.still.add(here.parent if here.nth >= 0 and here.parent is not None else here)
        while True:
            await asyncio.Event().wait()


async def retrace(workflow: Workflow, history: History) -> list[Finding]:
    """What the workflow's code makes of a history; nothing when the run would go on, or end, as it did.

    Sets the loop's task factory: run it where nothing else does.
    """
    asyncio.get_running_loop().set_task_factory(task_factory)
    run = Retracing(history)
    context = Context(
        run, event_id=history.event.id, workflow=workflow.name, chance=random.Random(0)
    )  # fmt: skip

    async def drive() -> None:
        current.set(context.branch)
        await workflow.function(history.event, context)

    # No task of a run, though it is one: what begins the workflow has no place in it.
    task = asyncio.create_task(drive())
    before = asyncio.all_tasks() - {task}
    try:
        rested = await _rested(task, run, context.branch)
        return _findings(history, run, _error(task), rested=rested)
    finally:
        await _swept(before)


async def _rested(task: asyncio.Task[None], run: Retracing, root: Branch) -> bool:
    """Wait until nothing goes on without what isn't kept; False: that takes too long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(REST_S):
            rounds = 0
            while not (task.done() or (run.still and at_rest(root, run.still))):
                await asyncio.sleep(0 if rounds < SOON else LOOK_S)
                rounds += 1
            return True
    return False


async def _swept(before: set[asyncio.Task[Any]]) -> None:
    """End what the workflow began; code that goes on all the same is left to itself."""
    tasks = asyncio.all_tasks() - before - {asyncio.current_task()}
    for task in tasks:
        asyncio.Task.cancel(task)
    if tasks:
        await asyncio.wait(tasks, timeout=END_S)


def _error(task: asyncio.Task[None]) -> BaseException | None:
    return task.exception() if task.done() and not task.cancelled() else None


def _findings(history: History, run: Retracing, error: BaseException | None, *, rested: bool) -> list[Finding]:
    found: list[Finding] = []
    left = [key for key, kept in run.unasked.items() if not kept.name.startswith(PATCH)]
    if not rested:
        found.append(Finding(Severity.BREAKS, f"takes longer than {REST_S:g} s between two steps"))
    # A step's failure is what the history says; a run that failed may have raised just this.
    if error is not None and not isinstance(error, StepFailed) and not history.failed:
        found.append(Finding(Severity.BREAKS, f"raises {said(error)}"))
    elif run.new and left:
        what = f"asks for {_names(run.new)}, which isn't kept, before it has asked for {_names(left)}"
        found.append(Finding(Severity.BREAKS, f"{what}: done again, or at the wrong time"))
    elif left:
        found.append(Finding(Severity.DIFFERS, f"never asks for {_names(left)}"))
    elif run.new and history.over:
        found.append(Finding(Severity.DIFFERS, f"would go on with {_names(run.new)}"))
    found += [Finding(Severity.DIFFERS, what) for what in _turned(run.asked)]
    return found


def _turned(asked: Sequence[Kept]) -> list[str]:
    """What a task asks for in another order than that in which it was done."""
    last: dict[str, Kept] = {}
    found = []
    for kept in asked:
        task = step_parts(kept.name)[1]
        former = last.get(task)
        if former is not None and former.started_us > kept.started_us > 0:
            names = _names([(kept.name, kept.nth)]), _names([(former.name, former.nth)])
            found.append(f"asks for {names[0]} after {names[1]}, which was done later")
        last[task] = kept
    return found[:NAMES_MAX]


def _names(keys: Sequence[Key]) -> str:
    shown = [f"{step_parts(name)[0]}{f' ({nth + 1}.)' if nth else ''}" for name, nth in keys[:NAMES_MAX]]
    more = len(keys) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
