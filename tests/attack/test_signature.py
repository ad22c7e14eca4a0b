"""Forged, altered, repeated and confused signatures, over a real socket: docs/security.md names the rows."""

from __future__ import annotations

import gzip
import json
from base64 import b64encode
from dataclasses import replace
from pathlib import Path

import pytest

from attack.rig import DATED, NOW_S, SIGNATURE_HEADER, SIGNED, attacked, post, secret, signed, status, told
from collector.rig import SourceTable, client, running
from seawall.kernel.signature import KINDS
from seawall.kernel.signature.mac import digest
from seawall.kernel.signature.scheme import SIGNATURES_MAX

BODY = b'{"type":"paid","id":"evt_1","event_id":"Ev1","amount":1}'
HUGE = "A" * 15_000


def forgeries(kind: str) -> dict[str, dict[str, str] | list[tuple[str, str]]]:
    """Headers that must not be believed."""
    good = signed(kind, BODY)
    name = SIGNATURE_HEADER[kind]
    right = good[name]
    others = {k: v for k, v in good.items() if k != name}
    values = {
        "empty": "", "blank": " ", "comma": ",", "garbage": "garbage", "not base64": "v1,!!!!",
        "odd length": right[:-1],
        "cut in half": right[: len(right) // 2], "one more byte": right + "A", "not ASCII": "v1,\xe9\xff", "huge": HUGE,
        "a scheme alone": right[:3], "twice in one": f"{right}, {right}", "in quotes": f'"{right}"',
        "format string": "%s%n{0}", "null word": "null",
    }  # fmt: skip
    found: dict[str, dict[str, str] | list[tuple[str, str]]] = {
        what: {**others, name: value} for what, value in values.items()
    }
    found["missing"] = others
    found["none at all"] = {}
    found["sent twice"] = [*others.items(), (name, right), (name, right)]
    found["a wrong one and a right one"] = [*others.items(), (name, "wrong"), (name, right)]
    found["another secret"] = signed(kind, BODY, key=b"whsec_QUFB" if kind == "standard" else secret(kind) + b"x")
    return found


@pytest.mark.parametrize("kind", SIGNED)
async def test_a_forged_signature_is_401_and_nothing_is_stored(kind: str, tmp_path: Path) -> None:
    async with attacked(tmp_path) as (rig, _), client(rig) as c:
        for what, headers in forgeries(kind).items():
            answer = await told(c, post(kind, BODY, headers))
            assert answer.status == 401, what
            assert secret(kind) not in answer.body and b"Traceback" not in answer.body, what
        assert rig.records == []
        assert (await told(c, post(kind, BODY, signed(kind, BODY)))).status in (200, 202)


@pytest.mark.parametrize("kind", [k for k in SIGNED if KINDS[k].covers_body])
async def test_a_body_altered_on_the_way_is_401(kind: str, tmp_path: Path) -> None:
    headers = signed(kind, BODY)
    altered = {
        "one bit": bytes([BODY[0] ^ 1]) + BODY[1:], "newline": BODY + b"\n", "space": b" " + BODY, "cut": BODY[:-1],
        "empty": b"", "written anew": json.dumps(json.loads(BODY)).encode(), "NUL": BODY + b"\0",
        "byte-order mark": b"\xef\xbb\xbf" + BODY, "compressed": gzip.compress(BODY),
    }  # fmt: skip
    async with attacked(tmp_path) as (rig, _), client(rig) as c:
        for what, body in altered.items():
            assert (await told(c, post(kind, body, headers))).status == 401, what
        assert rig.records == []


@pytest.mark.parametrize("kind", DATED)
async def test_a_recorded_request_is_401_outside_its_window_and_answered_inside(kind: str, tmp_path: Path) -> None:
    async with attacked(tmp_path) as (rig, clock):
        for shift_s, expected in ((-301, 401), (301, 401), (-299, 202), (299, 202)):
            body = b'{"id":"%d","event_id":"%d"}' % (shift_s, shift_s)
            raw = post(kind, body, signed(kind, body, at_s=NOW_S + shift_s, id=f"id{shift_s}"))
            assert await status(rig, raw) == expected, shift_s
        recorded = post(kind, BODY, signed(kind, BODY, id="id-9"))
        assert await status(rig, recorded) == 202
        clock.wall_s = NOW_S + 301
        assert await status(rig, recorded) == 401
        assert len(rig.records) == 3


@pytest.mark.parametrize("stamp", ["nan", "1e400", "-1", "1700000000.5", str(2**63), "", "1_700_000_000", "0x6553F100"])
async def test_a_timestamp_that_is_no_number_of_seconds_is_401(stamp: str, tmp_path: Path) -> None:
    key = secret("slack")
    forged = {
        "standard": {
            "webhook-id": "id", "webhook-timestamp": stamp,
            "webhook-signature": "v1," + b64encode(digest(b"twenty-four bytes or more", f"id.{stamp}.".encode() + BODY,
                                                          "sha256")).decode(),
        },
        "slack": {
            "X-Slack-Request-Timestamp": stamp,
            "X-Slack-Signature": "v0=" + digest(key, f"v0:{stamp}:".encode() + BODY, "sha256").hex(),
        },
        "stripe": {"Stripe-Signature": f"t={stamp},v1=" + digest(key, f"{stamp}.".encode() + BODY, "sha256").hex()},
    }  # fmt: skip
    async with attacked(tmp_path) as (rig, _):
        for kind, headers in forged.items():
            assert await status(rig, post(kind, BODY, headers)) == 401, kind
        assert rig.records == []


@pytest.mark.parametrize("kind", ["standard", "stripe", "slack", "pagerduty"])
async def test_a_replay_inside_the_window_is_no_second_event(kind: str, tmp_path: Path) -> None:
    body = b'{"type":"t","id":"evt_1","event_id":"Ev1","event":{"id":"e1"}}'
    raw = post(kind, body, signed(kind, body))
    async with attacked(tmp_path) as (rig, _):
        answers = []
        for _ in range(3):
            async with client(rig) as c:
                answers.append(await told(c, raw))
        if kind == "standard":
            # Its key is in a header, so the collector knows it; others' are in the body, and the router collapses them
            # (tests/router/test_dedupe.py).
            assert [a.status for a in answers] == [202, 200, 200]
            assert {json.loads(a.body)["id"] for a in answers} == {json.loads(answers[0].body)["id"]}
            assert all(json.loads(a.body)["duplicate"] for a in answers[1:])
            assert len(rig.records) == 1
        else:
            assert [a.status for a in answers] == [202, 202, 202]


async def test_another_algorithm_than_the_sources_is_401(tmp_path: Path) -> None:
    key = secret("github")
    sha1 = {"X-Hub-Signature": "sha1=" + digest(key, BODY, "sha1").hex()}
    good = signed("standard", BODY)
    of_standard = good["webhook-signature"].removeprefix("v1,")
    confused = {
        "github": [
            sha1, {"X-Hub-Signature-256": sha1["X-Hub-Signature"]}, {"X-Hub-Signature-256": "sha512=" + "0" * 128},
            {"X-Hub-Signature-256": digest(key, BODY, "sha256").hex()},
            {"X-Hub-Signature-256": "none=" + digest(key, BODY, "sha256").hex()},
        ],
        "standard": [
            {**good, "webhook-signature": f"{scheme},{of_standard}"} for scheme in ("v1a", "v0", "v2", "V1", "", "none")
        ],
        "slack": [{**signed("slack", BODY), "X-Slack-Signature": signed("slack", BODY)["X-Slack-Signature"][3:]}],
        "stripe": [
            {"Stripe-Signature": signed("stripe", BODY)["Stripe-Signature"].replace("v1=", word)}
            for word in ("v0=", "v2=", "")
        ],
        "generic-hmac": [
            {"x-signature": "sha1=" + digest(key, BODY, "sha1").hex()},
            {"x-signature": digest(key, BODY, "sha512").hex()},
            {"x-signature": "sha512=" + digest(key, BODY, "sha256").hex()},
        ],
        "basic": [{"Authorization": "Bearer " + b64encode(secret("basic")).decode()}],
        "bearer": [{"Authorization": "Basic " + b64encode(secret("bearer")).decode()}],
    }  # fmt: skip
    async with attacked(tmp_path) as (rig, _), client(rig) as c:
        for kind, tries in confused.items():
            for headers in tries:
                assert (await told(c, post(kind, BODY, headers))).status == 401, (kind, headers)
        assert rig.records == []


async def test_one_kinds_signature_opens_no_source_of_another_kind(tmp_path: Path) -> None:
    async with attacked(tmp_path) as (rig, _), client(rig) as c:
        for signer in SIGNED:
            headers = signed(signer, BODY)
            for token in SIGNED:
                # Two sources of the same secret: pagerduty's and generic-hmac's would look alike if names were ignored.
                expected = 401 if token != signer else 202
                answer = await told(c, post(token, BODY, headers))
                assert answer.status == expected, (signer, token)


@pytest.mark.parametrize("part", ["id", "stamp"])
async def test_a_dot_that_moves_the_border_of_what_is_signed_is_401(part: str, tmp_path: Path) -> None:
    # id.timestamp.body is one text: "a" "1" "2.x" and "a.1" "2" "x" would carry the same signature.
    good = signed("standard", b"%d.x" % NOW_S, id="a")
    stamp = good["webhook-timestamp"]
    moved = {
        "id": ({**good, "webhook-id": f"a.{stamp}", "webhook-timestamp": stamp}, b"x"),
        "stamp": ({**good, "webhook-timestamp": f"{stamp}.{NOW_S}"}, b"x"),
    }[part]
    async with attacked(tmp_path) as (rig, _):
        assert await status(rig, post("standard", moved[1], moved[0])) == 401
        assert rig.records == []


async def test_more_signatures_than_anybody_needs_are_401(tmp_path: Path) -> None:
    good = signed("standard", BODY)
    right = good["webhook-signature"]
    async with attacked(tmp_path) as (rig, _), client(rig) as c:
        few = " ".join(["v1,AAAA"] * (SIGNATURES_MAX - 1) + [right])
        assert (await told(c, post("standard", BODY, {**good, "webhook-signature": few}))).status == 202
        many = " ".join(["v1,AAAA"] * 1000 + [right])
        assert (await told(c, post("standard", BODY, {**good, "webhook-signature": many}))).status == 401


async def test_a_guessed_or_altered_token_is_404_and_tells_nothing(tmp_path: Path) -> None:
    table = SourceTable()
    table.add("Xy-3tjL4Q-NNld594M-b3g")
    guesses = [
        "", "x", "Xy-3tjL4Q-NNld594M-b3", "Xy-3tjL4Q-NNld594M-b3gg", "xy-3tjL4Q-NNld594M-b3g",
        "%58y-3tjL4Q-NNld594M-b3g",
        "*", "..", "'%20or%201=1--", "A" * 5000,
    ]  # fmt: skip
    async with running(tmp_path, sources=table) as rig:
        said = set()
        for guess in guesses:
            async with client(rig) as c:
                answer = await told(c, post(guess, b"x", {}))
            assert answer.status == 404, guess
            said.add(answer.body)
        assert len(said) == 1, "the answer is the same for each"
        assert rig.records == []


async def test_forged_requests_are_never_parsed_nor_decompressed(tmp_path: Path) -> None:
    table = SourceTable()
    settings = '{"require_json":true,"dedupe":{"paths":["/id"],"required":true}}'
    for kind in ("github", "stripe", "slack", "pagerduty"):
        table.add(f"{kind}-json", kind=kind, secret=b"s", settings=settings)
    hostile = [b"[" * 100_000, b'{"type":"url_verification","challenge":"x"}', b"\xff\xfe", b"{}", b"",
               gzip.compress(bytes(1_000_000))]  # fmt: skip
    async with attacked(tmp_path, sources=table) as (rig, _), client(rig) as c:
        for kind in ("github", "stripe", "slack", "pagerduty"):
            for body in hostile:
                headers = {**signed(kind, body, key=b"guess"), "Content-Encoding": "gzip"}
                # 401 and not 400 or 422, which only a look into the body could tell.
                assert (await told(c, post(f"{kind}-json", body, headers))).status == 401, (kind, body[:20])
        assert rig.records == []


async def test_a_signed_bomb_is_kept_as_it_came(tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(64 * 1024 * 1024))
    twice = gzip.compress(bomb)
    async with attacked(tmp_path) as (rig, _), client(rig) as c:
        for body, encoding in ((bomb, "gzip"), (twice, "gzip, gzip"), (b"no zstd", "zstd"), (b"x", "a" * 100)):
            headers = {**signed("github", body), "Content-Encoding": encoding}
            assert (await told(c, post("github", body, headers))).status == 202
        assert [r.body for r in rig.records] == [bomb, twice, b"no zstd", b"x"]


async def test_an_unsigned_challenge_is_not_answered(tmp_path: Path) -> None:
    body = b'{"type":"url_verification","challenge":"<script>alert(1)</script>"}'
    async with attacked(tmp_path) as (rig, clock), client(rig) as c:
        assert (await told(c, post("slack", body, {}))).status == 401
        assert (await told(c, post("slack", body, signed("slack", body, key=b"guess")))).status == 401
        assert (await told(c, post("none", body, {}))).status == 202, "another kind's challenge is an event"
        answer = await told(c, post("slack", body, signed("slack", body)))
        assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
        assert answer.headers["x-content-type-options"] == "nosniff"
        clock.wall_s += 400
        assert (await told(c, post("slack", body, signed("slack", body)))).status == 401, "nor one that was recorded"
        assert len(rig.records) == 1


async def test_while_two_secrets_live_both_are_taken_and_after_that_one(tmp_path: Path) -> None:
    table = SourceTable()
    row = table.add("turning", kind="github", secrets=((2, b"new"), (1, b"old")))
    async with attacked(tmp_path, sources=table) as (rig, _), client(rig) as c:
        for key in (b"old", b"new"):
            assert (
                await told(c, post("turning", BODY, signed("github", BODY, key=key, id=key.decode())))
            ).status == 202
        assert [r.key_id for r in rig.records] == [1, 2]
        table.rows[row.token_hash] = replace(row, secrets=((2, b"new"),), version=row.version + 1)
        table.now += 1
        await rig.snapshot.refresh()
        assert (await told(c, post("turning", BODY, signed("github", BODY, key=b"old", id="3")))).status == 401
        assert (await told(c, post("turning", BODY, signed("github", BODY, key=b"new", id="4")))).status == 202


async def test_a_duplicate_under_another_body_or_secret_is_no_way_to_drop_an_event(tmp_path: Path) -> None:
    """Whoever can send first under a key must not be able to make us swallow the genuine event."""
    async with attacked(tmp_path) as (rig, _), client(rig) as c:
        mine = {**signed("github", b"mine"), "X-GitHub-Delivery": "d-1"}
        theirs = {**signed("github", b"theirs"), "X-GitHub-Delivery": "d-1"}
        assert [(await told(c, post("github", b, h))).status for b, h in ((b"mine", mine), (b"theirs", theirs))] == [
            202, 202,
        ]  # fmt: skip
        assert [r.body for r in rig.records] == [b"mine", b"theirs"], "the router keeps the second as a conflict"
        assert (await told(c, post("none", b"mine", {"Idempotency-Key": "d-1"}))).status == 202, (
            "keys are a source's own"
        )
