"""Whoever fills the journal's disk while routing is behind is refused before the others are, and taken again after."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.collector.share import Ledger
from seawall.kernel.error import Unavailable
from seawall.kernel.seam.backlog import Stretch
from seawall.kernel.seam.journal import Position
from seawall.testing import ManualClock, MemoryJournal

from .rig import QUICK, Answered, Client, Rig, SourceTable, client, request, running, until

LOG = b"l" * 16
KIB = 1024
PATIENT = replace(QUICK, share_min_bytes=0, idle_s=60)


@dataclass(frozen=True)
class Part:
    at: Position
    end: Position | None = None


@dataclass
class Disk:
    """What waits, as the test says."""

    journal: MemoryJournal
    room: int = 100 * KIB
    parts: list[Part] = field(default_factory=list)
    away: bool = False
    asked: int = 0

    def __post_init__(self) -> None:
        self.parts = self.parts or [Part(Position(self.log_id, 0, 0))]

    @property
    def log_id(self) -> bytes:
        return self.journal.log_id

    async def unread(self) -> Sequence[Stretch]:
        self.asked += 1
        if self.away:
            raise Unavailable("PostgreSQL", "it is away")
        return self.parts

    async def room_bytes(self) -> int:
        return self.room

    def routed(self) -> None:
        self.parts = [Part(self.journal.synced_end)]

    async def looked_at(self) -> None:
        """A whole round after now."""
        before = self.asked
        await until(lambda: self.asked >= before + 2, within_s=10)


def two_tenants() -> SourceTable:
    sources = SourceTable()
    sources.add("big", tenant="acme")
    sources.add("small", tenant="other")
    return sources


async def send(c: Client, token: str, size: int) -> Answered:
    await c.send(request(f"/in/{token}", body=b"x" * size))
    answer = await c.answer()
    assert answer is not None
    return answer


async def fill(rig: Rig, c: Client, disk: Disk) -> None:
    for _ in range(10):
        assert (await send(c, "big", 10 * KIB)).status == 202
    disk.room = 20 * KIB
    await disk.looked_at()


async def test_a_tenant_over_its_share_is_told_429_while_others_are_taken(tmp_path: Path) -> None:
    disk = Disk(journal := MemoryJournal())
    async with (
        running(tmp_path, sources=two_tenants(), journal=journal, backlog=disk, settings=PATIENT) as rig,
        client(rig) as c,
    ):
        await fill(rig, c, disk)
        refused = await send(c, "big", KIB)
        assert refused.status == 429
        assert b"journal share used up" in refused.body
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.headers["ratelimit-policy"].startswith('"tenant-journal";q=')
        assert refused.headers["ratelimit-policy"].endswith(';qu="content-bytes"')
        limit = refused.headers["ratelimit"].split(";")
        assert limit[:2] == ['"tenant-journal"', "r=0"]
        assert int(limit[2][2:]) <= int(refused.headers["retry-after"]), "Retry-After wins and is never sooner"
        assert (await send(c, "small", KIB)).status == 202
        assert len(rig.records) == 11, "nothing of the refused one is kept"
        told = sorted((a.name, *a.labels.items()) for a in rig.alerts.active())
        assert told == [("journal-share", ("source", "big")), ("journal-share", ("tenant", "acme"))]


async def test_it_is_taken_again_when_its_events_are_routed(tmp_path: Path) -> None:
    disk = Disk(journal := MemoryJournal())
    async with (
        running(tmp_path, sources=two_tenants(), journal=journal, backlog=disk, settings=PATIENT) as rig,
        client(rig) as c,
    ):
        await fill(rig, c, disk)
        assert (await send(c, "big", KIB)).status == 429
        disk.routed()
        await disk.looked_at()
        assert (await send(c, "big", KIB)).status == 202
        assert not rig.alerts.active()
        assert rig.count("seawall_share_refused_total", by="tenant") == 1


async def test_events_that_were_routed_fresh_do_not_count_while_an_older_backlog_is_drained(tmp_path: Path) -> None:
    disk = Disk(journal := MemoryJournal())
    async with (
        running(tmp_path, sources=two_tenants(), journal=journal, backlog=disk, settings=PATIENT) as rig,
        client(rig) as c,
    ):
        begun = journal.synced_end
        for _ in range(10):
            assert (await send(c, "big", 10 * KIB)).status == 202
        disk.parts = [Part(Position(disk.log_id, 0, 0), begun), Part(journal.synced_end)]
        disk.room = 20 * KIB
        await disk.looked_at()
        assert (await send(c, "big", KIB)).status == 202


async def test_who_sent_little_is_not_blamed_for_a_disk_that_something_else_filled(tmp_path: Path) -> None:
    disk = Disk(journal := MemoryJournal())
    settings = replace(PATIENT, share_min_bytes=110 * KIB)
    async with (
        running(tmp_path, sources=two_tenants(), journal=journal, backlog=disk, settings=settings) as rig,
        client(rig) as c,
    ):
        await fill(rig, c, disk)
        assert (await send(c, "big", 20 * KIB)).status == 202
        await disk.looked_at()
        assert (await send(c, "big", KIB)).status == 429, "that is too much"


@pytest.mark.parametrize("settings", ["alone", "no cap"])
async def test_who_is_alone_or_may_fill_all_of_it_is_never_refused(settings: str, tmp_path: Path) -> None:
    sources = two_tenants()
    limits = PATIENT
    if settings == "alone":
        sources = SourceTable()
        sources.add("big", tenant="acme")
    else:
        limits = replace(PATIENT, tenant_share=1.0, source_share=1.0)
    disk = Disk(journal := MemoryJournal())
    async with running(
        tmp_path, sources=sources, journal=journal, backlog=disk, settings=limits
    ) as rig, client(rig) as c:  # fmt: skip
        await fill(rig, c, disk)
        assert (await send(c, "big", KIB)).status == 202


async def test_while_nobody_knows_what_is_routed_it_is_503_and_never_a_4xx(tmp_path: Path) -> None:
    disk, clock = Disk(journal := MemoryJournal()), ManualClock()
    settings = replace(QUICK, share_min_bytes=0, ack_s=60, request_s=600, idle_s=600)
    async with running(
        tmp_path, sources=two_tenants(), journal=journal, backlog=disk, clock=clock, settings=settings
    ) as rig, client(rig) as c:  # fmt: skip
        await fill(rig, c, disk)
        assert (await send(c, "big", KIB)).status == 429
        disk.away = True
        await disk.looked_at()
        clock.advance(settings.stale_s + 1)
        await until(lambda: not rig.snapshot.stale)
        refused = await send(c, "big", KIB)
        assert refused.status == 503
        assert "retry-after" in refused.headers
        assert (await send(c, "small", KIB)).status == 202


async def test_who_fills_the_disk_while_the_store_is_away_leaves_the_others_their_part(tmp_path: Path) -> None:
    disk = Disk(journal := MemoryJournal())
    async with (
        running(tmp_path, sources=two_tenants(), journal=journal, backlog=disk, settings=PATIENT) as rig,
        client(rig) as c,
    ):
        assert (await send(c, "big", 10 * KIB)).status == 202
        disk.routed()
        await disk.looked_at()
        disk.away = True
        await fill(rig, c, disk)
        refused = await send(c, "big", KIB)
        assert refused.status == 503, "more may have been routed than anybody here knows"
        assert b"journal share used up" in refused.body
        assert (await send(c, "small", KIB)).status == 202
        disk.room = 100 * KIB
        await disk.looked_at()
        assert (await send(c, "big", KIB)).status == 202, "what was routed by the last word doesn't count"
        disk.away = False
        disk.room = 20 * KIB
        await disk.looked_at()
        assert (await send(c, "big", KIB)).status == 429


async def test_a_disk_that_does_not_say_how_much_room_it_has_is_asked_once(tmp_path: Path) -> None:
    class Hung(Disk):
        questions = 0

        async def room_bytes(self) -> int:
            self.questions += 1
            await asyncio.Event().wait()
            return 0

    disk = Hung(journal := MemoryJournal())

    def reason(rig: Rig) -> str:
        return next(h.reason for h in rig.supervisor.health() if h.name == "collector.share")

    async with running(tmp_path, sources=two_tenants(), journal=journal, backlog=disk, settings=PATIENT) as rig:
        await until(lambda: "disk doesn't say" in reason(rig))
        await asyncio.sleep(2.5)
        assert disk.questions == 1
        assert "disk doesn't say" in reason(rig)


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 50)), min_size=1, max_size=120),
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 3000)), max_size=4),
    st.integers(1, 200),
    st.integers(2, 10),
)
def test_no_byte_that_waits_is_left_uncounted_and_none_is_counted_twice(
    records: list[tuple[str, int]], stretches: list[tuple[int, int]], bucket_bytes: int, buckets_max: int
) -> None:
    ledger = Ledger(bucket_bytes=bucket_bytes, buckets_max=buckets_max)
    at, ends = 0, []
    for tenant, size in records:
        at += size + 8
        ends.append((at, tenant, size))
        ledger.add(Position(LOG, 1, at), tenant, b"s" + tenant.encode(), size)
    assert ledger.total_bytes == sum(size for _, size in records)
    unread = [Part(Position(LOG, 1, low), Position(LOG, 1, low + length)) for low, length in stretches]
    ledger.read(unread)
    waits: Counter[str] = Counter()
    for end, tenant, size in ends:
        if any(low < end <= low + length for low, length in stretches):
            waits[tenant] += size
    for tenant in "ab":
        held = ledger.held[("tenant", tenant)]
        assert waits[tenant] <= held <= sum(size for _, who, size in ends if who == tenant)
        assert held == ledger.held[("source", b"s" + tenant.encode())]
    assert ledger.total_bytes == sum(ledger.held[("tenant", tenant)] for tenant in "ab")
    ledger.read([])
    assert ledger.total_bytes == 0
    assert not ledger.held
