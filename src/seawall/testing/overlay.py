"""What stands between a workflow and the worker in a rehearsal: stand-ins for steps, and waits in memory by the test's
clock. Everything else goes on to the worker's own execution.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from seawall.kernel.clock import Clock
from seawall.kernel.seam.approval import AskingRun
from seawall.kernel.seam.pulse import Pulse
from seawall.kernel.seam.run import step_parts
from seawall.workflow import Context, Event
from seawall.workflow.app import Workflow
from seawall.workflow.branch import Branch, at_rest, current

Function = Callable[..., Any]


@dataclass(slots=True, eq=False)
class Replaced:
    """A step's stand-in, and what it was called with."""

    step: str | Function
    play: Function
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)


class Script:
    """What all runs of one rehearsal share."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._replaced: list[Replaced] = []
        self._resting: dict[int, dict[Branch, int]] = {}  # by run: tasks that wait in memory, and until when
        self._pauses: set[tuple[int, asyncio.Future[None]]] = set()

    def laid(self, workflow: Workflow) -> Workflow:
        """The workflow, with this between it and whoever executes it."""

        async def played(event: Event, ctx: Context) -> Any:
            ctx.lay(lambda run: cast(AskingRun, Overlay(run, self)))
            return await workflow.function(event, ctx)

        return replace(workflow, function=played)

    def replace(self, step: str | Function, play: Function) -> Replaced:
        """Have ``play`` called in a step's place; the newest stand-in of a step is in force."""
        made = Replaced(step, play)
        self._replaced.append(made)
        return made

    def stand_in(self, function: Function) -> Replaced | None:
        """Who plays the step that is being called here."""
        here = current.get()
        name = step_parts(here.name)[0] if here is not None and here.nth >= 0 else ""
        return next((r for r in reversed(self._replaced) if r.step is function or r.step == name), None)

    # ── waits in memory ──

    async def pause(self, run_id: int, seconds: float) -> None:
        until_us = self._clock.wall_us() + math.ceil(seconds * 1_000_000)
        passed = asyncio.get_running_loop().create_future()
        pause = (until_us, passed)
        self._pauses.add(pause)
        self.rests(run_id, until_us)
        try:
            await passed
        finally:
            self._pauses.discard(pause)
            self.rises(run_id)

    def rests(self, run_id: int, until_us: int) -> None:
        """The task that is under way waits in memory."""
        self._resting.setdefault(run_id, {})[_here()] = until_us

    def rises(self, run_id: int) -> None:
        """It does no more."""
        resting = self._resting.get(run_id, {})
        resting.pop(_here(), None)
        if not resting:
            self._resting.pop(run_id, None)

    def passed(self) -> None:
        """Time has passed: let go on whose moment has come."""
        now_us = self._clock.wall_us()
        for until_us, passed in self._pauses:
            if until_us <= now_us and not passed.done():
                passed.set_result(None)

    def calm(self, run_id: int) -> bool:
        """Whether a run in hand does nothing but wait for time to pass."""
        resting = self._resting.get(run_id)
        if not resting or min(resting.values()) <= self._clock.wall_us():
            return False
        return at_rest(next(iter(resting)), resting)

    @property
    def next_us(self) -> int | None:
        """The next moment that a run in hand waits for."""
        return min((until for resting in self._resting.values() for until in resting.values()), default=None)


def _here() -> Branch:
    here = current.get()
    assert here is not None, "only a run's own code waits"
    return here


class Overlay:
    """The run seam of one execution."""

    def __init__(self, run: AskingRun, script: Script) -> None:
        self._run = run
        self._script = script

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)

    async def call(
        self, function: Function, args: Sequence[Any], kwargs: Mapping[str, Any], *, timeout_s: float,
        pulse: Pulse | None = None,
    ) -> object:  # fmt: skip
        stand_in = self._script.stand_in(function)
        if stand_in is not None:
            stand_in.calls.append((tuple(args), dict(kwargs)))
            function = stand_in.play
        return await self._run.call(function, args, kwargs, timeout_s=timeout_s, pulse=pulse)

    async def pause(self, seconds: float) -> None:
        await self._script.pause(self._run.id, seconds)

    async def rest(self, until_us: int, *, look_s: float = math.inf) -> None:
        self._script.rests(self._run.id, until_us)
        try:
            await self._run.rest(until_us, look_s=look_s)
        finally:
            self._script.rises(self._run.id)
