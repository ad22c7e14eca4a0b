"""Incident I4: what was answered from memory goes with the process that a supervisor kills before its handler is done.
The ledger's verdict must see it."""

from __future__ import annotations

import shutil
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from seawall.journal import Log
from seawall.journal.filesystem import LocalFilesystem
from seawall.kernel.metric import Metrics
from seawall.lab import expect
from seawall.lab.checker.verdict import Verdict
from seawall.lab.weak.memory import MemoryAck

from .desk import SMALL, Sender, payloads_in, seen

EVENTS = 50
LONG_S = 3600.0


class Killed(BaseException):
    """The process is gone. Not an Exception: nothing may handle it but the test."""


async def stopped(
    folder: Path, *, weak: bool, handler_s: float = LONG_S, kill_s: float = 0.0, away: bool = True
) -> Verdict:
    """A collector's journal takes events while Kafka is away, is told to stop, and is killed after so long; what the
    disk holds at that moment."""
    journal, after, sender = folder / "c1", folder / "killed", Sender(folder / "ledger")

    def killed() -> None:
        raise Killed

    async with Log(journal, SMALL, metrics=Metrics(), on_failure=pytest.fail) as log:
        front = MemoryAck(log, away=lambda: away, handler_s=handler_s, kill_s=kill_s, kill=killed)
        with suppress(Killed):
            async with front if weak else nullcontext(log) as taking:
                await sender.send(taking, EVENTS)
                if not weak:
                    killed()
        # A killed process leaves what it had given to the system.
        shutil.copytree(journal, after)
    return sender.verdict(payloads_in(after, LocalFilesystem()))


async def test_a_journal_keeps_all_that_it_acknowledged(tmp_path: Path) -> None:
    verdict = await stopped(tmp_path, weak=False)
    assert verdict.holds and verdict.accepted == verdict.finished == EVENTS
    assert expect.verdict(seen(verdict=verdict), lost=0).held


async def test_the_canary_loses_what_its_handler_had_no_time_for(tmp_path: Path) -> None:
    verdict = await stopped(tmp_path, weak=True)
    assert not verdict.holds and verdict.accepted == verdict.lost == EVENTS
    assert not expect.verdict(seen(verdict=verdict), lost=0).held
    assert "there is no such event" in verdict.examples["lost"][0]


async def test_without_a_kill_the_canary_loses_nothing(tmp_path: Path) -> None:
    verdict = await stopped(tmp_path, weak=True, handler_s=0.0, kill_s=LONG_S)
    assert verdict.holds and verdict.finished == EVENTS


async def test_without_an_outage_the_canary_loses_nothing(tmp_path: Path) -> None:
    verdict = await stopped(tmp_path, weak=True, away=False)
    assert verdict.holds and verdict.finished == EVENTS
