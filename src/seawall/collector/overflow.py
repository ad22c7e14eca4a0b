"""Connections beyond a cap: told to come back, and closed. They cost a constant answer and a short moment each, never a
parser, a buffer or a place among the connections; and only so many are told at a time, so that a flood stays cheap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

TOLD_MAX = 256
"""So many are told at once; more are reset. These are file descriptors above ``connections_max``."""

LINGER_S = 0.5
LINGER_BYTES_MAX = 1024 * 1024
"""How long, and how much, is read of a client that was told: a reset under its request could swallow our answer."""

_BODY = (
    b'{"type":"urn:seawall:problem:too-many-connections","title":"too many connections","status":503,'
    b'"detail":"there is no room for this connection now; nothing was stored"}'
)
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 2\r\n"
    b"Content-Type: application/problem+json\r\nContent-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)


class Overflow:
    """Takes over the sockets of connections that can't be served.

    Args:
        count: Told the status of each answer that is given.
    """

    def __init__(self, count: Callable[[bytes], None]) -> None:
        self.count = count
        self._told: set[_Told] = set()

    def take(self, transport: asyncio.Transport) -> None:
        """From a protocol's ``connection_made``, whose protocol then hears no more of it."""
        if len(self._told) >= TOLD_MAX:
            transport.abort()
            return
        told = _Told(transport, self)
        self._told.add(told)
        transport.set_protocol(told)

    def left(self, told: _Told) -> None:
        self._told.discard(told)

    def close(self) -> None:
        """End all of them now. Harmless when called twice."""
        for told in list(self._told):
            told.transport.abort()


class _Told(asyncio.Protocol):
    """One of them. It is answered when its request begins: some clients take an answer to nothing for an error."""

    __slots__ = ("_answered", "_overflow", "_read_bytes", "_timer", "transport")

    def __init__(self, transport: asyncio.Transport, overflow: Overflow) -> None:
        self.transport = transport
        self._overflow = overflow
        self._answered = False
        self._read_bytes = 0
        self._timer = asyncio.get_running_loop().call_later(LINGER_S, self._late)

    def data_received(self, data: bytes) -> None:
        self._read_bytes += len(data)
        if self._read_bytes > LINGER_BYTES_MAX:
            self.transport.abort()
        elif not self._answered:
            self._answer()
            if self.transport.can_write_eof():
                self.transport.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._overflow.left(self)

    def _answer(self) -> None:
        self._answered = True
        self._overflow.count(b"503")
        self.transport.write(FULL)

    def _late(self) -> None:
        if not self._answered:
            self._answer()
        # Not ``close``: a client that reads nothing could keep the socket as long as it likes.
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()
