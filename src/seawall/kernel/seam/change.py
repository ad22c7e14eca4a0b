"""The change seam: what was changed, by whom, from what to what. All of it together is the timeline.

A change that is made in the store is recorded in the same transaction. Any other one (a breaker moved by hand, a
restart, settings read again) is noted here: on stable storage of this machine first, and in the store when it answers.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

NOBODY = "seawall"
"""By whom a change is that no person made, or none that we know."""

TEXT_MAX = 500
"""Characters of each text of a change; a longer one is cut."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Kind(Enum):
    """What was changed."""

    VERSION = "version"  # of Seawall: what others call a deploy
    START = "start"
    STOP = "stop"
    RESTART = "restart"  # a role's process that ended, and lives again
    MIGRATION = "migration"
    SETTING = "setting"
    FLAG = "flag"
    SOURCE = "source"
    QUEUE = "queue"
    BULK = "bulk"  # an act on many runs
    REPLAY = "replay"
    THROTTLE = "throttle"  # of a queue
    WORKFLOW = "workflow"  # its versions
    RUN = "run"
    APPROVAL = "approval"  # what people decide for a run
    CRON = "cron"
    BREAKER = "breaker"  # by hand
    SHED = "shed"  # by hand


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change."""

    key: bytes  # 16 random bytes, made where it happened: recording it twice keeps it once
    at_us: int  # wall clock
    kind: Kind
    what: str  # its name: of the flag, the source, the setting, the role
    by: str  # a person, as far as anybody knows
    before: str | None = None
    after: str | None = None
    why: str = ""


Note = Callable[[Change], Awaitable[None]]
"""Notes a change: on return it would survive a power cut, if the disk takes it. Never raises for what the world does:
an act isn't undone, or put off, since nobody could write it down."""

Pending = Callable[[], Awaitable[Sequence[Change]]]
"""What was noted on this machine and isn't in the store yet, oldest first."""


def tidy(change: Change) -> Change:
    """The change as it is kept: every text within ``TEXT_MAX``, without control characters and lone surrogates."""
    return replace(
        change, what=_tidy(change.what), by=_tidy(change.by), why=_tidy(change.why),
        before=None if change.before is None else _tidy(change.before),
        after=None if change.after is None else _tidy(change.after),
    )  # fmt: skip


def _tidy(text: str) -> str:
    plain = _CONTROL.sub(" ", text).encode("utf-8", "replace").decode()
    return plain if len(plain) <= TEXT_MAX else f"{plain[: TEXT_MAX - 1]}…"
