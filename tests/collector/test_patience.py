"""How long a sender waits for a reply: counted from its request on, and never longer than its provider does."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from seawall.kernel import signature
from seawall.testing import ManualClock

from .rig import QUICK, SourceTable, client, request, running, until

SECRET = b"It's a Secret to Everybody"
LONG = '{"wait_ms_max":20000}'
PATIENT = replace(QUICK, ack_s=60, request_s=60, body_grace_s=60)


def _waits(**source: object) -> SourceTable:
    sources = SourceTable()
    sources.add("tok", settings=LONG, **source)  # type: ignore[arg-type]
    return sources


async def test_what_the_journal_took_is_no_longer_there_for_the_reply(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path, sources=_waits(), settings=PATIENT, clock=clock) as rig, client(rig) as c:
        rig.journal.hold()
        await c.send(request(body=b"x", headers={"Prefer": "wait=5"}))
        await until(lambda: rig.journal.waiting == 1)
        clock.advance(2)
        rig.journal.release()
        await until(lambda: len(rig.waiting.held) == 1)
        assert list(rig.waiting.patience_ms.values()) == [pytest.approx(3000, abs=1)]
        assert rig.records[0].wait_ms == 5000, "the record keeps the wish"


async def test_what_the_journal_has_no_room_for_holds_nobody(tmp_path: Path) -> None:
    async with running(tmp_path, sources=_waits(), settings=PATIENT) as rig, client(rig) as c:
        rig.journal.hold()
        rig.journal._records_max = 1
        wait = {"Prefer": "wait=5"}
        await c.send(request(body=b"a", headers=wait) + request(body=b"b", headers=wait))
        await until(lambda: rig.journal.waiting == 1)
        async with client(rig) as other:
            await other.send(request(body=b"c", headers=wait))
            answer = await other.answer()
            assert answer is not None and answer.status == 503
        assert not rig.waiting.held and not rig.records, "a request is held once its event is safe"


async def test_a_slow_body_spends_of_the_wait_too(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path, sources=_waits(), settings=PATIENT, clock=clock) as rig, client(rig) as c:
        whole = request(body=b"0123456789", headers={"Prefer": "wait=5", "Expect": "100-continue"})
        await c.send(whole[:-10])
        told = await c.answer()
        assert told is not None
        assert told.status == 100, "the head was judged"
        clock.advance(4)
        await c.send(whole[-10:])
        await until(lambda: len(rig.waiting.held) == 1)
        assert list(rig.waiting.patience_ms.values()) == [pytest.approx(1000, abs=1)]


async def test_a_wait_that_is_spent_when_the_event_is_safe_ends_at_once_with_where_to_ask(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path, sources=_waits(), settings=PATIENT, clock=clock) as rig, client(rig) as c:
        rig.journal.hold()
        await c.send(request(body=b"x", headers={"Prefer": "wait=5"}))
        await until(lambda: rig.journal.waiting == 1)
        clock.advance(6)
        rig.journal.release()
        answer = await c.answer()
        assert answer is not None
        assert answer.status == 202
        assert answer.headers["location"].startswith("/in/tickets/")
        assert not rig.waiting.held
        assert rig.metrics.gauge("seawall_held_count", "").now() == 0


@pytest.mark.parametrize(
    ("kind", "wait_ms"), [("github", 8000), ("slack", 2500), ("shopify", 4000), ("generic-hmac", 20000)]
)
async def test_no_request_is_held_longer_than_its_provider_waits(kind: str, wait_ms: int, tmp_path: Path) -> None:
    body = b'{"event_id":"1","id":"1"}'
    async with running(tmp_path, sources=_waits(kind=kind, secret=SECRET)) as rig, client(rig) as c:
        signed = signature.sign(kind, SECRET, body, time.time(), id="delivery-1")
        await c.send(request(body=body, headers={**dict(signed), "Prefer": "wait=20"}))
        await until(lambda: len(rig.records) == 1)
        assert rig.records[0].wait_ms == wait_ms
