"""Reads a log that another process writes, or that nobody writes any more."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from seawall.journal.cursor import Cursor
from seawall.journal.filesystem import LocalFilesystem
from seawall.journal.identity import ID_NAME, read_log_id
from seawall.journal.lock import try_lock
from seawall.journal.publisher import MESSAGE, address, decode
from seawall.journal.quarantine import Quarantine
from seawall.journal.recovery import recover
from seawall.kernel.clock import Clock, Deadline, SystemClock
from seawall.kernel.error import Corrupt, Unavailable
from seawall.kernel.log import fields, logger
from seawall.kernel.seam.filesystem import Filesystem
from seawall.kernel.seam.journal import Chunk, Displaced, Position, Replaced

log = logger("journal")

CONNECT_TIMEOUT_S = 0.25
POLL_S = 0.25
"""How often the files are asked, while the writer says nothing or there is none."""

REFRESH_TIMEOUT_S = 30.0


def discover(folder: Path) -> list[Path]:
    """The log folders in a data folder's ``journal``, sorted; also those that nobody writes, as after a restore."""
    try:
        found = [entry for entry in folder.iterdir() if (entry / ID_NAME).is_file()]
    except FileNotFoundError:
        return []
    return sorted(found)


# Size: which log it is, how far it is synced, and what was read of it are one state of one reader.
class LogReader:
    """Implements ``JournalReader``. ``async with`` finds out how far the log is synced; ``wait`` keeps that fresh.

    When another log lies in the folder (it was cleared, and a collector of that name began anew), positions of the one
    that was read are refused as Replaced, and reading begins with the new one.

    It trusts three things only: what the writer publishes; where no writer lives, its own recovery under the folder's
    lock, held no longer than that takes; and with a writer that lives and is silent, what the files prove.

    Raises (on entering):
        Corrupt: There is no log in the folder.
        Unavailable: The disk failed.
    """

    def __init__(
        self,
        folder: Path,
        socket_path: Path,
        *,
        filesystem: Filesystem | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.folder = folder
        self.name = folder.name
        self._socket_path = socket_path
        self._filesystem = filesystem or LocalFilesystem()
        self._clock = clock or SystemClock()
        self._feed = _Feed()
        self._recovered_ids: list[int] | None = None
        self._quarantine = Quarantine(folder, self._filesystem)
        self._end: Position | None = None
        self._certain = False  # whether the last refresh found the very end, not just something before it
        self._cursor: Cursor | None = None
        self._former: set[bytes] = set()  # ids of logs that were here before

    async def __aenter__(self) -> LogReader:
        with self._translated():
            log_id = read_log_id(self.folder, self._filesystem)
        if not log_id:
            raise Corrupt(str(self.folder), "there is no log in this folder")
        self._begin(log_id)
        await self._refresh()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Harmless when called twice."""
        self._feed.close()
        if self._cursor is not None:
            self._cursor.close()
            self._prover.close()

    @property
    def log_id(self) -> bytes:
        return self._log_id

    @property
    def certain(self) -> bool:
        """Whether ``synced_end`` was the very end when it was last asked for. Else there is a writer that didn't say,
        or somebody held the lock just then, and the newest batch may lie beyond."""
        return self._certain

    def start(self) -> Position:
        with self._translated():
            return self._opened.start()

    def synced_end(self) -> Position:
        assert self._end is not None
        if self._feed.end is not None and self._feed.end > self._end and self._feed.end.log_id == self._log_id:
            self._end = self._feed.end
        return self._end

    async def wait(self, after: Position, timeout_s: float) -> bool:
        deadline = Deadline.after(timeout_s, self._clock)
        self._check(after)
        if self.synced_end() < after:
            # Another reader may have heard of a later end already: only a word given now can contradict it.
            await self._refresh()
            self._check(after)
            if self._certain and self.synced_end() < after:
                where = f"segment {after.segment_id} at {after.offset_bytes}"
                raise Displaced(where, f"the log ends in segment {self.synced_end().segment_id}")
        while self.synced_end() <= after:
            left_s = deadline.left_s(self._clock)
            if left_s == 0.0:
                return False
            if not self._feed.connected:
                await self._refresh()
                self._check(after)
                if self.synced_end() > after:
                    return True
            self._feed.news.clear()
            try:
                async with asyncio.timeout(min(left_s, POLL_S)):
                    await self._feed.news.wait()
            except TimeoutError:
                await self._in_thread(self._prove)
        return True

    def read(self, at: Position, *, end: Position | None = None, records_max: int, bytes_max: int) -> Chunk:
        self._check(at)
        limit = self.synced_end() if end is None else min(end, self.synced_end())
        with self._translated():
            try:
                chunk = self._opened.read(at, limit, records_max=records_max, bytes_max=bytes_max)
            except Displaced:
                self._identify()
                self._check(at)
                raise
            if chunk.damage:
                self._identify()  # another log's segments look like damage
                self._check(at)
        self._quarantine.keep(chunk.damage)
        return chunk

    def forget(self, before: Position) -> int:
        with self._translated():
            self._identify()
            self._check(before)
            return self._opened.forget(before)

    def _begin(self, log_id: bytes) -> None:
        """Read this log from now on."""
        cursor, prover = (Cursor(self.folder, log_id, self._filesystem) for _ in range(2))
        with self._translated():
            start = cursor.start()
        self._log_id, self._cursor, self._prover, self._end = log_id, cursor, prover, start
        self._recovered_ids = None

    def _identify(self) -> None:
        """Find out whether the folder still holds the log that is read; else go on with the one that is there."""
        found = read_log_id(self.folder, self._filesystem)
        if found in (None, self._log_id):
            return
        assert found is not None
        log.error("another log took the place of the one that was read", extra=fields(journal=self.name))
        former = self._log_id
        self._begin(found)
        self._former.add(former)
        self._former.discard(found)

    def _check(self, at: Position) -> None:
        if at.log_id in self._former:
            raise Replaced(f"log {self.name}", "another log lies in its folder")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Unavailable("journal", f"{self.folder}: {error}") from error

    @property
    def _opened(self) -> Cursor:
        assert self._cursor is not None
        return self._cursor

    async def _refresh(self) -> None:
        """Connect to the writer, or do without."""
        if await self._connect():
            if self._feed.end is not None and self._feed.end.log_id != self._log_id:
                await self._in_thread(self._identify)
            self._certain = self._feed.end is not None and self._feed.end.log_id == self._log_id
        else:
            await self._in_thread(self._recover_or_prove)

    async def _connect(self) -> bool:
        """Whether the writer's first word arrived."""
        feed = _Feed()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                with address(self._socket_path) as name:
                    await asyncio.get_running_loop().create_unix_connection(lambda: feed, name)
                await feed.news.wait()
        except (OSError, TimeoutError):
            feed.close()
            return False
        self._feed.close()
        self._feed = feed
        return True

    async def _in_thread(self, call: Callable[[], None]) -> None:
        try:
            async with asyncio.timeout(REFRESH_TIMEOUT_S):
                await asyncio.to_thread(call)
        except (OSError, TimeoutError) as error:
            raise Unavailable("journal", f"{self.folder}: {error or 'no answer from the disk'}") from error

    def _recover_or_prove(self) -> None:
        """Where no writer lives, the end is what recovery finds. The lock is let go at once: a writer may want it."""
        lock = try_lock(self.folder)
        if lock is None:
            self._prove()
            return
        try:
            self._identify()
            ids = self._prover.ids()
            if ids != self._recovered_ids:
                found = recover(self.folder, filesystem=self._filesystem, entropy=os.urandom)
                for part in found.damage:
                    log.error("damage", extra=fields(journal=self.name, segment=part.segment_id, reason=part.reason))
                self._recovered_ids = self._prover.ids()
                self._reached(found.end.position)
            self._certain = True
        finally:
            lock.release()

    def _prove(self) -> None:
        self._certain = False
        prover, end = self._prover, self.synced_end()
        self._reached(prover.settled(prover.proven_end(end)))

    def _reached(self, end: Position) -> None:
        """It is synced up to there; of another log that was here before, nothing."""
        if end.log_id == self._log_id:
            self._end = max(self.synced_end(), end)


class _Feed(asyncio.Protocol):
    """The connection to the writer."""

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self.end: Position | None = None
        self.connected = False
        self._transport: asyncio.BaseTransport | None = None
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self.connected = True

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        whole = len(data) - len(data) % MESSAGE.size
        self._rest = data[whole:]
        if whole:
            self.end = decode(data[whole - MESSAGE.size : whole])
            self.news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.connected = False
        self.news.set()

    def close(self) -> None:
        self.connected = False
        if self._transport is not None:
            with contextlib.suppress(RuntimeError):
                self._transport.close()
