"""Brings spooled records to Kafka, beside fresh ones and at a pace that leaves them room.

The position is a local checkpoint, written after the brokers' acks: losing it means sending again. Records go in the
log's order, and the position moves over what was acknowledged from its beginning on without a gap. What may be in one
machine's memory only stays here for a while longer (settle.py).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Hashable
from functools import partial
from pathlib import Path
from typing import Protocol

from seawall.guard.breaker import Breaker, Permit, State
from seawall.guard.pace import Pace
from seawall.guard.spell import Spells
from seawall.guard.supervisor import Heart
from seawall.journal.cluster import Settings
from seawall.journal.cursor import Cursor
from seawall.journal.quarantine import Quarantine
from seawall.journal.spool import alarm
from seawall.journal.spool.checkpoint import Checkpoint
from seawall.journal.spool.disk import Disk
from seawall.journal.spool.errand import Park, passed, sent
from seawall.journal.spool.settle import Holding
from seawall.kernel.clock import Clock
from seawall.kernel.error import Corrupt, Overloaded, Rejected, Unavailable
from seawall.kernel.event import decode
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.filesystem import Filesystem
from seawall.kernel.seam.flag import Switch, always
from seawall.kernel.seam.journal import Chunk, Displaced, Journal, Outcome, Position

log = logger("journal")

IDLE_S = 0.5
SLOW_TIMES = 2
"""Slow answers after which an open breaker holds nothing back here; one may only have been the first of a connection,
and what is left is needed for trials then."""

BATCH_BYTES_MAX = 1024 * 1024


class Source(Protocol):
    """The log that is forwarded; ``Log`` is one, and ``leftover.Left``."""

    @property
    def folder(self) -> Path: ...

    @property
    def name(self) -> str: ...

    @property
    def log_id(self) -> bytes: ...

    @property
    def synced_end(self) -> Position: ...

    def follow(self, follower: Callable[[Position], None]) -> None: ...


# Size: one position, and all that may move it or keep it from moving.
class Forwarder:
    """Forwards one log. Enter it after the log.

    Args:
        park: Takes what Kafka refuses for the record's own sake.
        until_start: Forward only what the log held at the start: for the log of parked records, which are tried once
            in each process' life.
        on: Whether anything is forwarded; while not, it all stays where it is.
        rate: Records a second at most, below what the settings say; None: as they say.
        troubles: Changes whenever Kafka was found in trouble, whoever found it.
    """

    def __init__(
        self, source: Source, kafka: Journal, breaker: Breaker, settings: Settings, *, park: Park,
        filesystem: Filesystem, clock: Clock, metrics: Metrics, spells: Spells, until_start: bool = False,
        on: Switch = always, rate: Callable[[], float | None] = lambda: None,
        troubles: Callable[[], Hashable] = lambda: None,
    ) -> None:  # fmt: skip
        self._on = on
        self._rate = rate
        self._troubles = troubles
        self._trouble = troubles()
        self._stuck = False  # the first record that waits is one that Kafka refuses, and there is no room to park it
        self._slow = 0  # batches in a row that Kafka took, while its breaker was open, and slowly: it isn't away
        self._unreadable = ""  # why nothing could be read lately
        self._disk = Disk(f"spool {source.name}")
        self._source = source
        self._kafka = kafka
        self._breaker = breaker
        self._settings = settings
        self._park = park
        self._filesystem = filesystem
        self._clock = clock
        self._until_start = until_start
        self._spells = spells
        self._pace = Pace(settings.forward_rate, settings.forward_batch, clock)
        self._news = asyncio.Event()
        self._oldest_us = 0
        self.forwarded = metrics.counter(
            "seawall_journal_forwarded_total", "Spooled events that reached Kafka.", journal=source.name
        )
        self._forgotten = metrics.counter(
            "seawall_journal_forwarded_segments_total", "Segments deleted after they were forwarded.",
            journal=source.name,
        )  # fmt: skip
        lag = metrics.gauge(
            "seawall_journal_forward_lag_seconds", "Age of the oldest event that waits to be forwarded.",
            journal=source.name,
        )  # fmt: skip
        lag.read = self._lag_s
        source.follow(lambda end: self._news.set())

    async def __aenter__(self) -> Forwarder:
        source = self._source
        self._cursor = Cursor(source.folder, source.log_id, self._filesystem)
        checkpoint = Checkpoint(source.folder, self._filesystem)
        self._began = source.synced_end
        try:
            found = await asyncio.to_thread(checkpoint.load)
            start = await asyncio.to_thread(self._cursor.start)
        except OSError as error:
            raise Unavailable("journal", f"{source.folder}: {error}") from error
        self._quarantine = Quarantine(source.folder, self._filesystem)
        # One that isn't of this log, or lies beyond its end, is of a folder that was put back from a copy.
        known = found is not None and found.log_id == source.log_id and start <= found <= self._began
        self.at = found if known and found is not None else start
        self._furthest = self.at
        self._holding = Holding(self.at, self._cursor, checkpoint, self._clock, self._forgotten)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._disk.busy:
            return  # the disk hangs: what isn't in the checkpoint is sent again
        await asyncio.to_thread(self._holding.keep)
        self._cursor.close()

    @property
    def limit(self) -> Position:
        """Where forwarding ends for now."""
        return self._began if self._until_start else self._source.synced_end

    @property
    def unable(self) -> str:
        """Why none of its records is on its way though some wait: its disk doesn't give them. "": it does."""
        return self._disk.silent or self._unreadable

    @property
    def waits(self) -> bool:
        """Whether anything waits to be forwarded."""
        return self.at < self.limit

    async def holds(self) -> bool:
        """Whether a record waits; ``waits`` is so also before a new segment that has none. Before ``run``."""
        try:
            return bool((await asyncio.to_thread(self._first)).frames)
        except (Displaced, Unavailable, Corrupt, OSError):
            return False  # who forwards finds out, and tells

    def finished(self) -> bool:
        """Whether all of it is forwarded, and none of it has to be kept: after a restart, nothing is sent again."""
        return not (self.waits or self._holding.settling.waits)

    def behind(self, position: Position) -> bool:
        """Whether what lies before ``position`` isn't forwarded yet; of another log: what was there at the start."""
        return self.at < (position if position.log_id == self.at.log_id else self._began)

    async def run(self, heart: Heart) -> None:
        """Forward until cancelled; for a supervisor."""
        while True:
            await self.turn(heart)

    async def turn(self, heart: Heart) -> None:
        """Forward one batch, and pause as long as is due: for somebody who calls again and again."""
        paused_s = IDLE_S
        try:
            paused_s = await self._round(heart)
        except Displaced as error:
            log.warning("the spool isn't what its checkpoint says", extra=fields(cause=str(error)))
            alarm.is_another(self._spells, self._source.name)
            self.at = await self._disk.do(heart, self._cursor.start)
            self._holding.begin_anew(self.at)
        except (Unavailable, Corrupt, OSError) as error:
            self._unreadable = f"spool {self._source.name} can't be read: {error}"
            log.warning("can't forward now", extra=fields(journal=self._source.name, cause=str(error)))
            alarm.is_unreadable(self._spells, self._source.name, str(error))
        self._spells.rest()
        if self.unable:
            heart.unready(self.unable)
        else:
            await heart.beat()
        if paused_s:
            await self._rest(paused_s)

    async def _rest(self, seconds: float) -> None:
        self._news.clear()
        if self.waits:
            await asyncio.sleep(seconds)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()

    async def _round(self, heart: Heart) -> float:
        """Forward one batch; returns how long to pause."""
        if (trouble := self._troubles()) != self._trouble:
            self._trouble = trouble
            self._go_back()
        if not self.waits:
            self._oldest_us = 0
            await self._tidy(heart)
            return IDLE_S
        if not self._oldest_us:
            await self._disk.do(heart, self._look)
            self._unreadable = ""
            if self._troubles() != self._trouble:
                return 0.0  # what is sent now would be sent again for what happened before
        if self._kafka.refusal is not None or not self._on():
            return min(IDLE_S, 0.1)
        width = self._width()
        if not width:
            return min(IDLE_S, self._pace.wait_s())
        permit = self._breaker.admit()
        if permit is None and (self._slow < SLOW_TIMES or self._breaker.state is State.FORCED_OPEN):
            return min(IDLE_S, max(0.05, self._breaker.retry_after_s()))
        if self._stuck or (permit is not None and permit.trial):
            width = 1
        await self._forward(heart, permit, width)
        await self._tidy(heart)
        return IDLE_S if self._stuck else 0.0

    async def _tidy(self, heart: Heart) -> None:
        if self._holding.due():
            await self._disk.do(heart, self._holding.keep)

    def _go_back(self) -> None:
        """What Kafka took lately may be gone with somebody's memory: send it again."""
        at = self._holding.settling.back()
        if at is not None:
            log.warning(
                "Kafka was in trouble: what it took lately is sent again", extra=fields(journal=self._source.name)
            )
            self.at = at

    def _width(self) -> int:
        most, rate = float(self._settings.forward_rate), self._rate()
        most = most if rate is None else min(rate, most)
        self._pace.steer(most, max(1, min(self._settings.forward_batch, int(most))))
        allowed = self._pace.allowed()
        return allowed if allowed >= self._pace.burst else 0

    async def _forward(self, heart: Heart, permit: Permit | None, width: int) -> None:
        """One batch. Without a permit, one that the breaker isn't told of: it opens for a slow Kafka too, which is no
        reason to keep what waits already."""
        try:
            chunk = await self._disk.do(heart, partial(self._read, width))
            self._unreadable = ""
            alarm.is_damaged(self._spells, self._source.name, chunk.damage)
            if not chunk.frames:
                self._tell(permit, self._breaker.abandoned)
                self.at = chunk.next
                self._holding.settling.passed(self.at, replicated=True)
                return
            began = self._clock.monotonic()
            outcomes = await sent(self._kafka, chunk.frames, heart, self._clock)
            slow = self._clock.monotonic() - began > self._breaker.limits.slow_s
        except BaseException:
            self._tell(permit, self._breaker.abandoned)
            raise
        count = await passed(chunk.frames, outcomes, self._park, heart, self._clock)
        self._pace.took(len(chunk.frames))
        self.forwarded.value += sum(frame.end > self._furthest for frame in chunk.frames[:count])
        if count:
            self.at = chunk.next if count == len(chunk.frames) else chunk.frames[count - 1].end
            self._furthest = max(self._furthest, self.at)
            firm = all(not isinstance(outcome, Position) or outcome.replicated for outcome in outcomes[:count])
            self._holding.settling.passed(self.at, replicated=firm)
        whole = count == len(chunk.frames)
        self._slow = self._slow + 1 if whole and slow and (permit is None or permit.trial) else 0
        self._judge(permit, None if whole else outcomes[count], whole=whole)

    def _judge(self, permit: Permit | None, first: Outcome | None, *, whole: bool) -> None:
        """Tell the breaker; ``first`` is what became of the first record that isn't where it belongs."""
        self._stuck = not whole and isinstance(first, Rejected)
        if whole:
            self._tell(permit, self._breaker.succeeded)
        elif isinstance(first, Overloaded):
            self._tell(permit, self._breaker.abandoned)  # our own queue is full
        elif self._stuck:
            self._tell(permit, self._breaker.succeeded)  # Kafka answered; our disk has no room for what it refuses
            alarm.stands(self._spells, self._source.name)
        else:
            self._tell(permit, self._breaker.failed)

    @staticmethod
    def _tell(permit: Permit | None, how: Callable[[Permit], None]) -> None:
        if permit is not None:
            how(permit)

    def _look(self) -> None:
        """Find out how old what waits is, also while none of it can be sent."""
        self._note_age(self._first())

    def _first(self) -> Chunk:
        return self._cursor.read(self.at, self.limit, records_max=1, bytes_max=1)

    def _note_age(self, chunk: Chunk) -> None:
        if chunk.frames:
            with contextlib.suppress(Corrupt):
                self._oldest_us = decode(chunk.frames[0].payload).received_us

    def _read(self, width: int) -> Chunk:
        chunk = self._cursor.read(self.at, self.limit, records_max=width, bytes_max=BATCH_BYTES_MAX)
        for damage in chunk.damage:
            log.warning("the spool is damaged; what is readable goes on", extra=fields(reason=damage.reason))
        self._quarantine.keep(chunk.damage)
        self._note_age(chunk)
        return chunk

    def _lag_s(self) -> float:
        if not self.waits or not self._oldest_us:
            return 0.0
        return max(0.0, (self._clock.wall_us() - self._oldest_us) / 1_000_000)
