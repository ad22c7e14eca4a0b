"""A sync that failed and is tried again: the second one succeeds, and what it was to write is nowhere. The ledger's
verdict must see it after a power cut."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

from seawall.journal import Log
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.filesystem import Filesystem
from seawall.lab import expect
from seawall.lab.checker.verdict import Verdict
from seawall.lab.weak.disk import RetriedFilesystem
from seawall.testing import CrashDisk

from .desk import SMALL, Sender, payloads_in, seen

FIRST, EVENTS = 5, 25


async def after_power_cut(folder: Path, over: Callable[[CrashDisk], Filesystem], *, failing: bool) -> Verdict:
    """Events come, each with a sync of its own; from the sixth on every other sync fails; then the power goes."""
    disk, sender = CrashDisk(seed=3), Sender(folder / "ledger")
    failures: list[str] = []
    journal = folder / "c1"
    journal.mkdir()  # for its lock: the rest is the disk's
    async with Log(
        journal, SMALL, metrics=Metrics(), on_failure=failures.append, filesystem=over(disk)
    ) as log:  # fmt: skip
        await sender.send(log, FIRST)
        fails = [False]

        def plan(call: str, number: int) -> OSError | None:
            if call != "sync_data":
                return None
            fails[0] = not fails[0]
            return OSError(errno.EIO, "the canary's") if fails[0] else None

        disk.plan = plan if failing else None
        await sender.send(log, EVENTS - FIRST)
    disk.plan = None
    disk.power_loss()
    return sender.verdict(payloads_in(journal, disk))


def real(disk: CrashDisk) -> Filesystem:
    return disk


async def test_a_journal_takes_nothing_after_a_failed_sync(tmp_path: Path) -> None:
    verdict = await after_power_cut(tmp_path, real, failing=True)
    assert verdict.holds and verdict.accepted == verdict.finished == FIRST
    assert expect.verdict(seen(verdict=verdict), lost=0).held


async def test_the_canary_believes_the_second_sync_and_loses_what_the_first_one_dropped(tmp_path: Path) -> None:
    verdict = await after_power_cut(tmp_path, RetriedFilesystem, failing=True)
    assert not verdict.holds and verdict.accepted == EVENTS and 0 < verdict.lost <= EVENTS - FIRST
    assert not expect.verdict(seen(verdict=verdict), lost=0).held


async def test_on_a_sound_disk_the_canary_loses_nothing(tmp_path: Path) -> None:
    verdict = await after_power_cut(tmp_path, RetriedFilesystem, failing=False)
    assert verdict.holds and verdict.finished == EVENTS
