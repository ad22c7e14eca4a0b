"""Incident I1: the connection that listens for replies is cut, and the listener doesn't know. Replies are there, and
each held request waits until its time is over. The verdict on held requests must see it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from responder.world import World, world
from seawall.guard import Supervisor
from seawall.kernel.clock import SystemClock
from seawall.kernel.event import id_text
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.ticket import Reply
from seawall.lab import expect
from seawall.lab.checker import ledger
from seawall.lab.checker.verdict import SeenEvent, Verdict, judge
from seawall.lab.traffic.payload import sha256
from seawall.lab.weak.deaf import DeafResponder
from seawall.responder import Responder
from seawall.store import pool
from seawall.testing.postgres import Database

from .desk import seen

CLOCK = SystemClock()
BODY = b"{}"
REQUESTS = 5
WAIT_S = 1.5
PATIENT_S = 20.0
"""More than any test's machine takes for what comes at once."""


class Asking:
    """Holds requests, and has each answered with its own key, as the traffic of held requests does."""

    def __init__(self, responder: Responder, here: World, path: Path, *, wait_s: float) -> None:
        self._responder = responder
        self._here = here
        self._path = path
        self._wait_s = wait_s
        self._ledger = ledger.Ledger(path)
        self._ledger.begin("canary", {"source_id": "s", "wait_s": wait_s})
        self._tickets: dict[str, str] = {}
        self._events: list[SeenEvent] = []
        self._writing = asyncio.Lock()

    async def ask(self, n: int) -> None:
        """One: its reply is stored and announced while it is held."""
        key = f"canary-{n}"
        async with self._writing:
            event = await self._here.busy()
        self._events.append(SeenEvent(id=id_text(event), key=key, sha256=sha256(BODY), status="routed"))
        self._ledger.sent(key, n=n, attempt=1, sha256=sha256(BODY), bytes=len(BODY), sent_us=CLOCK.wall_us())
        answered: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()
        self._responder.hold(event, wait_ms=int(self._wait_s * 1000), answer=answered.set_result)
        async with self._writing:
            await self._here.reply(event, key.encode(), content_type="text/plain")
            await self._here.notify([event])
        reply = await answered
        whose, ticket = (reply.body.decode(), "") if reply is not None else ("", id_text(event))
        self._ledger.replied(key, attempt=1, whose=whose, ticket=ticket)
        self._ledger.answered(
            key, attempt=1, status=200 if reply else 202, event_id=id_text(event), answered_us=CLOCK.wall_us()
        )
        if reply is None:
            found = await self._responder.look_up(event, timeout_s=PATIENT_S)
            self._tickets[key] = found.body.decode() if found is not None and found.final else ""

    def verdict(self) -> Verdict:
        self._ledger.close()
        return judge(ledger.read(self._path).runs, {"s": self._events}, tickets=self._tickets)


async def answered(database: Database, kind: type[Responder], path: Path, *, cut: bool) -> Verdict:
    """Requests that are held after the listening connection was cut, or wasn't."""
    metrics = Metrics()
    async with world(database.dsn) as here, kind(pool.Settings(dsn=database.dsn), metrics=metrics) as responder:
        supervisor = Supervisor(metrics)
        responder.register(supervisor)
        async with supervisor:
            # The rig proves itself: whichever it is, it listens, and answers by hints.
            await listening(here)
            if cut:
                assert await here.cut_listener() == 1
            asking = Asking(responder, here, path, wait_s=WAIT_S if cut and kind is DeafResponder else PATIENT_S)
            await asyncio.gather(*[asking.ask(n) for n in range(REQUESTS)])
            return asking.verdict()


async def listening(here: World) -> None:
    """Wait until a connection listens, by its last statement."""
    async with asyncio.timeout(PATIENT_S):
        while not await here.sql.fetchval(
            "select count(*) from pg_stat_activity where datname = current_database()"
            " and application_name = 'seawall-listener' and state = 'idle' and query ilike 'listen%'"
        ):
            await asyncio.sleep(0.01)


async def test_a_cut_channel_costs_no_held_request_its_answer(database: Database, tmp_path: Path) -> None:
    verdict = await answered(database, Responder, tmp_path / "ledger", cut=True)
    assert expect.verdict(seen(verdict=verdict), held=REQUESTS, own=REQUESTS).held


async def test_the_canary_hears_nothing_any_more(database: Database, tmp_path: Path) -> None:
    verdict = await answered(database, DeafResponder, tmp_path / "ledger", cut=True)
    assert not expect.verdict(seen(verdict=verdict), held=REQUESTS, own=REQUESTS).held
    # The replies are all there: nobody looked.
    assert expect.verdict(seen(verdict=verdict), own=0, late=REQUESTS, wrong=0).held


@pytest.mark.parametrize("kind", [Responder, DeafResponder])
async def test_on_a_sound_channel_both_answer(database: Database, kind: type[Responder], tmp_path: Path) -> None:
    verdict = await answered(database, kind, tmp_path / "ledger", cut=False)
    assert expect.verdict(seen(verdict=verdict), held=REQUESTS, own=REQUESTS).held
