"""Tells readers in other processes how far a log is synced, over a unix socket.

One message of 44 bytes, both ways of life: the first on connecting, then one whenever the end moved. It is a hint about
what the disk holds already: a reader that misses some asks for nothing, and the newest replaces all before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol, cast

from seawall.guard.supervisor import Heart, Supervisor
from seawall.kernel.error import Unavailable
from seawall.kernel.log import fields, logger
from seawall.kernel.seam.journal import Position

log = logger("journal")

MESSAGE = struct.Struct("<16sIQ16s")
INTERVAL_S = 0.002
"""At most one message in this time: a reader that wakes for each batch would cost more than the batch."""

CHECK_S = 0.5
SUBSCRIBERS_MAX = 64


class Synced(Protocol):
    """What is published: a log."""

    name: str

    @property
    def synced_end(self) -> Position: ...

    def follow(self, follower: Callable[[Position], None]) -> None: ...


def encode(position: Position) -> bytes:
    return MESSAGE.pack(position.log_id, position.segment_id, position.offset_bytes, position.salt)


def decode(message: bytes) -> Position:
    log_id, segment_id, offset_bytes, salt = MESSAGE.unpack(message)
    return Position(log_id, segment_id, offset_bytes, salt if any(salt) else b"")


class SyncedPublisher:
    """Serves a log's synced end at ``path``. Enter it after the log, whose lock makes it the only one.

    A subscriber that doesn't read costs nothing: it is passed over, and gets the newest end once it reads again.

    Raises (on entering):
        Unavailable: The socket can't be made.
    """

    def __init__(self, log: Synced, path: Path) -> None:
        self._log = log
        self._path = path
        self._server: asyncio.Server | None = None
        self._inode = 0
        self._subscribers: set[_Subscriber] = set()
        self._scheduled = False
        log.follow(self._moved)

    async def __aenter__(self) -> SyncedPublisher:
        self._loop = asyncio.get_running_loop()
        await self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Say the last end and hang up. Harmless when called twice."""
        server, self._server = self._server, None
        if server is None:
            return
        self._send()
        server.close()
        for subscriber in list(self._subscribers):
            subscriber.hang_up()
        if _inode(self._path) == self._inode:
            self._path.unlink(missing_ok=True)

    def register(self, supervisor: Supervisor) -> None:
        """Add the loop that makes the socket again when its file was removed: a reader can't do without, since the
        files alone don't prove the newest batch."""
        supervisor.add(f"journal.{self._log.name}.publisher", self._watch)

    async def _watch(self, heart: Heart) -> None:
        while True:
            if self._server is not None and _inode(self._path) != self._inode:
                log.warning("the journal's socket was gone", extra=fields(path=str(self._path)))
                self._server.close()
                await self._listen()
            await heart.beat()
            await asyncio.sleep(CHECK_S)

    async def _listen(self) -> None:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Left behind by a killed process: the log's lock is ours, so nobody serves there.
            self._path.unlink(missing_ok=True)
            with address(self._path) as name:
                self._server = await self._loop.create_unix_server(lambda: _Subscriber(self), name)
            self._path.chmod(0o600)
        except OSError as error:
            raise Unavailable("journal socket", f"{self._path}: {error}") from error
        self._inode = _inode(self._path)

    def _moved(self, end: Position) -> None:
        if self._subscribers and not self._scheduled:
            self._scheduled = True
            self._loop.call_later(INTERVAL_S, self._send)

    def _send(self) -> None:
        self._scheduled = False
        message = encode(self._log.synced_end)
        for subscriber in self._subscribers:
            subscriber.push(message)

    def joined(self, subscriber: _Subscriber) -> bool:
        if len(self._subscribers) >= SUBSCRIBERS_MAX:
            return False
        self._subscribers.add(subscriber)
        subscriber.push(encode(self._log.synced_end))
        return True

    def left(self, subscriber: _Subscriber) -> None:
        self._subscribers.discard(subscriber)

    def newest(self) -> bytes:
        return encode(self._log.synced_end)


class _Subscriber(asyncio.Protocol):
    """One reader's connection."""

    def __init__(self, publisher: SyncedPublisher) -> None:
        self._publisher = publisher
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._missed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's is one, but doesn't inherit from it
        self._transport = transport
        transport.set_write_buffer_limits(high=0)
        if not self._publisher.joined(self):
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._publisher.left(self)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._missed:
            self._missed = False
            self.push(self._publisher.newest())

    def push(self, message: bytes) -> None:
        """Send it, or remember that the newest one is due."""
        if self._paused:
            self._missed = True
        elif self._transport is not None:
            self._transport.write(message)

    def hang_up(self) -> None:
        if self._transport is not None:
            self._transport.close()


class address(contextlib.AbstractContextManager[str]):  # noqa: N801 (reads as a function: with address(path) as name)
    """A name for a socket's path that fits into the kernel's 107 bytes, however deep the data folder lies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def __enter__(self) -> str:
        plain = str(self._path)
        if len(os.fsencode(plain)) <= 100 or not Path("/proc/self/fd").is_dir():
            return plain
        self._fd = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._fd}/{self._path.name}"

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _inode(path: Path) -> int:
    """0 when there is no file."""
    try:
        return path.stat().st_ino
    except OSError:
        return 0
