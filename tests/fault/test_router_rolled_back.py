"""A log's folder is put back from a copy while the store stays: what is accepted afterwards is routed, and told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from router.rig import Rig, opened, record
from seawall.journal import Log, LogReader, Settings
from seawall.journal.frame import HEADER_BYTES, Header
from seawall.journal.lock import try_lock
from seawall.journal.segment import segment_path
from seawall.kernel.event import encode
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.journal import Outcome, Position
from seawall.testing.postgres import Database


@pytest.fixture
async def rig(database: Database) -> AsyncIterator[Rig]:
    async with opened(database) as rig:
        yield rig


async def accept(folder: Path, count: int) -> list[Position]:
    """A collector starts, accepts so many events in a segment of its own, and stops."""
    settings = Settings(reserve_bytes=0)
    async with Log(folder, settings, metrics=Metrics(), on_failure=pytest.fail) as log:
        answers: list[asyncio.Future[Outcome]] = []
        for _ in range(count):
            answers.append(asyncio.get_running_loop().create_future())
            log.submit(encode(record()), answers[-1].set_result)
        outcomes = await asyncio.gather(*answers)
    return [outcome for outcome in outcomes if isinstance(outcome, Position)]


async def route(rig: Rig, folder: Path, until_count: int) -> None:
    """A router starts, routes until so many events are in the store, and stops."""
    async with LogReader(folder, folder.parent / "no.sock") as reader:
        rig.logs["c1"] = reader
        async with rig.router():
            await rig.arrived(until_count)


@contextlib.contextmanager
def written(folder: Path) -> Iterator[None]:
    """A collector lives and is silent: only the files tell how far its log is synced."""
    until = time.monotonic() + 5.0
    while (lock := try_lock(folder)) is None:  # a child of ours that was just forked may hold it until it is another
        assert time.monotonic() < until
        time.sleep(0.01)
    try:
        yield
    finally:
        lock.release()


@pytest.mark.parametrize("starts_before_routing", [1, 2, 3, 4])
async def test_what_is_accepted_after_a_log_was_put_back_reaches_the_store(
    rig: Rig, tmp_path: Path, starts_before_routing: int
) -> None:
    """The store's position is in segment 3. Segment numbers are given again, and at last pass it."""
    folder, copy = tmp_path / "journal" / "c1", tmp_path / "copy"
    await accept(folder, 3)
    await route(rig, folder, 3)
    shutil.copytree(folder, copy)
    for count in (6, 9):
        await accept(folder, 3)
        await route(rig, folder, count)
    shutil.rmtree(folder)
    copy.rename(folder)
    for _ in range(starts_before_routing):
        await accept(folder, 5)
    await route(rig, folder, 9 + 5 * starts_before_routing)
    assert rig.number("seawall_router_begun_anew_total") == 1
    # Once told, it is as good as any other log.
    await accept(folder, 2)
    await route(rig, folder, 11 + 5 * starts_before_routing)
    assert rig.number("seawall_router_begun_anew_total") == 1


async def test_a_segment_that_a_crash_left_blank_and_a_start_made_anew_is_no_alarm(rig: Rig, tmp_path: Path) -> None:
    """It never held a frame, so a position at its top would tell of another salt without meaning anything."""
    folder = tmp_path / "journal" / "c1"
    (*_, last) = await accept(folder, 3)
    header = Header(
        log_id=last.log_id, segment_id=2, salt=os.urandom(16), created_us=0, first_sequence=4,
        previous_end=last.offset_bytes,
    )  # fmt: skip
    segment_path(folder, 2).write_bytes(header.encode())
    with written(folder):
        await route(rig, folder, 3)
    assert await rig.database.fetchval("select segment from log_position") == 1
    (first, *_) = await accept(folder, 1)
    assert first.segment_id == 2 and first.salt != header.salt
    await route(rig, folder, 4)
    assert rig.number("seawall_router_begun_anew_total") == 0


async def test_a_silent_writer_is_no_alarm_though_the_files_prove_less_than_the_position(
    rig: Rig, tmp_path: Path
) -> None:
    """The newest batch is proven by the writer's word alone: a router that starts without it stands beyond."""
    folder = tmp_path / "journal" / "c1"
    await accept(folder, 1)
    await route(rig, folder, 1)
    before = await rig.database.fetchval('select "offset" from log_position')
    assert before > HEADER_BYTES
    with written(folder):
        async with LogReader(folder, folder.parent / "no.sock") as reader:
            rig.logs["c1"] = reader
            assert reader.synced_end().offset_bytes < before
            async with rig.router():
                await asyncio.sleep(1.2)
    assert rig.number("seawall_router_begun_anew_total") == 0
    assert await rig.database.fetchval('select "offset" from log_position') == before
