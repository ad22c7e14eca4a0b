"""``memory-ack``: the collector of incident I4. It answers before anything is on a disk, gives records on once a second
while Kafka is there, and keeps them in memory while it isn't. When told to stop it writes them, by a handler that takes
4 s, under a supervisor that kills after 3: all of them are gone."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from types import TracebackType

from seawall.app import Making
from seawall.kernel.error import Overloaded, SeawallError
from seawall.kernel.log import fields, logger
from seawall.kernel.seam.journal import Done, Journal, Outcome, Position
from seawall.machine.role import Site

log = logger("lab")

LINGER_S = 1.0
HANDLER_S = 4.0
KILL_S = 3.0
WRITE_S = 5.0
RECORDS_MAX = 200_000
NOWHERE = Position(bytes(16), 1, 1)


class MemoryAcks(Making):
    """Puts it in place."""

    @asynccontextmanager
    async def journal(self, site: Site, journal: Journal) -> AsyncIterator[Journal]:
        async with MemoryAck(journal, away=lambda: "kafka" in site.panel.broken()) as made:
            yield made


def killed() -> None:
    """What the incident's supervisor did. Ours waits longer than the handler takes, so it is done here."""
    os.kill(os.getpid(), signal.SIGKILL)


class MemoryAck:
    """Implements ``Journal``, but for its promise. ``async with`` gives on what was taken; leaving writes the rest.

    Args:
        journal: The real one.
        away: Whether there is no use in giving anything on now.
        handler_s: How long the handler takes that writes the rest, when there is no use in giving it on.
        kill_s: After so long of it the process is killed.
        kill: Does so.
    """

    def __init__(
        self, journal: Journal, *, away: Callable[[], bool] = lambda: False, linger_s: float = LINGER_S,
        handler_s: float = HANDLER_S, kill_s: float = KILL_S, kill: Callable[[], None] = killed,
    ) -> None:  # fmt: skip
        self._journal = journal
        self._away = away
        self._linger_s = linger_s
        self._handler_s, self._kill_s, self._kill = handler_s, kill_s, kill
        self._held: deque[bytes] = deque()
        self._given = 0  # to the real journal, which hasn't answered yet
        self._stopping = False

    @property
    def refusal(self) -> SeawallError | None:
        if self._stopping:
            return Overloaded("the journal is stopping")
        return Overloaded("memory is full") if len(self._held) >= RECORDS_MAX else None

    def submit(self, payload: bytes, done: Done) -> None:
        if (refusal := self.refusal) is not None:
            raise refusal
        self._held.append(payload)
        self._loop.call_soon(done, NOWHERE)

    async def __aenter__(self) -> MemoryAck:
        self._loop = asyncio.get_running_loop()
        self._giving = asyncio.create_task(self._give_on(), name="memory-ack")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        self._giving.cancel()
        if self._away() and self._held:
            said = fields(records=len(self._held), takes_s=self._handler_s, killed_after_s=self._kill_s)
            log.warning("the spool is being written", extra=said)
            try:
                async with asyncio.timeout(self._kill_s):
                    await asyncio.sleep(self._handler_s)
            except TimeoutError:
                log.critical("killed before the spool was written", extra=said)
                self._kill()
        self._give()
        latest = self._loop.time() + WRITE_S
        while self._given and self._loop.time() < latest:  # noqa: ASYNC110 - once in a process's life
            await asyncio.sleep(0.01)

    async def _give_on(self) -> None:
        while True:
            await asyncio.sleep(self._linger_s)
            if not self._away():
                self._give()

    def _give(self) -> None:
        for _ in range(len(self._held)):
            payload = self._held.popleft()
            try:
                self._journal.submit(payload, partial(self._told, payload))
            except SeawallError:
                self._held.appendleft(payload)
                return
            self._given += 1

    def _told(self, payload: bytes, outcome: Outcome) -> None:
        self._given -= 1
        if not isinstance(outcome, Position):
            self._held.append(payload)
