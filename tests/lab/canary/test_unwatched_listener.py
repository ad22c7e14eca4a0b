"""Incident I1 at its root: the loop that listens ends inside a process that goes on. Whoever watches it starts it
again; where nobody does, held requests wait until their time is over, and the verdict must see it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from responder.world import world
from seawall.guard import Supervisor
from seawall.kernel.metric import Metrics
from seawall.lab import expect
from seawall.lab.checker.verdict import Verdict
from seawall.lab.weak import mortal
from seawall.lab.weak.mortal import MortalResponder, UnwatchedResponder
from seawall.responder import Responder
from seawall.store import pool
from seawall.testing.postgres import Database

from .desk import seen
from .test_deaf_listener import PATIENT_S, REQUESTS, WAIT_S, Asking, listening


async def answered(database: Database, kind: type[Responder], path: Path, *, ends: bool) -> tuple[Verdict, int]:
    """Requests that are held after the listener ended, or didn't; and how often it was started again."""
    metrics = Metrics()
    async with world(database.dsn) as here, kind(pool.Settings(dsn=database.dsn), metrics=metrics) as responder:
        supervisor = Supervisor(metrics)
        responder.register(supervisor)
        async with supervisor:
            await listening(here)
            if ends:
                told = mortal.end()
                assert len(told) == 1
                await _until(lambda: told[0].ended)
            weak = kind is UnwatchedResponder
            asking = Asking(responder, here, path, wait_s=WAIT_S if ends and weak else PATIENT_S)
            await asyncio.gather(*[asking.ask(n) for n in range(REQUESTS)])
            if ends and not weak:
                await _until(lambda: _restarts(supervisor) > 0)
            return asking.verdict(), _restarts(supervisor)


def _restarts(supervisor: Supervisor) -> int:
    return sum(loop.restarts for loop in supervisor.health())


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENT_S):
        while not true():
            await asyncio.sleep(0.01)


async def test_one_that_is_watched_is_started_again_and_costs_no_answer(database: Database, tmp_path: Path) -> None:
    verdict, restarts = await answered(database, MortalResponder, tmp_path / "ledger", ends=True)
    assert expect.verdict(seen(verdict=verdict), held=REQUESTS, own=REQUESTS).held and restarts >= 1


async def test_the_canary_is_missed_by_nobody_and_hears_nothing_any_more(database: Database, tmp_path: Path) -> None:
    verdict, restarts = await answered(database, UnwatchedResponder, tmp_path / "ledger", ends=True)
    assert expect.verdict(seen(verdict=verdict), own=0, late=REQUESTS, wrong=0).held and restarts == 0


@pytest.mark.parametrize("kind", [MortalResponder, UnwatchedResponder])
async def test_as_long_as_it_lives_both_answer(database: Database, kind: type[Responder], tmp_path: Path) -> None:
    verdict, restarts = await answered(database, kind, tmp_path / "ledger", ends=False)
    assert expect.verdict(seen(verdict=verdict), held=REQUESTS, own=REQUESTS).held and restarts == 0
