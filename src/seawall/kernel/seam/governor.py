"""The governor seam: how fast what has piled up may be let go, so that a backlog drains without a second outage.

Whoever drains asks before each piece of work, and lets go what it is allowed; its own bounds (a rate, a ramp) come on
top. One governor stands behind all of them, since they share one store.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol


class Drain(Enum):
    """What is drained."""

    BACKLOG = "backlog"  # of the router: records that were accepted while it was behind
    SPOOL = "spool"  # what Kafka hasn't yet
    REPLAY = "replay"
    THROTTLE = "throttle"  # a queue whose rate rises


class Governor(Protocol):
    """Decides for one process."""

    async def allowed(self, drain: Drain, wanted: int) -> int:
        """How many of ``wanted`` pieces may be let go now, 0 to ``wanted``. They count as let go: ask for no more than
        you have. Answers at once, from memory: whoever gets fewer asks again within about a second.
        """

    def why(self, drain: Drain) -> str:
        """Why the last answer was less than what was wanted; "": it wasn't."""


class Ungoverned:
    """Allows everything."""

    async def allowed(self, drain: Drain, wanted: int) -> int:
        return wanted

    def why(self, drain: Drain) -> str:
        return ""
