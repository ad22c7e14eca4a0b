"""Drains one log into the store, the newest range first and without pause, older ranges beside it at a fixed rate.

What is still to be read of a log is a small set of ranges. There is one, which follows the log, until the oldest
unread record is too old (the store was away, or the router): then that range gets an end at what is synced now, and a
newer one begins there. So after an outage a fresh event waits for no backlog. A range that reached its end is
deleted.

Two supervised loops for each log, since a loop that waits for its pace must not hold back one that doesn't. All that
they share is which ranges there are; each range is moved by compare-and-set in the store, so a wrong memory costs a
repeat.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from seawall.guard.pace import Pace
from seawall.guard.patience import patiently, rest
from seawall.guard.retry import Backoff
from seawall.guard.spell import Spells
from seawall.guard.supervisor import Heart
from seawall.kernel.clock import Clock
from seawall.kernel.error import Corrupt, Fenced, SeawallError, Unavailable, Uncertain, Unstorable
from seawall.kernel.event import decode
from seawall.kernel.log import fields, logger
from seawall.kernel.placement import Placement
from seawall.kernel.seam.flag import Switch, always
from seawall.kernel.seam.journal import Chunk, Displaced, Frame, JournalReader, Position
from seawall.router import alarm
from seawall.router.anew import begin_anew
from seawall.router.batch import Batch, Rules, alone, gather, settle
from seawall.router.catalogue import Rulebook
from seawall.router.damage import DamageReport
from seawall.router.depth import Depths, Taking
from seawall.router.lane import Lane
from seawall.router.meter import Meter
from seawall.router.range import STORE, Ranges
from seawall.router.settings import Settings
from seawall.store import position
from seawall.store import router as rows
from seawall.store.pool import Store
from seawall.store.position import Range
from seawall.store.router import Collapsed, Holders, Move, Stale, Writes

log = logger("router")

WAIT_S = 0.5
"""Longest wait for new records between two beats."""

UNREGISTERED_S = 0.1
"""How soon it is looked again whether the app's workflows are registered."""

IDLE_S = 0.2
"""How soon a new backlog is noticed."""

BACKOFF_MIN_S = 0.05
BACKOFF_MAX_S = 2.0


@dataclass(slots=True, kw_only=True)
class Desk:
    """What all logs of one router share."""

    store: Store
    settings: Settings  # in force now
    clock: Clock
    rulebook: Rulebook
    placement: Placement
    meter: Meter
    spells: Spells
    enrich: Callable[[Batch], Awaitable[Batch]]  # with what may be left out; never raises
    draining: Switch = always  # whether older ranges are drained at all
    depths: Depths | None = None  # which queues take no more runs; None: all take any number
    backlog_rate: float | None = None  # as the governor allows, in records a second of each log; None: it said nothing


# Size: one position of one log, and all that may become of the batch at it.
class Drain:
    """One log. ``fresh`` and ``backlog`` are its loops, for a supervisor."""

    def __init__(self, name: str, reader: JournalReader, desk: Desk) -> None:
        self.name = name
        self.reader = reader
        self._desk = desk
        self.ranges = Ranges(desk.store, reader, desk.clock)
        self._damage = DamageReport(name, desk.meter, desk.spells)
        self._pace = Pace(*self._rate(), desk.clock)
        self._rng = random.Random()

    def reload(self) -> None:
        """The desk's settings, or its rate, were replaced; batches are as large as they say from the next one on."""
        self._pace.steer(*self._rate())

    def _rate(self) -> tuple[float, int]:
        settings, governed = self._desk.settings, self._desk.backlog_rate
        rate = settings.backlog_rate if governed is None else min(governed, settings.backlog_rate)
        return rate, max(1, min(settings.backlog_batch, int(rate)))

    def _records_max(self, *, backlog: bool) -> int:
        return self._desk.settings.backlog_batch if backlog else self._desk.settings.batch_records

    async def fresh(self, heart: Heart) -> None:
        """Follow the log with the newest range, until cancelled."""
        await self._serve(heart, Lane(backlog=False, records_max=self._records_max(backlog=False)))

    async def backlog(self, heart: Heart) -> None:
        """Drain older ranges, the newest of them first, until cancelled."""
        await self._serve(heart, Lane(backlog=True, records_max=self._records_max(backlog=True)))

    async def _serve(self, heart: Heart, lane: Lane) -> None:
        backoff = Backoff(BACKOFF_MIN_S, BACKOFF_MAX_S, self._rng)
        while True:
            try:
                await self._round(heart, lane)
                backoff.reset()
            except Displaced as error:
                await begin_anew(heart, self.name, self.ranges, self._desk, error)
            except Stale:
                self._desk.rulebook.outdated()
            except Fenced as error:
                self._desk.meter.fenced.value += 1
                self.ranges.doubt()
                log.info("somebody else moved the position", extra=fields(log=self.name, cause=str(error)))
                await self._beat(heart, lane)
                await asyncio.sleep(self._rng.uniform(0.0, 0.1))
            except (Unavailable, Uncertain) as error:
                # Whether an uncertain batch was committed is what the position says: it is read again below.
                pause_s = backoff.pause_s()
                log.warning("can't route now", extra=fields(log=self.name, cause=str(error), retry_s=round(pause_s, 3)))
                await self._survive(heart, lane)
                self.ranges.doubt()
                await rest(heart, pause_s, reason=str(error))

    async def _round(self, heart: Heart, lane: Lane) -> None:
        """Store one batch, or wait a moment for one."""
        lane.records_max = self._records_max(backlog=lane.backlog)
        range = lane.turned(await self._pick(heart, lane))
        allowed = min(lane.width, self._pace.allowed()) if lane.backlog else lane.width
        if range is None or allowed < min(lane.width, self._pace.burst):
            await self._beat(heart, lane)
            await asyncio.sleep(IDLE_S if range is None else min(WAIT_S, self._pace.wait_s()))
            return
        try:
            chunk = self._read(range, allowed)
        except Displaced:
            raise
        except (Corrupt, OSError) as error:
            await self._bypass(heart, lane, range, error)
            return
        if chunk.frames and not lane.backlog and not lane.troubled and self._lags(chunk):
            await self._split(heart, range)
        elif chunk.frames or _moves(range, chunk) or (range.end is not None and chunk.next >= range.end):
            await self._store(heart, lane, range, chunk)
        else:
            await self._wait(heart, lane, range)

    async def _pick(self, heart: Heart, lane: Lane) -> Range | None:
        """The range to work on; None: there is none for this loop."""
        ranges = self.ranges.known
        if ranges is None:
            ranges = await patiently(heart, self.ranges.load(), what=STORE)
        older = self.ranges.older(ranges) if self._desk.draining() else None
        return older if lane.backlog else ranges[-1]

    def _read(self, range: Range, records_max: int) -> Chunk:
        most, read_us = self._desk.settings.batch_bytes, self._desk.clock.wall_us()
        chunk = self.reader.read(range.at, end=range.end, records_max=records_max, bytes_max=most)
        self._damage.add(chunk.damage, self._desk.clock.monotonic())
        self.ranges.saw(range, _received_us(chunk.frames), read_us=read_us)
        return chunk

    def _lags(self, chunk: Chunk) -> bool:
        """Whether what is unread is old, and more than one batch: less is quicker routed than split off."""
        received_us = _received_us(chunk.frames)
        settings = self._desk.settings
        return (
            received_us is not None
            and self._desk.clock.wall_us() - received_us > settings.lag_split_s * 1_000_000
            and self.reader.synced_end() > chunk.next
            and self.ranges.count < settings.ranges_max
        )

    async def _split(self, heart: Heart, range: Range) -> None:
        await patiently(heart, self.ranges.split(range, self.reader.synced_end()), what=STORE)
        self._desk.meter.splits.value += 1
        log.warning(
            "the log lags; fresh records go first and older ones follow at a fixed rate",
            extra=fields(log=self.name, part=range.part, rate=self._desk.settings.backlog_rate),
        )

    async def _bypass(self, heart: Heart, lane: Lane, range: Range, error: Exception) -> None:
        """A range can't be read on (a segment is missing, the disk fails). It stays, as an alarm; others go on."""
        alarm.unreadable(self._desk.spells, self.name, f"part {range.part}: {error}")
        reason = f"log {self.name}, part {range.part}: {error}"
        if lane.backlog:
            self.ranges.block(range, reason)
        elif self.reader.synced_end() > range.at and self.ranges.count < self._desk.settings.ranges_max:
            await self._split(heart, range)
        await rest(heart, 1.0, reason=reason)

    async def _beat(self, heart: Heart, lane: Lane) -> None:
        """Progress was made; readiness stays away while some older range can't be read, and a while after a segment
        was found missing."""
        await heart.beat()
        trouble = self.ranges.trouble or self._damage.missing(self._desk.clock.monotonic())
        if lane.backlog and trouble:
            heart.unready(trouble)

    async def _wait(self, heart: Heart, lane: Lane, range: Range) -> None:
        await self._beat(heart, lane)
        if lane.promised == range.at:
            # There is said to be more, and it couldn't be read: asking again at once would only burn the processor.
            await asyncio.sleep(IDLE_S)
        there = await patiently(heart, self.reader.wait(range.at, WAIT_S), what=f"journal {self.name}")
        lane.promised = range.at if there else None

    async def _store(self, heart: Heart, lane: Lane, range: Range, chunk: Chunk) -> None:
        """Store what the chunk begins with. Without frames only the position moves, past damage or a segment's end."""
        rules = await patiently(heart, self._desk.rulebook.current(), what=STORE)
        if rules is None:
            await rest(heart, UNREGISTERED_S, reason="no workflow of the app is registered in this store yet")
            return
        if chunk.frames and lane.begins(range.part):
            lane.unproven = True
            starts = await patiently(heart, position.count_start(self._desk.store, range), what=STORE)
            lane.began(range.part, starts)
        batch = await self._desk.enrich(_gathered(self.name, lane, chunk, rules, self._desk.spells))
        move = Move(range, chunk.next if len(batch.items) == len(chunk.frames) else batch.end)
        began = self._desk.clock.monotonic()
        try:
            await self._commit(heart, lane, move, batch, rules)
        except Unstorable as error:
            await self._refused(heart, lane, len(batch.items), error)
        except Collapsed as error:
            lane.collapsed |= error.ids
        except (Unavailable, Uncertain):
            if self._desk.clock.monotonic() - began > self._desk.settings.transaction_timeout_s / 2:
                lane.overdue()
            raise
        else:
            await self._beat(heart, lane)

    async def _commit(self, heart: Heart, lane: Lane, move: Move, batch: Batch, rules: Rules) -> None:
        desk = self._desk
        made = Writes()
        taking = None if desk.depths is None else Taking(desk.depths)

        def decide(holders: Holders, firsts: Mapping[Position, int]) -> Writes:
            nonlocal made
            made = settle(batch, holders, firsts, rules, desk.placement, taking, backlog=lane.backlog)
            return made

        work = rows.commit(
            desk.store, move, list(batch.keys.values()), batch.claimants, batch.notes, rules.catalogue.version, decide,
            timeout_s=desk.settings.transaction_timeout_s,
        )  # fmt: skip
        with taking or contextlib.nullcontext():
            kept = await patiently(heart, work, what=STORE)
        lane.stored(len(batch.items))
        desk.meter.kept(made, kept)
        if kept.unheard:
            alarm.unheard(desk.spells, kept.unheard)
        self.ranges.moved(move)
        if lane.backlog:
            self._pace.took(len(batch.items))

    async def _refused(self, heart: Heart, lane: Lane, count: int, error: Unstorable) -> None:
        self._desk.meter.refused.value += 1
        hopeless = lane.verdict is not None
        lane.refused(count, str(error))
        if not hopeless:
            log.warning("the store refused a batch", extra=fields(log=self.name, records=count, cause=str(error)))
            await self._beat(heart, lane)
            return
        # The schema itself is in the way (a constraint, a trigger): the line stands still, and must say so.
        alarm.stands(self._desk.spells, self.name, str(error))
        await rest(heart, 1.0, reason=f"log {self.name}: {error}")

    async def _survive(self, heart: Heart, lane: Lane) -> None:
        """After a failed attempt: nothing in it ends processes, so the next start must not count it."""
        unproven = lane.unproven
        lane.survived()
        if not unproven:
            return
        for range in self.ranges.known or ():
            with contextlib.suppress(SeawallError):
                await patiently(heart, position.clear_starts(self._desk.store, range), what=STORE)


def _gathered(log_name: str, lane: Lane, chunk: Chunk, rules: Rules, spells: Spells) -> Batch:
    """What the lane takes of a chunk; the one record that it has found guilty becomes a dead letter."""
    verdict = lane.verdict
    if verdict is None or not chunk.frames:
        return gather(chunk.frames[: lane.width], rules, lane.collapsed)
    end = chunk.frames[0].end
    log.warning(
        "a record becomes a dead letter",
        extra=fields(log=log_name, segment=end.segment_id, offset=end.offset_bytes, reason=verdict.reason),
    )
    alarm.dead_letter(spells, log_name, verdict.reason)
    return alone(chunk.frames[0], tries=verdict.tries, reason=verdict.reason)


def _moves(range: Range, chunk: Chunk) -> bool:
    """Whether reading goes on elsewhere, or at the same place of which more is known now."""
    return chunk.next != range.at or chunk.next.salt != range.at.salt


def _received_us(frames: Sequence[Frame]) -> int | None:
    """When the first of the frames was accepted; None when there is none, or it doesn't say."""
    if not frames:
        return None
    try:
        return decode(frames[0].payload).received_us
    except Corrupt:
        return None
