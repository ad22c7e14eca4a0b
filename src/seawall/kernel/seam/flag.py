"""The flag seam: whether something may be done now. A room asks a switch, and doesn't know who moves it.

An answer comes at once and from memory: nothing is read, and nobody is waited for. It is asked at each use, so a
change holds from the next use on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


class Switch(Protocol):
    """One flag. Never raises."""

    def __call__(self, *, tenant: str = "", source: str = "") -> bool:
        """Whether it is on, for whom it is asked; a name that the flag isn't set by is of no matter."""


def always(*, tenant: str = "", source: str = "") -> bool:
    """For a room that nobody switches (a test, a tool)."""
    return True


Part = Callable[[], bool]
"""Whether something that a flag needs is there now. Called at each question: it reads memory alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleLine:
    """A flag's value for one tenant or one source."""

    by: str  # tenant, source
    name: str
    value: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagLine:
    """One flag in one role, as the role knows and evaluates it."""

    name: str
    role: str
    value: bool  # what it evaluates to, for whoever no rule names
    wanted: bool  # what it would be if all it needs were ready
    unready: str  # what it needs and hasn't, but for other flags; "": nothing
    held: str  # why ``value`` isn't ``wanted``; "": it is
    version: int  # of the setting that is in force; 0: it was never set
    kept: bool  # the role's copy on disk has this version
    origin: str  # store, copy, nobody
    age_s: float | None  # since the store last confirmed it; None: not in this process' life
    setting: bool | None  # None: as declared
    rules: tuple[RuleLine, ...]
    changed_at: datetime | None
    changed_by: str
    why: str


class FlagPanels(Protocol):
    """What the roles of this machine say of their flags."""

    async def flags(self) -> tuple[Sequence[FlagLine], Sequence[str]]:
        """All lines, and the roles that couldn't be asked, within about a second."""
