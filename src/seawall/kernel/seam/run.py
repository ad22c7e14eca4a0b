"""The run seam: what a workflow's ``Context`` needs of whoever executes it, and what is kept of each step.

A workflow is an ordinary coroutine that is called again from its beginning after a crash or a failure. It gets past
what it has already done because each step's outcome is kept under (name, occurrence of that name in the task that took
it; a name has its task in it, workflow/branch.py). So the outcome that a workflow sees must be exactly what was kept,
the first time as well.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from seawall.kernel.seam.pulse import Pulse
from seawall.kernel.seam.ticket import Reply

MARK = "\x1f"
"""Between a step's name and its task, as they are kept: no name has it, since names are printable."""


def step_parts(kept: str) -> tuple[str, str]:
    """A step's name and the task that took it ("": the run's own), of the name that is kept."""
    name, _, task = kept.partition(MARK)
    return name, task


@dataclass(frozen=True, slots=True)
class Memo:
    """How a step ended in an earlier execution of the same run."""

    result: bytes  # JSON: the value, or for a failed step {"type", "message", "retryable", "attempts"}
    failed: bool


class Run(Protocol):
    """One execution of one run, on the event loop's thread."""

    id: int  # the store's number; a restored store may use one again
    attempt: int  # counts from 1: how often the workflow has been called, crashes not counted

    def recall(self, name: str, nth: int) -> Memo | None:
        """What is kept of the ``nth`` (from 0) step called ``name``; None: it has not ended yet. Asked for once."""

    def has_more(self) -> bool:
        """Whether something is kept of an earlier execution that this one hasn't asked for yet."""

    async def pulse(self, name: str, nth: int, every_s: float) -> Pulse:
        """For one try of a step with heartbeats: with what an earlier one, in any process, has told last."""

    async def call(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], *, timeout_s: float,
        pulse: Pulse | None = None,
    ) -> object:  # fmt: skip
        """Call a step's function once: a coroutine function here, any other one in a thread.

        Args:
            pulse: Of this try, of a step that has heartbeats. What it tells is kept now and then, and when it fails.

        Raises:
            TimeoutError: It took longer than ``timeout_s``; HeartbeatMissed: than its pulse allows between two beats. A
                thread can't be stopped: it may still have its effect.
            Exception: Whatever the function raised; SystemExit and the like come as RuntimeError.

        Cancelled: the run is being put away; the effect may have happened, nothing is kept.
        """

    def keep(
        self, name: str, nth: int, result: bytes, *, failed: bool, attempt: int, started_us: int, wait: bool
    ) -> Awaitable[None] | None:
        """Hand a step's outcome to the next flush.

        Args:
            result: As in Memo, at most `limit.RESULT_BYTES_MAX`.
            attempt: Tries that it took, from 1.
            started_us: Wall clock, microseconds since 1970.
            wait: False: don't tell when it is durable (a pure step: doing it again gives the same).

        Returns:
            Something to await (None without ``wait``): when it returns, the outcome would survive a power cut. It
            raises Unstorable when the store refuses the value itself.
        """

    async def pause(self, seconds: float) -> None:
        """Wait in memory before the next try of a step. Cancelled: the run is being put away."""

    def reply(self, reply: Reply) -> None:
        """Hand the answer for whoever waits on the event to the next flush. The event's first reply wins."""

    def now_us(self) -> int:
        """Wall clock, microseconds since 1970."""
