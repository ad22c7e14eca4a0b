"""What all processes of a platform say of their alerts, breakers and optional work, and the hand that moves them.

Watch asks every role over its socket; the console shows it. It needs no store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertLine:
    """An alert that is raised now, in one role."""

    name: str
    role: str
    since: datetime
    labels: dict[str, str]
    summary: str
    unaffected: str
    cure: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerLine:
    """A breaker of one role, as it stands."""

    name: str
    role: str
    state: str
    retry_after_s: float
    without: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkLine:
    """A piece of optional work of one role, as it stands."""

    name: str
    role: str
    rank: int  # the lowest goes first
    on: bool
    why: str  # "", "by hand", or the signal that has it off
    without: str  # what happens while it is off
    eases: Sequence[str]  # signals


class Panels(Protocol):
    """All roles' panels. Every answer comes within about a second, with the roles that couldn't be asked by name."""

    async def alerts(self) -> tuple[Sequence[AlertLine], Sequence[str]]:
        """Raised now, the oldest first."""

    async def breakers(self) -> tuple[Sequence[BreakerLine], Sequence[str]]:
        """All of them."""

    async def force(self, name: str, hand: str) -> tuple[Sequence[str], Sequence[str]]:
        """Move a breaker by hand in every role that has it: (roles that did, roles that couldn't be asked).

        Args:
            hand: ``open``, ``closed`` or ``auto``.

        Raises:
            Rejected: 404, no role has it; 422, no such state.
        """

    async def work(self) -> tuple[Sequence[WorkLine], Sequence[str]]:
        """All optional work."""

    async def shed(self, name: str, hand: str) -> tuple[Sequence[str], Sequence[str]]:
        """Hold optional work on or off by hand in every role that has it, or let it go; as ``force``.

        Args:
            hand: ``on``, ``off`` or ``auto``.

        Raises:
            Rejected: 404, no role has it; 422, no such state.
        """
