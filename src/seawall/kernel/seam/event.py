"""The event seam: what the collector may ask the store about an event, within a bound and without depending on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class RunBrief:
    """One run of an event, as its sender may see it."""

    id: int
    workflow: str
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EventBrief:
    """What became of an event."""

    id: bytes  # of the event that counts: another one than asked for when that was a duplicate
    status: str  # routed, held, conflict or dead (kernel/status.py)
    runs: tuple[RunBrief, ...]


class Events(Protocol):
    """Reads what became of events."""

    async def status(self, id: bytes, *, timeout_s: float) -> EventBrief | None:
        """None: not (yet) in the store.

        Raises:
            Unavailable: The store didn't answer in time.
        """
