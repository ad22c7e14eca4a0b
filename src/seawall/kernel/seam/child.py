"""The part of a run that begins others, and waits for their ends."""

from __future__ import annotations

from typing import Protocol

import msgspec

from seawall.kernel.seam.wait import WaitingRun


class Child(msgspec.Struct, frozen=True, kw_only=True):
    """A run that another one began, as it stands."""

    run: int
    status: int  # RunStatus; 5 to 8: it has ended
    result: bytes | None = None  # JSON, of one that succeeded
    error: str | None = None
    began_us: int = 0  # by the store's clock
    now_us: int = 0


class Begin(msgspec.Struct, frozen=True, kw_only=True):
    """A run that another one wants to be there."""

    workflow: str
    payload: bytes  # JSON: the body of its event
    with_parent: bool  # it is cancelled when the run that began it ends before it
    number: int  # the how manieth of this run, from 1
    turn: int  # the how manieth of those that this execution doesn't know to have ended, from 1
    seen: bool = False  # this execution has seen that it was there


class ParentRun(WaitingRun, Protocol):
    """One execution of one run that may also begin others."""

    async def start_child(self, name: str, nth: int, begin: Begin) -> Child | None:
        """Begin a run of a workflow, once for each (name, nth) of this run, and say how it stands.

        One that was cancelled with this run, which was tried again since, goes on where it was.

        Args:
            name, nth: As a step is kept.

        Returns:
            None: there is no version of this workflow that takes new runs.

        Raises:
            NonRetryable: Runs are nested too deep, or this one begins too many.
            Unavailable, Uncertain: It may have begun; safe to repeat.

        Durability: the run is committed. Asked again it is the same one, also in other executions.
        """
