"""Which of a run's tasks takes a step.

A workflow may do things side by side. The order in which its tasks arrive at their steps is the world's the first time
(who answers first) and the code's in a replay (what is kept returns at once), so a count over the whole run would hand
one task what another one had kept. A task is told by its place: what made it, which coroutine it is, and the how
manieth of these there. Code that is the same makes the same tasks in the same order, whatever the world does.

Tasks of libraries have other coroutines, so they shift nobody's count; a coroutine that is renamed is another one, as
a step is. Known limit: ``asyncio.wait_for`` makes a task of its own up to Python 3.11 and none later, so a step within
it is done again when a run goes on under the other.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
from collections.abc import Container, Coroutine, Generator
from typing import Any

import msgspec

from seawall.kernel.seam.run import MARK, step_parts

PATH_CHARS_MAX = 200
"""A longer path, and one that can't be printed, is kept by its hash."""


class Branch(msgspec.Struct, eq=False):
    """A run's own task (no parent), a task that it began, or a step under way, which may begin tasks too.

    Args:
        name: Of the coroutine; of the step, in parentheses, when ``nth`` is given.
        run: The run's number, of a run's own task. Not the task, which would hold its context, and so itself.
    """

    parent: Branch | None = None
    name: str = ""
    nth: int = -1
    run: int = 0
    _path: str | None = None  # made when it is needed: most branches take no step
    _counts: dict[str, int] | None = None
    _began: dict[str, int] | None = None
    tasks: set[Branch] | None = None  # begun here, and not ended yet
    busy: int = 0  # calls of the context that are under way here: its next tries and its waits in memory included

    @property
    def root(self) -> Branch:
        """The run's own task."""
        here = self
        while here.parent is not None:
            here = here.parent
        return here

    @property
    def run_id(self) -> int:
        """Of the run that it is of."""
        return self.root.run

    @property
    def path(self) -> str:
        """Where it is in its run; "" for the run's own task."""
        unnamed = []
        here: Branch | None = self
        while here is not None and here._path is None:
            unnamed.append(here)
            here = here.parent
        above = "" if here is None or here._path is None else here._path
        for branch in reversed(unnamed):  # a task may begin the next one thousands deep: not by recursion
            label = branch.name if branch.nth < 0 else f"({step_parts(branch.name)[0]}#{branch.nth})"
            above = branch._path = _kept(f"{above}/{label}" if above else label)
        return above

    def occurrence(self, name: str) -> tuple[str, int]:
        """The next step of this name here, as it is kept: its name with the branch, and its number from 0."""
        counts = self._counts
        if counts is None:
            counts = self._counts = {}
        nth = counts.get(name, 0)
        counts[name] = nth + 1
        return (name if self.parent is None else f"{name}{MARK}{self.path}"), nth

    def began(self, coroutine: str) -> Branch:
        """The branch of a task that begins here."""
        if self._began is None:
            self._began = {}
        nth = self._began.get(coroutine, 0)
        self._began[coroutine] = nth + 1
        return Branch(self, f"{coroutine}#{nth}")


current: contextvars.ContextVar[Branch | None] = contextvars.ContextVar("branch", default=None)
"""The branch of the code that runs. None: no run's."""


def task_factory(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any] | Generator[Any, None, Any], **given: Any
) -> asyncio.Task[Any]:
    """For ``loop.set_task_factory``: a task that a run begins gets its branch. One whose context was chosen by its
    maker has what is in there."""
    here = current.get()
    if here is not None and given.get("context") is None:
        branch = here.began(getattr(coroutine, "__qualname__", ""))
        context = given["context"] = contextvars.copy_context()
        context.run(current.set, branch)
        task = asyncio.Task(coroutine, loop=loop, **given)
        _follow(here, branch, task)
        return task
    return asyncio.Task(coroutine, loop=loop, **given)


def _follow(here: Branch, branch: Branch, task: asyncio.Task[Any]) -> None:
    tasks = here.tasks
    if tasks is None:
        tasks = here.tasks = set()
    tasks.add(branch)
    task.add_done_callback(lambda _: tasks.discard(branch))


def at_rest(here: Branch, resting: Container[Branch]) -> bool:
    """Whether the run that ``here`` is of has nothing to do: each task of it rests, but those that others were begun
    in, which are taken to wait for them, unless they are in a call of the context themselves. Tasks that a step began
    and left don't count: a replay doesn't begin them."""
    tasks = [here.root]
    while tasks:
        task = tasks.pop()
        if task not in resting and (task.busy or not task.tasks):
            return False
        tasks.extend(task.tasks or ())
    return True


def _kept(path: str) -> str:
    if len(path) <= PATH_CHARS_MAX and path.isprintable():
        return path
    return hashlib.blake2b(path.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
