"""A run that kills its process (S2): it alone ends dead, and its thousand neighbours neither die nor repeat a step."""

from __future__ import annotations

import collections
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from seawall.kernel.cause import Cause
from seawall.kernel.status import RunStatus
from seawall.testing.postgres import Database
from worker import poison, slow
from worker.rig import TESTS, Rig, opened, process


@pytest.fixture
async def rig(database: Database) -> AsyncIterator[Rig]:
    async with opened(database) as rig:
        await rig.registered(poison.app)
        yield rig


async def ended_under_restarts(rig: Rig, notes: Path, runs: list[int], timeout_s: float) -> int:
    """Run to the end with a worker process that is started again whenever it dies; returns how often it was started."""
    starts = 0
    done = False

    async def all_done() -> bool:
        return bool(await rig.db.fetchval("select count(*) = $1 from run_done", len(runs)))

    while not done:
        starts += 1
        with process(rig, "worker.poison", NOTES=str(notes)) as child:

            async def over(child=child) -> bool:  # type: ignore[no-untyped-def]
                return child.poll() is not None or await all_done()

            await rig.until(over, timeout_s)
            done = await all_done()
    return starts


@pytest.mark.slow
@pytest.mark.parametrize("how", ["exit", "block"])
async def test_a_poison_among_a_thousand_alone_ends_dead(rig: Rig, tmp_path: Path, how: str) -> None:
    notes = tmp_path / "notes"
    notes.touch()
    bodies: list[object] = [{} for _ in range(1000 if how == "exit" else 100)]
    bodies[37] = {"poison": how}
    runs = await rig.add("mixed", bodies)
    await ended_under_restarts(rig, notes, runs, 60)

    rows = await rig.db.fetch("select id, event_id, status, error, cause from run_done")
    dead = [row for row in rows if row["status"] != RunStatus.SUCCEEDED]
    assert [row["id"] for row in dead] == [runs[37]]
    assert dead[0]["status"] == RunStatus.DEAD and "died 3 times while it was alone" in dead[0]["error"]
    assert dead[0]["cause"] == Cause.KILLED
    # A step whose value was kept is never called again. One that was under way when its process died may be: twice at
    # most here, and only those that were in hand then.
    kept = {(row[0], row[1]) for row in await rig.db.fetch("select run_id, name from step")}
    assert len(kept) == 2 * len(runs) - 1
    counts = collections.Counter(notes.read_text().split("\n"))
    del counts[""]
    again = {line: count for line, count in counts.items() if count > 1}
    assert all(count <= 2 for count in again.values()), again
    poisoned = str(dead[0]["event_id"])
    assert counts[f"first {poisoned}"] == 1  # its first step was kept before it killed anybody
    assert await rig.db.fetchval("select count(*) from refill") == 0


async def test_an_orderly_stop_is_no_death_of_the_suspect_in_hand(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three restarts would bury a run that did nothing but take its time."""
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    await rig.registered(slow.app)
    [run] = await rig.add("never_ends", [{}], shard=-1)
    command = [sys.executable, "-m", "worker.child", rig.database.worker_dsn, "worker.slow"]
    async with rig.worker(slow.app, solo_command=command):
        await rig.until(lambda: rig.db.fetchval("select count(*) = 1 from refill where shard = -1"))
    assert await rig.db.fetchval("select count(*) from refill") == 0
    assert await rig.db.fetchval("select owner is null from shard_lease where shard = -1")
    assert await rig.db.fetchval("select deaths from run where id = $1", run) == 0


@pytest.mark.slow
async def test_a_run_that_exhausts_memory_ends_alone_while_other_suspects_succeed(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    runs = await rig.add("mixed", [{}, {"poison": "memory"}, {}], shard=-1)
    command = [sys.executable, "-m", "worker.child", rig.database.worker_dsn, "worker.poison"]
    async with rig.worker(poison.app, solo_command=command):
        await rig.until(lambda: rig.db.fetchval("select count(*) = 3 from run_done"), 60)
    rows = {row["id"]: row for row in await rig.db.fetch("select id, status, error from run_done")}
    assert [rows[run]["status"] for run in runs] == [RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.SUCCEEDED]
    assert "MemoryError" in rows[runs[1]]["error"]
