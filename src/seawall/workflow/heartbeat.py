"""Heartbeats of long steps, as their code sees them."""

from __future__ import annotations

import contextvars
import math
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from seawall.kernel import limit
from seawall.kernel.seam.pulse import Pulse
from seawall.workflow.retry import NonRetryable
from seawall.workflow.value import as_json

HEARTBEAT_MIN_S, HEARTBEAT_MAX_S = 0.5, 86_400.0

beating: contextvars.ContextVar[Pulse | None] = contextvars.ContextVar("beating", default=None)
"""Of the step whose code runs here; a step's thread and the tasks that it begins have it too."""

_decode = msgspec.json.Decoder().decode


class Heartbeats:
    """The part of a context that long steps speak to, in any thread."""

    __slots__ = ()

    def heartbeat(self, progress: object = None) -> None:
        """Say that this step goes on, and how far it has come. Costs about a microsecond: call it as often as you like.

        Args:
            progress: What JSON can say, at most `limit.PROGRESS_BYTES_MAX`: the next try of the step finds it in
                ``ctx.progress``. None: what was told last stands.

        Raises:
            CancelledError: Nobody waits for the step any more: its run was cancelled or put away, or it took too long.
                So a plain function ends soon, whose thread nobody can stop.
            RuntimeError: No step with ``heartbeat_s`` calls it. A thread that a step makes by itself has the step's
                context only when it is given it (``contextvars.copy_context().run``; ``asyncio.to_thread`` does).
            NonRetryable: The progress can't be kept: it is no JSON, or too large.

        Durability: the last progress is kept within a few seconds, and before the step is tried again for a failure.
        """
        pulse = _pulse()
        pulse.beat(None if progress is None else _told(progress))

    @property
    def progress(self) -> Any:
        """What this step told last, in this try of it or an earlier one, on whichever worker; None: nothing yet.

        Raises:
            RuntimeError: As for ``heartbeat``.
        """
        told = _pulse().progress
        return None if told is None else _decode(told)


async def beaten(call: Callable[..., Awaitable[object]], pulse: Pulse) -> object:
    """Call a step's function, to which ``pulse`` is the heartbeat that it finds."""
    token = beating.set(pulse)
    try:
        return await call(pulse=pulse)
    finally:
        beating.reset(token)


def checked_heartbeat(step: str, value: object) -> float:
    """``heartbeat_s`` of a step.

    Raises:
        ValueError: It is no such time.
    """
    if isinstance(value, int | float) and math.isfinite(value) and HEARTBEAT_MIN_S <= value <= HEARTBEAT_MAX_S:
        return float(value)
    raise ValueError(
        f"step {step}: heartbeat_s={value!r}: seconds of {HEARTBEAT_MIN_S:g} to {HEARTBEAT_MAX_S:g} are needed"
    )


def _pulse() -> Pulse:
    pulse = beating.get()
    if pulse is None:
        raise RuntimeError("only a step that was given heartbeat_s has a heartbeat, in its own thread and tasks")
    return pulse


def _told(progress: object) -> bytes:
    try:
        return as_json(progress, limit.PROGRESS_BYTES_MAX, "the progress of a step")
    except ValueError as error:
        raise NonRetryable(str(error)) from error
