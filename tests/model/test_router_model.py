"""Ranges against a small model: whatever is read, split, raced, lost or repeated, each record is stored exactly once,
and what is left to read is always exactly what is not stored.

Two routers act on one log. Each knows the ranges as it last read them, so it often acts on what is no longer true; the
store must then refuse. A commit whose answer is lost is repeated, as the router does, after reading the ranges again.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from router.rig import append, record
from seawall.kernel.error import Fenced
from seawall.kernel.event import Record, decode
from seawall.kernel.seam.journal import Position
from seawall.kernel.status import EventStatus
from seawall.store import pool, position
from seawall.store import router as rows
from seawall.store.pool import Store
from seawall.store.position import Range
from seawall.store.router import Event, Move, Writes
from seawall.testing import MemoryJournal, MemoryReader
from seawall.testing.postgres import Database

WHO = st.integers(0, 1)
STEP = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 6)),
    st.tuples(st.just("look"), WHO),
    st.tuples(
        st.just("store"), WHO, st.integers(0, 3), st.integers(1, 5), st.sampled_from(["", "lost", "rolled back"])
    ),
    st.tuples(st.just("split"), WHO),
    st.tuples(st.just("begin"), WHO),
)


class RolledBackError(Exception):
    """A failure inside the transaction."""


@dataclass
class World:
    """A log, two routers' memories of its ranges, and the model: which records were stored."""

    store: Store
    journal: MemoryJournal
    reader: MemoryReader
    sent: list[Record] = field(default_factory=list)
    ends: list[Position] = field(default_factory=list)
    seen: list[list[Range]] = field(default_factory=lambda: [[], []])
    stored: Counter[bytes] = field(default_factory=Counter)
    fenced: int = 0

    async def append(self, count: int) -> None:
        records = [record() for _ in range(count)]
        self.ends += await append(self.journal, *records)
        self.sent += records

    async def look(self, who: int) -> None:
        self.seen[who] = await position.ranges(self.store, self.journal.log_id)

    async def begin(self, who: int) -> None:
        await position.begin(self.store, self.reader.start())

    async def split(self, who: int) -> None:
        ranges = self.seen[who]
        if not ranges or ranges[-1].at >= self.reader.synced_end():
            return
        fresh = ranges[-1].end is None and ranges[-1] in await position.ranges(self.store, self.journal.log_id)
        try:
            await position.split(self.store, ranges[-1], self.reader.synced_end())
        except Fenced:
            assert not fresh
            self.fenced += 1
        else:
            assert fresh
        await self.look(who)

    async def store_some(self, who: int, which: int, count: int, fate: str) -> None:
        ranges = self.seen[who]
        if not ranges:
            return
        range = ranges[which % len(ranges)]
        fresh = range in await position.ranges(self.store, self.journal.log_id)
        chunk = self.reader.read(range.at, end=range.end, records_max=count, bytes_max=1 << 20)
        records = [decode(frame.payload) for frame in chunk.frames]
        version = (await rows.catalogue(self.store)).version

        def decide(_holders: object, _firsts: object) -> Writes:
            if fate == "rolled back":
                raise RolledBackError
            return Writes(
                [
                    Event(record=r, at=f.end, type="t", status=EventStatus.ROUTED)
                    for r, f in zip(records, chunk.frames, strict=True)
                ]
            )

        try:
            kept = await rows.commit(self.store, Move(range, chunk.next), [], [], [], version, decide, timeout_s=5.0)
        except Fenced:
            assert not fresh
            self.fenced += 1
            await self.look(who)
        except RolledBackError:
            assert fresh
        else:
            assert fresh
            assert kept.events == len(records), "a record was read twice"
            self.stored.update(r.id for r in records)
            if fate != "lost":
                await self.look(who)

    async def check(self) -> None:
        """What is left to read is what was not stored, in ranges that neither overlap nor leave a gap between."""
        ranges = await position.ranges(self.store, self.journal.log_id)
        if not ranges:
            assert not self.stored
            return
        assert ranges[-1].end is None
        assert all(one.end is not None and one.at < one.end <= two.at for one, two in itertools.pairwise(ranges))
        left: Counter[bytes] = Counter()
        for range in ranges:
            chunk = self.reader.read(range.at, end=range.end, records_max=10_000, bytes_max=1 << 30)
            left.update(decode(frame.payload).id for frame in chunk.frames)
        assert left + self.stored == Counter(r.id for r in self.sent)


SPLIT_UNSEEN = [("append", 1), ("begin", 0), ("look", 0), ("look", 1), ("split", 0), ("store", 1, 0, 1, "")]
"""The second router doesn't know that the range that it reads has an end by now."""

BEGUN_AGAIN = [("append", 1), ("begin", 0), ("look", 0), ("split", 0), ("store", 0, 0, 1, ""), ("begin", 1)]
"""The second router took the log for a new one, and was slow: its first range is drained by now."""


@example(steps=SPLIT_UNSEEN)
@example(steps=BEGUN_AGAIN)
@given(steps=st.lists(STEP, min_size=5, max_size=40))
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_each_record_is_stored_once_and_what_is_left_is_what_is_not_stored(
    database: Database, steps: list[tuple[object, ...]]
) -> None:
    journal = MemoryJournal(segment_bytes_max=700)
    async with Store(pool.Settings(dsn=database.dsn), role="test") as store:
        world = World(store, journal, journal.reader())
        acts = {
            "append": world.append, "look": world.look, "begin": world.begin, "split": world.split,
            "store": world.store_some,
        }  # fmt: skip
        for name, *values in steps:
            await acts[str(name)](*values)  # type: ignore[operator]
            await world.check()
        # In the end one router that reads what is true drains everything.
        await world.begin(0)
        for _ in range(1000):
            await world.look(0)
            if sum(world.stored.values()) == len(world.sent) and len(world.seen[0]) == 1:
                break
            await world.store_some(0, 0, 5, "")
            world.seen[0] = world.seen[0][1:] + world.seen[0][:1]
            await world.store_some(0, 0, 5, "")
        await world.check()
        assert world.stored == Counter(r.id for r in world.sent)
