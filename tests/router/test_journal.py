"""What the router does to and about logs: finding them, reading past damage, and letting go of what is routed."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from router.rig import Rig, append, record, until
from seawall.journal import Log, LogReader
from seawall.journal import Settings as LogSettings
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import SystemClock
from seawall.kernel.error import Corrupt, Unavailable
from seawall.kernel.event import Record
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.journal import Chunk, Damage, JournalReader, Position
from seawall.router.range import Ranges
from seawall.testing import MemoryJournal, MemoryReader


async def test_a_log_that_appears_later_is_found_and_routed(rig: Rig) -> None:
    async with rig.router() as supervisor:
        await until(lambda: any(loop.name == "router.discover" for loop in supervisor.health()))
        first = rig.log("c1")
        await append(first, record())
        await rig.arrived(1)
        await append(rig.log("c2"), record(), record())
        await rig.arrived(3)
    assert await rig.count("log_position") == 2


async def test_a_folder_that_can_not_be_listed_is_said_and_tried_again(rig: Rig) -> None:
    journal = rig.log()
    await append(journal, record())
    real, tries = rig.find, 0

    async def find() -> Mapping[str, JournalReader]:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise OSError(5, "Input/output error") if tries == 1 else Unavailable("journal", "away")
        return await real()

    rig.find = find  # type: ignore[method-assign]
    async with rig.router() as supervisor:
        await until(lambda: "Input/output" in supervisor.health()[0].reason)
        await rig.arrived(1)
        assert supervisor.health()[0].restarts == 0


class SlowTime(SystemClock):
    """The real clock, which a test moves forward."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s


async def test_segments_go_only_when_their_checkpoint_has_been_durable_for_long_enough(rig: Rig) -> None:
    journal = rig.log(segment_bytes_max=600)
    clock = SlowTime()
    await append(journal, *[record() for _ in range(20)])
    segments = len(journal.segments)
    assert segments > 3
    async with rig.router(clock=clock, journal_keep_s=3600.0) as supervisor:
        await rig.arrived(20)
        # A new checkpoint is seen only after a while, which is what makes the first one old.
        clock.ahead_s = 3590.0
        await asyncio.sleep(1.5)
        assert len(journal.segments) == segments
        clock.ahead_s = 3600.0 * 3
        await until(lambda: len(journal.segments) == 1)
        assert all(loop.restarts == 0 for loop in supervisor.health())
    assert rig.number("seawall_router_forgotten_total") == segments - 1
    assert len(journal.payloads) >= 1


@pytest.mark.slow
async def test_segments_that_an_older_range_still_needs_stay(rig: Rig) -> None:
    journal = rig.log(segment_bytes_max=600)
    clock = SlowTime()
    old_us = clock.wall_us() - 60_000_000
    await append(journal, *[record(received_us=old_us) for _ in range(40)])
    async with rig.router(clock=clock, batch_records=5, backlog_rate=1, backlog_batch=1, journal_keep_s=1.0):
        await until(lambda: rig.number("seawall_router_splits_total") == 1)
        await append(journal, record())
        await rig.arrived(1)
        first = min(journal.segments)
        await until(lambda: min(journal.segments) > first)  # what was routed of it goes, so it is tried at all
        left = 41 - await rig.count("event")
        assert left > 10
        assert len(journal.payloads) >= left


class Clinging(MemoryReader):
    """Its disk deletes nothing."""

    def forget(self, before: Position) -> int:
        raise Unavailable("journal", "Read-only file system")


@pytest.mark.slow
async def test_segments_that_a_disk_does_not_let_go_of_are_told_and_nothing_else_waits_for_them(rig: Rig) -> None:
    journal, clock = rig.log(), SlowTime()
    rig.logs["c1"] = Clinging(journal)
    await append(journal, record())
    async with rig.router(clock=clock, journal_keep_s=1.0) as supervisor:
        await rig.arrived(1)

        def reason() -> str:
            return next(loop.reason for loop in supervisor.health() if loop.name == "router.housekeeping")

        await until(lambda: "log c1: routed segments stay: journal" in reason())
        await rig.database.execute(
            "insert into dedupe values (gen_random_uuid(), '\\x00', gen_random_uuid(), '', now() - interval '3 days', "
            "now() - interval '2 days')"
        )

        async def pruned() -> bool:
            return await rig.count("dedupe") == 0

        await until(pruned)
        await until(lambda: "log c1" in reason())


async def test_a_copy_of_a_log_beside_it_keeps_no_housekeeping_up(rig: Rig) -> None:
    """Somebody has put a folder's copy beside it: two logs of one id, of which the store has one place."""
    journal = rig.log("c1")
    rig.logs["c1.bak"] = journal.reader()
    await append(journal, record())
    async with rig.router() as supervisor:
        await rig.arrived(1)
        await rig.arrived(1, table="log_progress", timeout_s=8)
        await until(lambda: supervisor.ready("router.housekeeping"))


@pytest.mark.slow
async def test_a_log_that_appears_amid_housekeeping_does_not_end_it(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.log("c1")
    ask, told = Ranges.checkpoint, asyncio.Event()
    asked: list[Ranges] = []

    async def checkpoint(self: Ranges) -> Position | None:
        asked.append(self)
        await told.wait()
        return await ask(self)

    monkeypatch.setattr(Ranges, "checkpoint", checkpoint)
    async with rig.router() as supervisor:
        await until(lambda: asked)
        rig.log("c2")
        await until(lambda: any(loop.name == "router.fresh.c2" for loop in supervisor.health()))
        told.set()
        await until(lambda: len({id(ranges) for ranges in asked}) == 2)
        assert all(loop.restarts == 0 for loop in supervisor.health())


class Damaged(MemoryReader):
    """Says, with the first record, that there was damage before it; and may be unable to read before some place."""

    broken_before: Position | None = None
    error: Exception = Corrupt("segment 1", "it is missing")

    def read(self, at: Position, *, end: Position | None = None, records_max: int, bytes_max: int) -> Chunk:
        if self.broken_before is not None and at < self.broken_before:
            raise self.error
        chunk = super().read(at, end=end, records_max=records_max, bytes_max=bytes_max)
        damage = (Damage(1, 64, 100, "checksum"),) if at.offset_bytes == 64 and at.segment_id == 1 else ()
        return replace(chunk, damage=damage)


async def test_damage_is_counted_once_and_what_is_readable_goes_on(rig: Rig) -> None:
    journal = rig.log()
    rig.logs["c1"] = Damaged(journal)
    await append(journal, record(), record(key_id=2**32 - 1), record())
    async with rig.router():
        await rig.arrived(3)
    assert rig.number("seawall_router_damage_total") == 1


@pytest.mark.parametrize("error", [Corrupt("segment 1", "it is missing"), OSError(5, "Input/output error")])
async def test_a_stretch_that_can_not_be_read_is_an_alarm_and_fresh_records_go_on(rig: Rig, error: Exception) -> None:
    journal = rig.log()
    reader = rig.logs["c1"] = Damaged(journal)
    done = await append(journal, *[record() for _ in range(5)])
    reader.broken_before, reader.error = done[-1], error
    async with rig.router() as supervisor:
        await until(lambda: rig.number("seawall_router_splits_total") == 1)
        fresh = record()
        await append(journal, fresh)
        await rig.arrived(1)
        assert (await rig.event(fresh.id))["status"] == 1

        def alarm() -> bool:
            return any(loop.name == "router.backlog.c1" and not loop.ready for loop in supervisor.health())

        await until(alarm)
        assert all(loop.restarts == 0 for loop in supervisor.health())
        # Whoever repairs it (a restored segment, a disk that is back) gets the rest routed.
        reader.broken_before = None
        await rig.arrived(6)


@pytest.mark.parametrize("wrong", ["segment = 7", "salt = '\\x00'", '"offset" = 1000000'])
async def test_a_log_that_knows_nothing_of_our_position_is_an_alarm_and_read_again(
    rig: Rig, wrong: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its folder was put back from a copy: what was accepted since may lie anywhere before the position."""
    journal = rig.log(segment_bytes_max=600)
    await append(journal, *[record() for _ in range(5)])
    async with rig.router():
        await rig.arrived(5)
    await rig.database.execute("delete from event where segment = 1")
    lost = 5 - await rig.count("event")
    assert lost > 0
    await rig.database.execute(f"update log_position set {wrong}")
    async with rig.router() as supervisor:
        await rig.arrived(5)
        await append(journal, record())
        await rig.arrived(6)
        assert all(loop.restarts == 0 for loop in supervisor.health())
    assert rig.number("seawall_router_begun_anew_total") == 1
    assert any("put back from a copy" in r.message for r in caplog.records if r.levelname == "ERROR")
    assert rig.number("seawall_alerts_active_count", alert="log-read-anew") == 1
    assert await rig.database.fetchval("select part from log_position") == 1


async def test_a_missing_segment_holds_nothing_back_and_readiness_tells_of_it(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    journal = rig.log(segment_bytes_max=600)
    clock = SlowTime()
    await append(journal, *[record() for _ in range(3)])
    async with rig.router(clock=clock):
        await rig.arrived(3)
    await append(journal, *[record() for _ in range(9)])
    at = await rig.database.fetchval("select segment from log_position")
    left = sum(len(s.payloads) for id, s in journal.segments.items() if id > at)
    assert left > 3
    for id in [id for id in journal.segments if id <= at]:
        del journal.segments[id]
    async with rig.router(clock=clock) as supervisor:
        await rig.arrived(3 + left)

        def said() -> list[str]:
            return [loop.reason for loop in supervisor.health() if not loop.ready and "is missing" in loop.reason]

        await until(said)
        assert f"segment {at}" in said()[0]
        clock.ahead_s = 61.0
        await until(lambda: not said())
    assert rig.number("seawall_router_missing_segments_count") == 1
    assert any("is missing" in r.message for r in caplog.records if r.levelname == "ERROR")
    assert rig.number("seawall_alerts_active_count", alert="journal-damaged") == 1


async def test_two_copies_of_one_log_are_told_and_neither_loses_an_event(rig: Rig) -> None:
    """Two collectors write the same log id, each in a folder of its own, and two routers share the store."""
    one, two = rig.log(segment_bytes_max=600), MemoryJournal(segment_bytes_max=600)
    two.log_id = one.log_id
    await append(one, *[record() for _ in range(8)])
    await append(two, *[record() for _ in range(8)])
    other = Rig(rig.dsn, rig.database, logs={"c1": two.reader()})
    async with rig.router(batch_records=2) as first, other.router(batch_records=2) as second:
        await rig.arrived(16, timeout_s=40.0)

        async def told() -> bool:
            await append(one, record())
            await append(two, record())
            loops = (*first.health(), *second.health())
            return any("second copy" in loop.reason for loop in loops if not loop.ready)

        await until(told, timeout_s=40.0)
        await rig.arrived(len(one.payloads) + len(two.payloads), timeout_s=40.0)
    assert rig.number("seawall_router_begun_anew_total") + other.number("seawall_router_begun_anew_total") >= 2


async def test_another_log_under_the_same_name_is_routed_from_its_start(rig: Rig, tmp_path: Path) -> None:
    folder = tmp_path / "c1"

    async def write(*records: Record) -> None:
        async with Log(folder, LogSettings(), metrics=Metrics(), on_failure=raised.append) as log:
            await append(log, *records)

    raised: list[str] = []
    await write(record(), record())
    async with LogReader(folder, tmp_path / "no.sock") as reader:
        rig.logs["c1"] = reader
        alerts = Alerts(rig.metrics, SystemClock())
        async with rig.router(alerts=alerts):
            await rig.arrived(2)
            while folder.exists():  # a reader that asks for the writer's lock may make that file meanwhile
                shutil.rmtree(folder, ignore_errors=True)
            await write(record(), record(), record())
            await rig.arrived(5)
            await until(lambda: [a.name for a in alerts.active()] == ["log-read-anew"])
    assert not raised
