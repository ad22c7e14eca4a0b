"""What a long step tells of itself while it is under way: that it goes on, and how far it has come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class HeartbeatMissed(TimeoutError):
    """A step was silent for longer than it had said."""


class Pulse:
    """One try of one step. Its code beats, in whatever thread; whoever executes it looks.

    Without a lock: each field is set in one go, by one side.

    Args:
        every_s: The longest time between two beats.
        now: Monotonic, seconds; callable in any thread.
        progress: JSON, what an earlier try told last; None: nothing.
        deserted: Whether its run has ended without it, or isn't ours any more; callable in any thread.
    """

    __slots__ = ("_deserted", "_now", "at", "every_s", "missed", "over", "progress")

    def __init__(
        self, every_s: float, now: Callable[[], float], progress: bytes | None = None, *,
        deserted: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        self.every_s = every_s
        self._now = now
        self._deserted = deserted
        self.at = now()
        self.progress = progress
        self.missed = False  # a beat didn't come in time
        self.over = False  # its step isn't waited for any more

    def begin(self) -> None:
        """The step is called now: it may have waited for a thread."""
        self.at = self._now()

    def beat(self, progress: bytes | None = None) -> None:
        """Go on; None: what was told last stands.

        Raises:
            CancelledError: Nobody waits for this try any more.
        """
        if self.over or self._deserted():
            raise asyncio.CancelledError("this step is over: its run was cancelled or put away, or it took too long")
        if progress is not None:
            self.progress = progress
        self.at = self._now()

    @property
    def due(self) -> float:
        """When the next beat is due at the latest."""
        return self.at + self.every_s

    @property
    def left_s(self) -> float:
        """Seconds until then; 0 or below: it is missed."""
        return self.due - self._now()
