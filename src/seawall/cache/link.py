"""One connection to Redis: commands out, replies in, in the same order. It never connects again or repeats."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import cast

from seawall.kernel.error import Misconfigured, Unavailable

try:
    import hiredis
except ModuleNotFoundError:  # optional: whoever shares no limits needs none
    hiredis = None  # type: ignore[assignment, unused-ignore]

Reply = bytes | int | None | list["Reply"]
"""What RESP2 says: texts, numbers, nothing, and lists of those."""

REPLY_BYTES_MAX = 4 * 1024 * 1024
"""Of bytes that make no whole reply. More than any command of ours is answered with."""

_MORE = object()


def require() -> None:
    """Raises Misconfigured when the package that reads replies is missing."""
    if hiredis is None:
        raise Misconfigured(["cache.url: the package hiredis is missing; install seawall[redis]"])


class Link(asyncio.Protocol):
    """A connection. ``asyncio`` calls its methods."""

    def __init__(self) -> None:
        require()
        self._reader = hiredis.Reader(notEnoughData=_MORE)
        self._waiting: deque[asyncio.Future[Reply]] = deque()
        self._transport: asyncio.Transport | None = None
        self._unread_bytes = 0
        self.lost: BaseException | None = None  # why it can't be used any more

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._unread_bytes += len(data)
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _MORE:
                self._unread_bytes = 0
                self._settle(reply)
        except (hiredis.ProtocolError, IndexError) as error:
            self.abort(ConnectionAbortedError(f"this isn't Redis: {type(error).__name__}"))
        if self._unread_bytes > REPLY_BYTES_MAX:
            self.abort(ConnectionAbortedError(f"a reply is larger than {REPLY_BYTES_MAX} bytes"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.abort(exc if isinstance(exc, OSError) else ConnectionResetError("Redis closed the connection"))

    def _settle(self, reply: object) -> None:
        waiting = self._waiting.popleft()
        if waiting.done():
            return  # nobody waits any more
        if isinstance(reply, hiredis.ReplyError):
            _fail(waiting, Unavailable("redis", str(reply)[:200]))
        else:
            waiting.set_result(cast(Reply, reply))

    def send(self, commands: Sequence[bytes]) -> list[asyncio.Future[Reply]]:
        """Send packed commands together.

        Returns:
            A future per command: its reply; Unavailable when that is an error, OSError when the connection broke.
        """
        loop = asyncio.get_running_loop()
        sent = [loop.create_future() for _ in commands]
        if self.lost is not None or self._transport is None:
            for future in sent:
                _fail(future, self.lost or ConnectionResetError("not connected"))
            return sent
        self._waiting.extend(sent)
        self._transport.write(b"".join(commands))
        return sent

    def abort(self, why: BaseException) -> None:
        """Use it no more: all that wait hear why. Harmless when called twice; the first reason counts."""
        if self.lost is None:
            self.lost = why
        if self._transport is not None:
            self._transport.abort()
        while self._waiting:
            _fail(self._waiting.popleft(), self.lost)


def _fail(future: asyncio.Future[Reply], why: BaseException) -> None:
    if not future.done():
        future.set_exception(why)
        future.exception()  # looked at: nobody need wait for it, as for what follows a greeting that was refused
