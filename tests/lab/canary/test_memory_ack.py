"""Incident I4: what was answered from memory goes with the process that a supervisor kills before its handler is done.
The ledger's verdict must see it."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from seawall.journal import Log
from seawall.journal.filesystem import LocalFilesystem
from seawall.kernel.metric import Metrics
from seawall.lab import expect
from seawall.lab.verdict import Verdict
from seawall.lab.weak.memory import MemoryAck

from .desk import SMALL, Sender, payloads_in, seen

EVENTS = 50
LONG_S = 3600.0


async def stopped(folder: Path, *, weak: bool, handler_s: float, kill_s: float | None) -> Verdict:
    """A collector's journal takes events while Kafka is away, is told to stop, and is killed after so long; what the
    disk holds at that moment."""
    journal, after, sender = folder / "c1", folder / "killed", Sender(folder / "ledger")
    async with Log(journal, SMALL, metrics=Metrics(), on_failure=pytest.fail) as log:
        front = MemoryAck(log, away=lambda: True, handler_s=handler_s) if weak else nullcontext(log)
        with suppress(TimeoutError):
            async with asyncio.timeout(None) as killing, front as taking:
                await sender.send(taking, EVENTS)
                if kill_s is not None:
                    killing.reschedule(asyncio.get_running_loop().time() + kill_s)
        # A killed process leaves what it had given to the system.
        shutil.copytree(journal, after)
    return sender.verdict(payloads_in(after, LocalFilesystem()))


async def test_a_journal_keeps_all_that_it_acknowledged(tmp_path: Path) -> None:
    verdict = await stopped(tmp_path, weak=False, handler_s=0.0, kill_s=0.0)
    assert verdict.holds and verdict.accepted == verdict.finished == EVENTS
    assert expect.verdict(seen(verdict=verdict), lost=0).held


async def test_the_canary_loses_what_its_handler_had_no_time_for(tmp_path: Path) -> None:
    verdict = await stopped(tmp_path, weak=True, handler_s=LONG_S, kill_s=0.05)
    assert not verdict.holds and verdict.accepted == verdict.lost == EVENTS
    assert not expect.verdict(seen(verdict=verdict), lost=0).held
    assert "there is no such event" in verdict.examples["lost"][0]


async def test_without_a_kill_the_canary_loses_nothing(tmp_path: Path) -> None:
    verdict = await stopped(tmp_path, weak=True, handler_s=0.05, kill_s=None)
    assert verdict.holds and verdict.finished == EVENTS
