"""Forwards spooled logs that have no writer any more: of a backup that was restored, or of a collector's former name.

Nobody else would: the router of this profile reads Kafka. They are never written on, since a place in a restored log
could then come to mean another event than it did in the log it was copied from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from seawall.guard.supervisor import Heart
from seawall.journal.lock import try_lock
from seawall.journal.reader import LogReader, discover
from seawall.journal.spool.disk import alive
from seawall.journal.spool.forward import Forwarder, Source
from seawall.kernel.clock import Clock
from seawall.kernel.error import Corrupt, Unavailable
from seawall.kernel.log import fields, logger
from seawall.kernel.seam.filesystem import Filesystem
from seawall.kernel.seam.journal import Position

log = logger("journal")

PAUSE_S = 1.0
AGAIN_S = 10.0
"""How long one that can't be read is left alone before it is tried again."""


class Left:
    """A log without a writer, as ``Forwarder`` wants it. It never grows."""

    def __init__(self, reader: LogReader) -> None:
        self._reader = reader
        self.folder = reader.folder
        self.name = f"left-{reader.name}"

    @property
    def log_id(self) -> bytes:
        return self._reader.log_id

    @property
    def synced_end(self) -> Position:
        return self._reader.synced_end()

    def follow(self, follower: Callable[[Position], None]) -> None:
        """There will never be news."""


class Leftovers:
    """All logs of one folder but those that are written, one after the other.

    Args:
        spools: Where the logs lie.
        own: Names of those that this process writes and forwards by itself.
        forwarder: Makes what forwards one of them.
    """

    def __init__(
        self, spools: Path, own: frozenset[str], forwarder: Callable[[Source], Forwarder], *,
        filesystem: Filesystem, clock: Clock,
    ) -> None:  # fmt: skip
        self._spools = spools
        self._own = own
        self._forwarder = forwarder
        self._filesystem = filesystem
        self._clock = clock
        self._done: set[str] = set()
        self._again_at: dict[str, float] = {}
        self.forwarded = 0

    @property
    def waits(self) -> bool:
        """Whether any log may hold what isn't forwarded yet. Looks at a folder: not for each event."""
        return bool(self._due())

    async def run(self, heart: Heart) -> None:
        """Forward them, then only beat: a restore can't bring more while we run. For a supervisor."""
        while True:
            for folder in await alive(heart, asyncio.to_thread(self._due)):
                if self._again_at.get(folder.name, 0.0) <= self._clock.monotonic():
                    await self._attend(folder, heart)
            await heart.beat()
            await asyncio.sleep(PAUSE_S)

    def _due(self) -> list[Path]:
        return [folder for folder in discover(self._spools) if folder.name not in self._own | self._done]

    async def _attend(self, folder: Path, heart: Heart) -> None:
        try:
            if await alive(heart, asyncio.to_thread(_has_writer, folder)):
                raise Unavailable("journal", "another process writes it")
            await self._forward(folder, heart)
        except (Unavailable, Corrupt, OSError) as error:
            log.error("a spooled log can't be forwarded", extra=fields(folder=str(folder), cause=str(error)))
            self._again_at[folder.name] = self._clock.monotonic() + AGAIN_S
        else:
            self._done.add(folder.name)

    async def _forward(self, folder: Path, heart: Heart) -> None:
        # No writer publishes its end, so there is no socket: the end is what recovery finds.
        reader = LogReader(folder, folder / "none.sock", filesystem=self._filesystem, clock=self._clock)
        async with AsyncExitStack() as stack:
            # Recovery reads a whole segment: seconds, as large as they may be.
            await alive(heart, stack.enter_async_context(reader))
            forwarder = await alive(heart, stack.enter_async_context(self._forwarder(Left(reader))))
            if not reader.certain:
                raise Unavailable("journal", "somebody else looks at it just now")
            if not forwarder.waits:
                return
            log.info("forwarding a log that has no writer any more", extra=fields(folder=str(folder)))
            before = forwarder.forwarded.value
            try:
                while not forwarder.finished():
                    await forwarder.turn(heart)
                    if forwarder.unable:
                        raise Unavailable("journal", forwarder.unable)  # others mustn't wait for it
            finally:
                self.forwarded += int(forwarder.forwarded.value - before)


def _has_writer(folder: Path) -> bool:
    lock = try_lock(folder)
    if lock is None:
        return True
    lock.release()
    return False
