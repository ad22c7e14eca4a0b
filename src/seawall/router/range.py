"""What is left to read of one log, as this process remembers it; the store has the truth.

A wrong memory is harmless: every move is a compare-and-set, and whoever is refused forgets and reads again.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace
from enum import Enum, auto

from seawall.kernel.clock import Clock
from seawall.kernel.error import Fenced, Unavailable, Uncertain
from seawall.kernel.seam.journal import Displaced, JournalReader, Position, Replaced, WentBack
from seawall.store import position
from seawall.store.pool import Store
from seawall.store.position import Range
from seawall.store.router import Move

STORE = "PostgreSQL"
BLOCKED_S = 5.0
"""How long a range that can't be read is left alone for the others."""

ANEW_MAX_S = 300.0
"""Longest pause between two times that a log is begun anew. Two copies of a log, each with its router, put each other
back by turns: in the growing pauses either of them reads to its end."""


NEAR_RECORDS = 20_000
"""How far before the place where a log went back reading it again begins; older records come after them."""


class Anew(Enum):
    """What became of beginning a log anew."""

    DONE = auto()
    NEEDLESS = auto()  # somebody else did it meanwhile
    LATER = auto()  # it was done too short a while ago


class Ranges:
    """The ranges of one log, shared by the loops that work on it."""

    def __init__(self, store: Store, reader: JournalReader, clock: Clock) -> None:
        self._store = store
        self._reader = reader
        self._clock = clock
        self._known: list[Range] | None = None
        self._changes = 0  # what was read while something changed is not to be remembered
        self._oldest_us: dict[int, int | None] = {}  # by part: when its next record came; None: nothing is unread
        self._passed_us: dict[int, int] = {}  # by part: all that came before is routed
        self._former: tuple[int | None, Position, int] | None = None  # what was last known: `behind_us`, end, when
        self._blocked: dict[int, tuple[float, str]] = {}  # by part: until when it is left alone, and why
        self._anew_count = 0
        self._anew_at = -math.inf  # not before this monotonic time

    @property
    def known(self) -> list[Range] | None:
        """Oldest first; None: they must be read."""
        return self._known

    @property
    def count(self) -> int:
        return len(self._known or ())

    @property
    def trouble(self) -> str:
        """Why some range can't be read, "" when all can."""
        return next((why for _, why in self._blocked.values()), "")

    @property
    def behind_us(self) -> int | None:
        """Wall-clock time at which the oldest unread record came; 0: not known yet; None: nothing is unread."""
        known = [self._oldest_us.get(range.part, 0) for range in self._known or ()]
        if not known:
            return 0
        return min((us for us in known if us is not None), default=None)

    @property
    def waiting_us(self) -> int | None:
        """As ``behind_us``; but while that isn't known (the store is away, or too slow) by what was last known, so that
        nobody takes it for "all is read"."""
        if behind_us := self.behind_us:
            return behind_us
        if (self._known is not None and behind_us is None) or self._former is None:
            return behind_us
        then_us, end, at_us = self._former
        return then_us or (at_us if self._reader.synced_end() > end else None)

    @property
    def passed_us(self) -> int | None:
        """Wall-clock time before which all that came is routed; None: not known now."""
        known = [self._passed_us.get(range.part) for range in self._known or ()]
        sure = [us for us in known if us is not None]
        return min(sure) if known and len(sure) == len(known) else None

    async def load(self) -> list[Range]:
        """Read them; a log that is new to the store begins where it can be read from.

        Raises:
            Unavailable, Uncertain: Safe to repeat.
        """
        changes = self._changes
        ranges = await position.ranges(self._store, self._reader.log_id)
        if not ranges:
            await position.begin(self._store, self._reader.start())
            ranges = await position.ranges(self._store, self._reader.log_id)
        if not ranges or ranges[-1].end is not None:
            raise Unavailable(STORE, f"log {self._reader.log_id.hex()} has no range that follows it")
        if changes == self._changes:
            self._known = ranges
        return ranges

    async def checkpoint(self) -> Position | None:
        """Before this everything is in the store, durably. None: the log isn't known there yet.

        A store that is behind what we remember has lost something (a fail-over to a replica that lagged). Who moves
        positions finds out by that; of a log without new records nobody would.

        Raises:
            Unavailable: The store is away.
        """
        known = {range.part: range.at for range in self._known or ()}
        ranges = await position.ranges(self._store, self._reader.log_id)
        if known and (not ranges or any(r.part not in known or r.at < known[r.part] for r in ranges)):
            self.doubt()
        return min((range.at for range in ranges), default=None)

    async def split(self, range: Range, at: Position) -> None:
        """End the newest range at ``at`` and begin a newer one there.

        Raises:
            Fenced: It isn't what we thought.
            Unavailable, Uncertain: Read them again.
        """
        try:
            await position.split(self._store, range, at)
        finally:
            self.doubt()

    async def begin_anew(self, error: Displaced) -> Anew:
        """The log isn't what its ranges say: read all of it again, unless that was done too short a while ago.

        Raises:
            Unavailable, Uncertain: Read them again.
        """
        self.doubt()
        now = self._clock.monotonic()
        if now < self._anew_at:
            return Anew.LATER
        start = self._reader.start()
        if isinstance(error, Replaced) and not await position.ranges(self._store, start.log_id):
            await position.begin(self._store, start)
            return Anew.DONE
        if not await position.begin_anew(self._store, start, self._displaced):
            return Anew.NEEDLESS
        if isinstance(error, WentBack):
            await self._first_near(error.at, start)
        self._anew_count += 1
        self._anew_at = now + min(ANEW_MAX_S, 2.0 ** min(self._anew_count, 30))  # a float ends at 1024
        self._oldest_us.clear()
        self._passed_us.clear()
        self._blocked.clear()
        return Anew.DONE

    async def _first_near(self, at: Position, start: Position) -> None:
        """Have what lies near the place where the log went back read before all that is older: there is what nobody has
        read, unless much was lost. Only the order depends on it, so nothing is lost when it fails."""
        near = min(at, self._reader.synced_end()).offset_bytes - NEAR_RECORDS
        if near > start.offset_bytes:
            with contextlib.suppress(Unavailable, Uncertain, Fenced):
                ranges = await position.ranges(self._store, start.log_id)
                await position.split(self._store, ranges[-1], replace(start, offset_bytes=near))
            self.doubt()

    def _displaced(self, at: Position) -> bool:
        """Whether a position isn't a place in the log, as far as can be told at once."""
        try:
            self._reader.read(at, records_max=1, bytes_max=1)
        except Displaced:
            return True
        # That this is certain was found out just now, by asking the writer.
        return at > self._reader.synced_end()

    def doubt(self) -> None:
        """Something happened that we didn't do, or may have done: read them again before the next step."""
        if self._known and (behind_us := self.behind_us) != 0:
            self._former = (behind_us, self._known[-1].at, self._clock.wall_us())
        self._known = None
        self._passed_us.clear()
        self._changes += 1

    def older(self, ranges: list[Range]) -> Range | None:
        """The newest of the ranges behind the one that follows the log, unless it can't be read now."""
        now = self._clock.monotonic()
        return next((r for r in reversed(ranges[:-1]) if self._blocked.get(r.part, (0.0, ""))[0] <= now), None)

    def saw(self, range: Range, received_us: int | None, *, read_us: int) -> None:
        """It could be read, and its next record came then; None: there is none here. But when the log says that it goes
        on, that one is as old as the last one was, or came just now.

        Args:
            read_us: Wall-clock time before it was read: this process may have stood still since.
        """
        self._blocked.pop(range.part, None)
        if received_us is None and (range.end or self._reader.synced_end()) > range.at:
            received_us = self._oldest_us.get(range.part) or read_us
        self._oldest_us[range.part] = received_us
        self._passed_us[range.part] = read_us if received_us is None else received_us

    def block(self, range: Range, why: str) -> None:
        """It can't be read: leave it alone for a while."""
        self._blocked[range.part] = (self._clock.monotonic() + BLOCKED_S, why)

    def moved(self, move: Move) -> None:
        """Take over what the store now says, unless they are to be read again anyhow."""
        self._changes += 1
        if self._known is None:
            return
        part = move.range.part
        if move.finishes:
            self._known = [r for r in self._known if r.part != part]
            self._oldest_us.pop(part, None)
            self._passed_us.pop(part, None)
            self._blocked.pop(part, None)
        else:
            self._known = [replace(r, at=move.to) if r.part == part else r for r in self._known]
