"""The way of one request to the journal and back: every answer of the table, and what it promises."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from unittest.mock import ANY, Mock

import pytest

from seawall.kernel import signature
from seawall.kernel.clock import SystemClock
from seawall.kernel.error import Overloaded
from seawall.kernel.event import id_text
from seawall.kernel.seam.event import EventBrief, RunBrief
from seawall.kernel.seam.ticket import Reply
from stall import Stopwatch

from .rig import QUICK, Answered, Client, Rig, SourceTable, client, request, running, until

SECRET = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def standard(
    body: bytes, *, id: str = "msg-1", secret: bytes = SECRET, headers: Mapping[str, str] = MappingProxyType({})
) -> bytes:
    signed = dict(signature.sign("standard", secret, body, time.time(), id=id))
    return request(body=body, headers={**signed, **headers})


def table(kind: str = "none", *, secret: bytes | None = None, settings: str = "{}") -> SourceTable:
    sources = SourceTable()
    sources.add("tok", kind=kind, secret=secret, settings=settings)
    return sources


async def ask(c: Client, raw: bytes) -> Answered:
    await c.send(raw)
    answer = await c.answer()
    assert answer is not None
    return answer


# ── Accepted ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_receipt_is_never_sent_before_the_commit(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, client(rig) as c:
        rig.journal.hold()
        await c.send(request("/in/tok/a/b?x=1", b"\x00hello\xff", {"X-Thing": "é", "Authorization": "Bearer s"}))
        await c.send(request(body=b"second"))
        await until(lambda: len(rig.journal._pending) == 2)
        with pytest.raises(TimeoutError):
            await c.answer(within_s=0.05)
        rig.journal.release()
        answer = await c.answer()
        assert answer is not None
        assert answer.status == 202
        record = rig.records[0]
        said = json.loads(answer.body)
        assert said == {"id": id_text(record.id), "status": "accepted"}
        assert answer.headers["location"] == f"/in/events/{id_text(record.id)}"
        assert answer.headers["seawall-durability"] == "fsync"
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["date"].endswith("GMT")
        assert record.body == b"\x00hello\xff"
        assert record.target == "/a/b?x=1"
        assert record.peer == "127.0.0.1"
        assert record.config_version == rig.snapshot.version
        assert b"X-Thing\0\xe9" in record.headers
        assert b"Bearer" not in record.headers


async def test_v1_events_takes_the_token_as_bearer(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, client(rig) as c:
        assert (await ask(c, request("/v1/events?a=1", b"x", {"Authorization": "Bearer tok"}))).status == 202
        assert rig.records[0].target == "?a=1"
        assert b"tok" not in rig.records[0].headers
        assert (await ask(c, request("/v1/events", b"x"))).status == 401
        assert (await ask(c, request("/v1/events", b"x", {"Authorization": "Bearer no"}))).status == 404
        assert (await ask(c, request("/v1/events", method="GET"))).status == 405


@pytest.mark.parametrize(
    ("settings", "status", "body"),
    [
        ('{"accepted_status":200}', 200, ANY),
        ('{"accepted_status":204}', 204, b""),
        ('{"accepted_status":200,"accepted_body":"thanks"}', 200, b"thanks"),
        ('{"accepted_body":""}', 202, b""),
    ],
)
async def test_a_source_may_choose_its_receipt(settings: str, status: int, body: object, tmp_path: Path) -> None:
    async with running(tmp_path, sources=table(settings=settings)) as rig, client(rig) as c:
        answer = await ask(c, request())
        assert (answer.status, answer.body) == (status, body)
        assert answer.headers["location"].startswith("/in/events/")
        assert (await ask(c, request())).status == status


async def test_signed_records_say_which_secret_verified_them(tmp_path: Path) -> None:
    old = b"whsec_b2xkIG9sZCBvbGQgb2xkIG9sZA=="
    sources = SourceTable()
    sources.add("tok", kind="standard", secrets=((2, SECRET), (1, old)))
    async with running(tmp_path, sources=sources) as rig, client(rig) as c:
        assert (await ask(c, standard(b"a", id="m-1"))).status == 202
        assert (await ask(c, standard(b"b", id="m-2", secret=old))).status == 202
        assert [(r.key_id, r.key, r.key_signed) for r in rig.records] == [(2, "m-1", True), (1, "m-2", True)]


async def test_a_wrong_signature_stores_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, sources=table("standard", secret=SECRET)) as rig, client(rig) as c:
        answer = await ask(c, standard(b"body").replace(b"\r\n\r\nbody", b"\r\n\r\nBody"))
        assert answer.status == 401
        assert answer.headers["content-type"] == "application/problem+json"
        assert json.loads(answer.body)["title"] == "signature refused"
        assert rig.records == []


async def test_slack_challenge_is_answered_when_signed_and_not_stored(tmp_path: Path) -> None:
    body = b'{"type":"url_verification","challenge":"c1"}'
    async with running(tmp_path, sources=table("slack", secret=b"s")) as rig, client(rig) as c:
        signed = dict(signature.sign("slack", b"s", body, time.time(), id=""))
        answer = await ask(c, request(body=body, headers=signed))
        assert (answer.status, answer.body) == (200, b"c1")
        assert (await ask(c, request(body=body))).status == 401
        assert rig.records == []


# ── Duplicates ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_repeat_gets_the_first_id_and_another_body_does_not(tmp_path: Path) -> None:
    async with running(tmp_path, sources=table("standard", secret=SECRET)) as rig, client(rig) as c:
        first = json.loads((await ask(c, standard(b"body"))).body)["id"]
        again = await ask(c, standard(b"body"))
        assert again.status == 200
        assert json.loads(again.body) == {"id": first, "status": "accepted", "duplicate": True}
        assert (await ask(c, standard(b"other"))).status == 202
        assert [r.body for r in rig.records] == [b"body", b"other"]


async def test_a_repeat_that_waits_is_kept_and_gets_the_workflows_reply_not_ours(tmp_path: Path) -> None:
    sources = table("standard", secret=SECRET, settings=SYNC)
    async with running(tmp_path, sources=sources) as rig, client(rig) as c:
        first = json.loads((await ask(c, standard(b"body"))).body)["id"]
        await c.send(standard(b"body", headers={"Prefer": "wait=3"}))
        await until(lambda: len(rig.waiting.held) == 1)
        id, answer = rig.waiting.held.popitem()
        assert [r.wait_ms for r in rig.records] == [0, 3000] and rig.records[1].id == id
        answer(Reply(status=201, content_type="text/plain", body=b"done"))
        told = await c.answer()
        assert told is not None and (told.status, told.body) == (201, b"done")
        assert json.loads((await ask(c, standard(b"body"))).body)["id"] == first, "not the repeat's"


async def test_a_repeat_before_the_commit_is_accepted_too(tmp_path: Path) -> None:
    async with running(tmp_path, sources=table("standard", secret=SECRET)) as rig, client(rig) as c:
        rig.journal.hold()
        await c.send(standard(b"body") + standard(b"body"))
        await until(lambda: len(rig.journal._pending) == 2)
        rig.journal.release()
        assert [(await c.answer()).status for _ in range(2)] == [202, 202]  # type: ignore[union-attr]


async def test_what_was_uncertain_is_not_known_as_a_duplicate(tmp_path: Path) -> None:
    async with running(tmp_path, sources=table("standard", secret=SECRET)) as rig, client(rig) as c:
        rig.journal.hold()
        await c.send(standard(b"body"))
        await until(lambda: len(rig.journal._pending) == 1)
        rig.journal.fail()
        answer = await c.answer()
        assert answer is not None
        assert (answer.status, answer.headers["seawall-outcome"]) == (503, "uncertain")
        rig.journal.refuse(None)
        rig.journal.release()
        assert (await ask(c, standard(b"body"))).status == 202


# ── Refused ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_refusing_journal_is_503_with_retry_after_and_the_connection_stays(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, client(rig) as c:
        rig.journal.refuse(Overloaded("the journal's disk is full", retry_after_s=30))
        answer = await ask(c, request(body=b"x"))
        assert answer.status == 503
        assert 30 <= int(answer.headers["retry-after"]) <= 61
        assert "seawall-outcome" not in answer.headers
        assert (await ask(c, request("/readyz", method="GET"))).status == 503
        rig.journal.refuse(None)
        assert (await ask(c, request(body=b"x"))).status == 202


async def test_a_journal_that_is_full_at_submission_is_503(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, client(rig) as c:
        rig.journal.hold()
        rig.journal._records_max = 1
        await c.send(request(body=b"a") + request(body=b"b"))
        await until(lambda: len(rig.journal._pending) == 1)
        rig.journal.release()
        assert [(await c.answer()).status for _ in range(2)] == [202, 503]  # type: ignore[union-attr]


async def test_a_bug_of_ours_is_no_4xx_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A sender that is told 400 for a bug of ours doesn't send its event again, and nobody heard of the bug."""
    async with running(tmp_path) as rig:
        with monkeypatch.context() as broken:
            broken.setattr(rig.journal, "submit", Mock(side_effect=ZeroDivisionError("a bug")))
            async with client(rig) as c:
                answer = await ask(c, request(body=b"x"))
                assert (answer.status, answer.headers["seawall-outcome"]) == (503, "uncertain")
                assert await c.ended() == b""
        with monkeypatch.context() as broken:
            broken.setattr(rig.snapshot, "find", Mock(side_effect=ZeroDivisionError("a bug")))
            async with client(rig) as c:
                answer = await ask(c, request(body=b"x"))
                assert answer.status == 503 and "seawall-outcome" not in answer.headers
                assert await c.ended() == b""
        async with client(rig) as c:
            assert (await ask(c, request(body=b"x"))).status == 202
    assert [record.levelname for record in caplog.records if record.exc_info] == ["ERROR", "ERROR"]


async def test_a_journal_that_does_not_answer_is_503_uncertain_within_its_time(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, client(rig) as c:
        rig.journal.hold()
        answer = await ask(c, request(body=b"x"))
        assert (answer.status, answer.headers["seawall-outcome"]) == (503, "uncertain")
        rig.journal.release()
        await until(lambda: rig.count("seawall_accepted_late_total") == 1)
        assert (await ask(c, request(body=b"y"))).status == 202


@pytest.mark.parametrize(
    ("settings", "raw", "status"),
    [
        ('{"content_types":["application/json"]}', request(headers={"Content-Type": "text/plain"}), 415),
        ('{"content_types":["application/json"]}', request(), 415),
        ('{"content_types":["application/json"]}', request(headers={"Content-Type": "Application/JSON; a=b"}), 202),
        ('{"content_types":["Application/JSON"]}', request(headers={"Content-Type": "application/json"}), 202),
        ('{"require_json":true}', request(body=b"{"), 422),
        ('{"require_json":true}', request(body=b""), 422),
        ('{"require_json":true}', request(body=b"{}"), 202),
        ('{"body_bytes_max":3}', request(body=b"abcd"), 413),
        ('{"body_bytes_max":3}', request(body=b"abc"), 202),
    ],
)
async def test_what_a_source_may_refuse(settings: str, raw: bytes, status: int, tmp_path: Path) -> None:
    async with running(tmp_path, sources=table(settings=settings)) as rig, client(rig) as c:
        assert (await ask(c, raw)).status == status
        assert len(rig.records) == (status == 202)


@pytest.mark.parametrize(
    ("raw", "status", "allow"),
    [
        (request("/in/tok", method="GET"), 405, "POST"),
        (request("/livez"), 405, "GET"),
        (request("/in/events/x"), 405, "GET"),
        (request("/elsewhere"), 404, None),
        (request("/", method="GET"), 404, None),
        (request("/in/", method="POST"), 404, None),
    ],
)
async def test_paths_and_methods(raw: bytes, status: int, allow: str | None, tmp_path: Path) -> None:
    async with running(tmp_path) as rig, client(rig) as c:
        answer = await ask(c, raw)
        assert (answer.status, answer.headers.get("allow")) == (status, allow)
        assert (await ask(c, request())).status == 202


async def test_a_removed_source_is_410_and_a_broken_one_503(tmp_path: Path) -> None:
    sources = SourceTable()
    sources.add("gone", removed=True)
    sources.add("sealed", kind="github", trouble="secret 1: another key")
    sources.add("newer", settings='{"from_the_future":1}')
    sources.add("odd", kind="carrier-pigeon")
    async with running(tmp_path, sources=sources) as rig, client(rig) as c:
        statuses = {t: (await ask(c, request(f"/in/{t}", b"x"))).status for t in ("gone", "sealed", "newer", "odd")}
        assert statuses == {"gone": 410, "sealed": 503, "newer": 503, "odd": 503}


async def test_what_no_readable_secret_verifies_is_no_401_while_another_one_cannot_be_read(tmp_path: Path) -> None:
    sources = SourceTable()
    sources.add("part", kind="bearer", secrets=((2, b"readable-secret"),), trouble="secret 1: another key")
    async with running(tmp_path, sources=sources) as rig, client(rig) as c:
        for secret, status in (("readable-secret", 202), ("perhaps-the-other", 503)):
            answer = await ask(c, request("/in/part", b"x", headers={"Authorization": f"Bearer {secret}"}))
            assert answer.status == status
        assert b"another key" not in answer.body, "senders learn nothing of our keys"
        assert rig.snapshot.troubles == {"part": "secret 1: another key"}


async def test_why_a_source_is_broken_is_told_to_no_sender(tmp_path: Path) -> None:
    """Its signature can't be checked by then, so whoever knows the path could read of our files and settings."""
    sources = SourceTable()
    sources.add("sealed", kind="github", trouble="secret 1: /srv/seawall/key doesn't open it")
    sources.add("newer", settings='{"from_the_future":1}')
    sources.add("odd", kind="carrier-pigeon")
    async with running(tmp_path, sources=sources) as rig, client(rig) as c:
        answers = [await ask(c, request(f"/in/{token}", b"x")) for token in ("sealed", "newer", "odd")]
    [said] = {json.loads(answer.body)["detail"] for answer in answers}
    assert "our trouble" in said
    for part in (b"secret", b"/srv", b"from_the_future", b"pigeon"):
        assert not any(part in answer.body for answer in answers)


# ── Held requests ────────────────────────────────────────────────────────────────────────────────────────────────────

SYNC = '{"wait_ms_max":5000}'


async def _held(rig: Rig, c: Client, prefer: str = "wait=3") -> bytes:
    await c.send(request(body=b"x", headers={"Prefer": prefer}))
    await until(lambda: len(rig.waiting.held) == 1)
    return next(iter(rig.waiting.held))


async def test_a_held_request_gets_the_workflows_reply(tmp_path: Path) -> None:
    async with running(tmp_path, sources=table(settings=SYNC)) as rig, client(rig) as c:
        id = await _held(rig, c)
        assert rig.records[0].wait_ms == 3000
        rig.waiting.held.pop(id)(Reply(status=201, content_type="text/plain", body=b"done"))
        answer = await c.answer()
        assert answer is not None
        assert (answer.status, answer.body, answer.headers["content-type"]) == (201, b"done", "text/plain")
        assert (await ask(c, request(body=b"no wait"))).status == 202


@pytest.mark.parametrize(("over", "status"), [("", 202), (',"wait_over_status":504', 504)])
async def test_a_wait_without_reply_tells_where_to_ask(over: str, status: int, tmp_path: Path) -> None:
    async with running(tmp_path, sources=table(settings=SYNC[:-1] + over + "}")) as rig, client(rig) as c:
        id = await _held(rig, c)
        rig.waiting.held.pop(id)(None)
        answer = await c.answer()
        assert answer is not None
        assert (answer.status, answer.headers["location"]) == (status, f"/in/tickets/{id_text(id)}")


@pytest.mark.parametrize(
    ("prefer", "wait_ms"),
    [("wait=99999", 5000), ("respond-async, wait=2", 2000), ('foo; wait="1"', 1000), ("wait=x", 0), ("nowait=3", 0)],
)
async def test_how_long_a_sender_may_wait(prefer: str, wait_ms: int, tmp_path: Path) -> None:
    async with running(tmp_path, sources=table(settings=SYNC)) as rig, client(rig) as c:
        await c.send(request(body=b"x", headers={"Prefer": prefer}))
        await until(lambda: len(rig.records) == 1)
        assert rig.records[0].wait_ms == wait_ms


async def test_a_source_that_does_not_allow_waiting_answers_at_once(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, client(rig) as c:
        assert (await ask(c, request(body=b"x", headers={"Prefer": "wait=3"}))).status == 202
        assert rig.records[0].wait_ms == 0


async def test_a_client_that_leaves_is_dropped_and_its_event_stays(tmp_path: Path) -> None:
    async with running(tmp_path, sources=table(settings=SYNC)) as rig, client(rig) as c:
        id = await _held(rig, c)
        await c.close()
        await until(lambda: rig.waiting.dropped == [id])
        assert [r.id for r in rig.records] == [id]


async def test_answers_leave_in_the_order_of_requests(tmp_path: Path) -> None:
    async with running(tmp_path, sources=table(settings=SYNC)) as rig, client(rig) as c:
        id = await _held(rig, c)
        await c.send(request(body=b"second") + request("/livez", method="GET"))
        await until(lambda: len(rig.records) == 2)
        with pytest.raises(TimeoutError):
            await c.answer(within_s=0.05)
        rig.waiting.held.pop(id)(Reply(status=200, content_type="text/plain", body=b"first"))
        assert [(await c.answer()).body[:5] for _ in range(3)] == [b"first", ANY, b"alive"]  # type: ignore[union-attr]


# ── Reads ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _id(*, age_s: float = 0.0) -> bytes:
    ms = int((time.time() - age_s) * 1000)
    return ms.to_bytes(6, "big") + b"\x70\x01\x80\x00\x00\x00\x00\x00\x00\x01"


async def _get(c: Client, path: str) -> Answered:
    return await ask(c, request(path, method="GET"))


async def test_an_events_status_is_read_and_202_while_nobody_knows(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, client(rig) as c:
        id = _id()
        path = f"/in/events/{id_text(id)}"
        answer = await _get(c, path)
        assert (answer.status, json.loads(answer.body)["status"]) == (202, "accepted")
        rig.events.away = True
        assert (await _get(c, path)).status == 202
        rig.events.away = False
        run = RunBrief(id=2**60, workflow="w", status="running")
        rig.events.known[id] = EventBrief(id=id, status="routed", runs=(run,))
        answer = await _get(c, path)
        assert json.loads(answer.body) == {
            "id": id_text(id), "status": "routed",
            "runs": [{"id": str(2**60), "workflow": "w", "status": "running"}],
        }  # fmt: skip
        first = _id(age_s=5)
        rig.events.known[id] = EventBrief(id=first, status="routed", runs=())
        assert json.loads((await _get(c, path)).body)["duplicate_of"] == id_text(first)


@pytest.mark.parametrize("kind", ["events", "tickets"])
async def test_an_id_that_was_not_given_out_is_404(kind: str, tmp_path: Path) -> None:
    from_the_future, in_capitals = id_text(_id(age_s=-3600)), id_text(_id()).upper()
    async with running(tmp_path) as rig, client(rig) as c:
        for text in ("x", "", "0" * 36, id_text(bytes(16)), from_the_future, in_capitals):
            assert (await _get(c, f"/in/{kind}/{text}")).status == 404, text


async def test_ids_of_a_clock_that_was_set_back_are_still_those_of_accepted_events(tmp_path: Path) -> None:
    class Clock(SystemClock):
        ahead_us = 0

        def wall_us(self) -> int:
            return super().wall_us() + self.ahead_us

    clock = Clock()
    async with running(tmp_path, clock=clock) as rig, client(rig) as c:
        clock.ahead_us = 3600 * 1_000_000
        accepted = [await ask(c, request())]
        clock.ahead_us = 0
        accepted.append(await ask(c, request()))  # ids never go back, so this one is from the future too
        for one in accepted:
            assert (await _get(c, one.headers["location"])).status == 202
    # Whoever was told that id by a process that has ended since.
    id = rig.records[0].id
    async with running(tmp_path) as rig, client(rig) as c:
        rig.events.away = True
        assert (await _get(c, f"/in/events/{id_text(id)}")).status == 503, "nobody can say"
        rig.events.away = False
        rig.events.known[id] = EventBrief(id=id, status="routed", runs=())
        assert (await _get(c, f"/in/events/{id_text(id)}")).status == 200


async def test_a_row_that_can_not_be_read_is_told_and_its_client_is_answered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as rig, client(rig) as c:

        async def status(id: bytes, *, timeout_s: float) -> EventBrief:
            raise ValueError("77 is not a valid EventStatus")

        rig.events.status = status  # type: ignore[method-assign]
        assert (await _get(c, f"/in/events/{id_text(_id())}")).status == 202
        assert "can't be read" in caplog.text


async def test_a_ticket_is_read_as_the_held_request_would_have_been(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, client(rig) as c:
        id = _id()
        path = f"/in/tickets/{id_text(id)}"
        assert (await _get(c, path)).status == 202
        rig.waiting.replies[id] = Reply(status=202, content_type="", body=b"", final=False)
        assert (await _get(c, path)).status == 202
        rig.waiting.replies[id] = Reply(status=418, content_type="text/plain", body=b"tea\r\n")
        answer = await _get(c, path)
        assert (answer.status, answer.body) == (418, b"tea\r\n")


async def test_a_ticket_that_is_not_routed_yet_is_never_404_however_old_it_is(tmp_path: Path) -> None:
    """Routing may be a day behind; what the store hasn't is still to come, until it may have let it go."""
    async with running(tmp_path, kept_days=10) as rig, client(rig) as c:
        for days, status in ((1.5, 202), (9.9, 202), (10.1, 404)):
            old = id_text(_id(age_s=days * 86_400))
            assert (await _get(c, f"/in/tickets/{old}")).status == status
        rig.waiting.replies[id := _id(age_s=9 * 86_400)] = Reply(status=200, content_type="text/plain", body=b"late")
        assert (await _get(c, f"/in/tickets/{id_text(id)}")).body == b"late"
        # How long the store keeps it may be changed meanwhile.
        rig.collector.reload(QUICK, kept_days=11)
        assert (await _get(c, f"/in/tickets/{old}")).status == 202
        rig.collector.reload(QUICK)
        assert (await _get(c, f"/in/tickets/{old}")).status == 202


WAIT = {"Prefer": "wait=20"}


async def test_a_tickets_reader_may_wait_for_the_reply_as_its_sender_did(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, client(rig) as c, client(rig) as other:
        id = _id()
        path = f"/in/tickets/{id_text(id)}"
        rig.waiting.replies[id] = Reply(status=202, content_type="", body=b"", final=False)
        for one in (c, other):
            await one.send(request(path, headers=WAIT, method="GET"))
            await until(lambda: id in rig.waiting.held)
            assert 19_000 < rig.waiting.patience_ms[id] <= 20_000
            assert rig.metrics.gauge("seawall_held_count", "").now() == 1
            rig.waiting.held.pop(id)(Reply(status=418, content_type="text/plain", body=b"tea"))
            answer = await one.answer()
            assert answer is not None and (answer.status, answer.body) == (418, b"tea")
            assert answer.headers["location"] == path
        rig.waiting.replies[id] = Reply(status=201, content_type="text/plain", body=b"there")
        await c.send(request(path, headers=WAIT, method="GET"))
        answer = await c.answer()
        assert answer is not None and answer.status == 201 and not rig.waiting.held, "what is there is given at once"


@pytest.mark.parametrize("store", ["away", "without it"])
async def test_a_reader_waits_also_for_what_is_not_routed_or_can_not_be_read(tmp_path: Path, store: str) -> None:
    async with running(tmp_path) as rig, client(rig) as c:
        rig.waiting.away = store == "away"
        id = _id()
        await c.send(request(f"/in/tickets/{id_text(id)}", headers=WAIT, method="GET"))
        await until(lambda: id in rig.waiting.held)
        rig.waiting.held.pop(id)(None)
        answer = await c.answer()
        assert answer is not None and answer.status == 202 and "retry-after" in answer.headers
        assert "seawall-durability" not in answer.headers, "that isn't known here"


@pytest.mark.parametrize("why", ["no wish", "bound", "flag", "shed", "stopping", "no such id"])
async def test_a_reader_that_can_not_wait_is_answered_at_once(tmp_path: Path, why: str) -> None:
    settings = replace(QUICK, look_ups_held_max=0 if why == "bound" else 5)
    async with running(tmp_path, settings=settings, holding=lambda **_: why != "flag") as rig, client(rig) as c:
        if why == "shed":
            rig.shed.force("look-ups", "off")
        if why == "stopping":
            rig.collector._holds._stopping = lambda: True
        id = _id() if why != "no such id" else _id(age_s=-3600)
        path, headers = f"/in/tickets/{id_text(id)}", None if why == "no wish" else WAIT
        answer = await ask(c, request(path, headers=headers, method="GET"))
        assert answer.status == (404 if why == "no such id" else 202)
        assert not rig.waiting.held and rig.collector._holds.count == 0 == rig.collector._holds.again


async def test_a_reader_that_leaves_is_forgotten_and_one_that_waits_is_told_when_the_collector_stops(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as rig, client(rig) as c:
        one, two = _id(), _id()
        async with client(rig) as leaving:
            await leaving.send(request(f"/in/tickets/{id_text(one)}", headers=WAIT, method="GET"))
            await until(lambda: one in rig.waiting.held)
        await until(lambda: rig.waiting.dropped == [one])
        await c.send(request(f"/in/tickets/{id_text(two)}", headers=WAIT, method="GET"))
        await until(lambda: two in rig.waiting.held)
        stopping = asyncio.create_task(rig.collector.stop(5.0))
        answer = await c.answer()
        assert answer is not None and answer.status == 202 and rig.waiting.dropped == [one, two]
        await c.close()
        await stopping
        assert rig.collector._holds.count == 0 == rig.collector._holds.again


async def test_a_reader_that_closed_its_side_before_the_store_answered_does_not_wait(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, client(rig) as c:
        rig.waiting.away = True
        await c.send(request(f"/in/tickets/{id_text(_id())}", headers=WAIT, method="GET"))
        c.writer.write_eof()
        answer = await c.answer()
        assert answer is not None and answer.status == 202 and not rig.waiting.held


async def test_a_hung_store_costs_a_read_its_quarter_second_and_no_more(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, client(rig) as c:
        rig.waiting.away = True
        watch = Stopwatch()
        assert (await _get(c, f"/in/tickets/{id_text(_id())}")).status == 202
        assert watch.s < 1.0
        assert (await ask(c, request())).status == 202


async def test_reads_at_once_are_bounded(tmp_path: Path) -> None:
    async with running(tmp_path, settings=replace(QUICK, look_ups_max=1)) as rig, client(rig) as a, client(rig) as b:
        rig.waiting.away = True
        await a.send(request(f"/in/tickets/{id_text(_id())}", method="GET"))
        await asyncio.sleep(0.02)
        assert (await _get(b, f"/in/tickets/{id_text(_id())}")).status == 503


async def test_livez_and_readyz(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, client(rig) as c:
        assert (await _get(c, "/livez")).status == 200
        answer = await _get(c, "/readyz")
        assert (answer.status, json.loads(answer.body)) == (200, {"ready": True, "reasons": []})
        rig.sources.away = True
        await until(lambda: not rig.supervisor.health()[1].ready)
        assert (await _get(c, "/readyz")).status == 200


async def test_a_reply_can_not_inject_headers(tmp_path: Path) -> None:
    async with running(tmp_path, sources=table(settings=SYNC)) as rig, client(rig) as c:
        id = await _held(rig, c)
        rig.waiting.held.pop(id)(Reply(status=200, content_type="text/plain\r\nX-Evil: 1", body=b""))
        answer = await c.answer()
        assert answer is not None
        assert "x-evil" not in answer.headers


async def test_limits_can_be_reloaded_under_an_open_connection(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, client(rig) as c:
        assert (await ask(c, request(body=b"xxxx"))).status == 202
        rig.collector.reload(replace(QUICK, body_bytes_max=3))
        assert (await ask(c, request(body=b"xxxx"))).status == 413


async def test_every_pipelined_request_is_answered_when_the_collector_stops(tmp_path: Path) -> None:
    """In order, and only the last answer ends the connection: those held, those parked, those still in the journal."""
    sources = SourceTable()
    sources.add("ask", settings='{"wait_ms_max":20000}')
    sources.add("tok")
    async with running(tmp_path, sources=sources, settings=replace(QUICK, refresh_s=10.0)) as rig, client(rig) as c:
        wait = {"Prefer": "wait=20"}
        await c.send(request("/in/ask", b"1", wait) + request("/in/ask", b"2", wait))
        await until(lambda: len(rig.waiting.held) == 2)
        rig.journal.hold()
        await c.send(request(body=b"3") + request("/in/nobody", b"4") + request("/in/nobody", b"5"))
        await until(lambda: len(rig.journal._pending) == 1 and len(rig.snapshot._asked) == 2)
        watch = Stopwatch()
        stopping = asyncio.create_task(rig.collector.stop(20.0))
        await until(lambda: rig.collector.stopping)
        rig.journal.release()
        told = [await c.answer() for _ in range(5)]
        assert [a and a.status for a in told] == [202, 202, 202, 503, 503]
        assert [a and a.headers.get("connection") for a in told] == [None, None, None, None, "close"]
        assert await c.ended() == b""
        await c.close()
        await stopping
        assert watch.s < 5.0


async def test_look_ups_that_are_shed_are_answered_202_without_the_store(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, client(rig) as c:
        await ask(c, request(body=b"x"))
        id = rig.records[0].id
        rig.events.known[id] = EventBrief(id=id, status="routed", runs=())
        rig.shed.force("look-ups", "off")
        for kind, status in (("events", 202), ("tickets", 202)):
            answer = await ask(c, request(f"/in/{kind}/{id_text(id)}", method="GET"))
            assert answer.status == status
            assert "retry-after" in answer.headers
        assert rig.count("seawall_shed_skipped_total", work="look-ups") == 2
        rig.shed.force("look-ups", "auto")
        assert (await ask(c, request(f"/in/events/{id_text(id)}", method="GET"))).status == 200


async def test_where_nobody_is_held_a_sender_that_would_wait_is_answered_at_once(tmp_path: Path) -> None:
    sources = SourceTable()
    for name, over in (("a", 202), ("b", 504), ("c", 202)):
        sources.add(name, settings=f'{{"wait_ms_max":20000,"wait_over_status":{over}}}')

    def holding(*, tenant: str = "", source: str = "") -> bool:
        return source not in ("a", "b") and tenant == "default"

    async with running(tmp_path, sources=sources, holding=holding) as rig, client(rig) as c:
        for name, status in (("a", 202), ("b", 504)):
            answer = await ask(c, request(f"/in/{name}", b"x", {"Prefer": "wait=20"}))
            assert answer.status == status and answer.headers["location"].startswith("/in/tickets/")
        assert not rig.waiting.held and rig.collector._holds.count == 0
        assert [r.wait_ms for r in rig.records] == [20_000, 20_000], "the reply is made, and kept for whoever asks"
        await c.send(request("/in/c", b"x", {"Prefer": "wait=20"}))
        await until(lambda: len(rig.waiting.held) == 1)
