"""The ticket seam: how a held request learns its answer. The collector holds connections; the responder knows answers.

A ticket is the wish of one request to wait for the reply to its event. It is part of the journal record, becomes a row
with the run, and a reply is a row too: whatever channel says "look" is only a hint, and losing it costs latency.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a workflow answered, or how its runs ended without an answer."""

    status: int  # HTTP status, 200-599
    content_type: str
    body: bytes  # at most limit.RESULT_BYTES_MAX
    final: bool = True  # False: not answered yet; status is 202


Answer = Callable[[Reply | None], None]
"""Called exactly once on the event loop's thread: a reply, or None when the wait is over without one (deadline passed,
store away, process stopping). The event itself is safe either way."""


class Waiting(Protocol):
    """Where held requests wait."""

    def hold(self, ticket_id: bytes, *, wait_ms: int, answer: Answer) -> None:
        """Wait for at most ``wait_ms``. At most ``held_max`` at once, a few of them for one ticket: beyond that
        ``answer(None)`` is called at once.

        Must be called on the event loop's thread, after the event is durable.
        """

    def drop(self, ticket_id: bytes, answer: Answer) -> None:
        """The client is gone: forget it without an answer. The run goes on, and so does any other request that waits
        for the ticket. Harmless when unknown."""

    async def look_up(self, ticket_id: bytes, *, timeout_s: float) -> Reply | None:
        """What is known of a ticket now, within ``timeout_s``. None: nobody knows it (yet).

        A reply is kept for a day at least. A status 404 says that there may have been one, and isn't any more.

        Raises:
            Unavailable: The store didn't answer in time.
        """
