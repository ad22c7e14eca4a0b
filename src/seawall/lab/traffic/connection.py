"""One keep-alive HTTP/1.1 connection of the traffic generator: one request at a time, every wait bounded.

Written for this, since a general client retries, pools and hides what the ledger must know: whether bytes left, and
whether an answer came.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field

import httptools

ANSWER_BYTES_MAX = 2 * 1024 * 1024
CONNECT_S = 2.0


class NoAnswer(Exception):
    """No answer came; ``note`` says why. Unless it is ``refused``, the request may have been taken."""

    def __init__(self, note: str) -> None:
        self.note = note
        super().__init__(note)


@dataclass(slots=True)
class Answer:
    """A whole answer."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)  # names in lower case; the last of several wins
    body: bytes = b""


class _Wire(asyncio.Protocol):
    """Bytes to answers."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.waiter: asyncio.Future[Answer] | None = None
        self.closed = False
        self._parser = httptools.HttpResponseParser(self)
        self._fresh()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail("malformed")

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self._fail("reset" if error is not None else "closed")

    # What httptools calls:
    def on_header(self, name: bytes, value: bytes) -> None:
        self._answer.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        if self._size > ANSWER_BYTES_MAX:
            self._fail("too large")

    def on_message_complete(self) -> None:
        answer, parser = self._answer, self._parser
        answer.status = parser.get_status_code()
        answer.body = b"".join(self._parts)
        if not parser.should_keep_alive():
            self.close()
        self._fresh()
        # An interim answer (100 Continue) is not the answer.
        if answer.status >= 200 and self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(answer)

    def close(self) -> None:
        self.closed = True
        if self.transport is not None:
            self.transport.close()

    def _fresh(self) -> None:
        self._answer = Answer()
        self._parts: list[bytes] = []
        self._size = 0

    def _fail(self, note: str) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_exception(NoAnswer(note))
        self.close()


class Connection:
    """A connection that opens itself when it is needed; by TLS where there is a context for it."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._wire: _Wire | None = None

    async def exchange(self, address: tuple[str, int], request: bytes, *, timeout_s: float) -> Answer:
        """Send one request, opening the connection if need be, and wait for its answer.

        Raises:
            NoAnswer: ``refused``: nothing was sent. Else it may have been taken. The connection is closed.

        Cancelled: as NoAnswer.
        """
        wire = self._wire if self._wire is not None and not self._wire.closed else await self._open(address)
        assert wire.transport is not None
        wire.waiter = asyncio.get_running_loop().create_future()
        wire.transport.write(request)
        try:
            async with asyncio.timeout(timeout_s):
                return await wire.waiter
        except TimeoutError:
            self.close()
            raise NoAnswer("timeout") from None
        except asyncio.CancelledError:
            self.close()
            raise

    def close(self) -> None:
        """Harmless when it isn't open."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    async def _open(self, address: tuple[str, int]) -> _Wire:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_S):
                _, wire = await loop.create_connection(_Wire, *address, ssl=self._tls)
        except (OSError, TimeoutError) as error:
            raise NoAnswer("refused") from error
        self._wire = wire
        return wire
