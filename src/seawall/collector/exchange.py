"""One request and its answer, and what a connection tells the rest of the room about it.

An exchange is received (head, body), judged, submitted and answered exactly once. Who holds it at which time is its
``stage``: RECEIVING → [PARKED] → [ASKED] → SUBMITTED → [HELD] → ANSWERED.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from seawall.collector.receipt import Receipts
from seawall.collector.setting import Settings
from seawall.collector.snapshot import Source
from seawall.guard.budget import Budget
from seawall.kernel.seam.journal import Outcome
from seawall.kernel.seam.ticket import Answer

if TYPE_CHECKING:
    from seawall.collector.parser import Connection

RECEIVING, PARKED, ASKED, SUBMITTED, HELD, ANSWERED = range(6)


class Front(Protocol):
    """What a connection tells."""

    settings: Settings
    receipts: Receipts
    stopping: bool
    now: float  # monotonic, as of the last sweep: near enough for every deadline, and free

    def begin(self, x: Exchange) -> None:
        """The head is complete and sound. Sets ``body_bytes_max``, or refuses."""

    def too_large(self, x: Exchange) -> bytes:
        """The answer to more than ``body_bytes_max``."""

    def complete(self, x: Exchange) -> None:
        """The whole body is there; answer now or later."""

    def settled(self, x: Exchange, outcome: Outcome) -> None:
        """The journal's word on a submitted exchange, also when its client is gone or was answered meanwhile."""

    def gone(self, x: Exchange) -> None:
        """The client left before the answer."""

    def count(self, status: bytes) -> None:
        """An answer is written; ``status`` is its three digits."""

    def truncated(self) -> None: ...

    def opened(self, connection: Connection) -> bool:
        """False: there is no room for it, and its transport was taken away."""

    def closed(self, connection: Connection) -> None: ...

    def keep(self, count_bytes: int) -> bool:
        """Room for that much more body; False: there is none. Negative gives room back."""


_NO_FLAT: list[bytes] = []
_NO_HEADERS: dict[bytes, bytes] = {}


class Exchange:
    """One request and its answer. Fields have their first value on the class: most requests never set most of them."""

    method = b""
    target = b""
    flat: list[bytes]  # name, value, name, value as they came; set with the head
    headers: dict[bytes, bytes]  # by name in lower case; repeated ones joined by b", "; set with the head
    in_body = False  # the head is complete
    keep_alive = True
    chunked = False
    length = 0  # Content-Length; 0 when chunked
    body_bytes = 0  # of ``parts``, as far as they are counted against the room for bodies
    body_bytes_max = 0
    refusal: bytes | None = None  # known before the body's end, given at it
    continue_due = False
    stage = RECEIVING
    submitted_at = 0.0
    data: bytes | None = None  # an answer that waits for those before it
    source: Source | None = None
    token = b""
    peer = b""  # the client's address, where a trusted forwarder has named it; else the connection's
    rest = b""  # of the target, after the token
    wait_ms = 0  # as wished, within what its source and kind allow
    patience: Budget | None = None  # what is left of that; None: it doesn't wait
    size_bytes = 0  # of its record, once submitted
    replicated: bool | None = False  # how it became durable, once it is; None: not known here
    waiter: Answer | None = None  # while it is held: how it waits
    id = b""  # 16 bytes, once submitted
    key = b""  # its dedupe key among those of all sources, if it has one
    digest = b""
    received_us = 0  # by the wall clock, once its key is known

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.parts: list[bytes] = []

    def body(self) -> bytes:
        """All of the body that has come."""
        parts = self.parts
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def refuse(self, answer: bytes) -> None:
        """Answer at the body's end, and drop the body until then. The first refusal counts."""
        if self.refusal is None:
            self.refusal = answer
            self.release()

    def hold_body(self) -> bool:
        """Count a body that came in one piece too, since it is kept for more than a moment; False: there is no room."""
        if self.body_bytes or not self.parts:
            return True
        self.body_bytes = len(self.parts[0])
        if self.connection.front.keep(self.body_bytes):
            return True
        self.body_bytes = 0
        return False

    def release(self) -> None:
        """Let go of the body."""
        self.parts.clear()
        if self.body_bytes:
            self.connection.front.keep(-self.body_bytes)
            self.body_bytes = 0

    def submitted(self) -> None:
        """The journal has all of it now: let go of head and body. Freed at once, their memory is still in the CPU's
        cache and serves the next request; kept until the answer, it would cost twice as much (bench/intake.py)."""
        if self.body_bytes:
            self.release()
        else:
            self.parts.clear()
        self.flat, self.headers = _NO_FLAT, _NO_HEADERS

    def answer(self, data: bytes) -> None:
        """Give the answer; a second one is dropped."""
        if self.stage == ANSWERED:
            return
        self.stage = ANSWERED
        if self.parts:
            self.release()
        self.data = data
        self.connection.flush()

    def done(self, outcome: Outcome) -> None:
        """The journal's callback."""
        self.connection.front.settled(self, outcome)
