"""Signatures: published vectors, what each kind refuses, and that no header can make one raise."""

from __future__ import annotations

from base64 import b64encode
from hmac import digest
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from seawall.kernel import signature
from seawall.kernel.signature import DEFAULT, KINDS, Options, Refused, Verified

NOW = 1_700_000_000.0
STANDARD = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
_PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
WHSK = b"whsk_" + b64encode(_PRIVATE.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()))
WHPK = b"whpk_" + b64encode(_PRIVATE.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
SECRETS = {
    "standard": STANDARD,
    "github": b"It's a Secret to Everybody",
    "stripe": b"whsec_test_secret",
    "slack": b"8f742231b10e8888abcd99yyyzzz85a5",
    "shopify": b"test-webhook-secret",
    "pagerduty": b"lDQHScfUeXUKaQRNF+8XIiDKZ7XX3itBAYzwU0TARw8lJqRnkKl2iB1anSb0Z+IK",
    "generic-hmac": b"generic",
    "basic": b"Aladdin:open sesame",
    "bearer": b"token-of-the-sender",
    "none": b"",
}


def check(
    kind: str, headers: dict[str, str] | list[tuple[str, str]], body: bytes, *, now_s: float = NOW,
    secrets: list[tuple[int, bytes]] | None = None, options: Options = DEFAULT,
) -> Verified | Refused:  # fmt: skip
    pairs = headers.items() if isinstance(headers, dict) else headers
    given = {k.lower().encode("latin-1"): v.encode("latin-1") for k, v in pairs}
    return KINDS[kind].verify(secrets if secrets is not None else [(1, SECRETS[kind])], given, body, now_s, options)


def good(verdict: Verified | Refused) -> Verified:
    assert isinstance(verdict, Verified), verdict
    return verdict


def bad(verdict: Verified | Refused, status: int = 401) -> str:
    assert isinstance(verdict, Refused), verdict
    assert verdict.status == status
    return verdict.reason


# ── Published vectors ────────────────────────────────────────────────────────────────────────────────────────────────


def test_vector_of_rfc_4231() -> None:
    # The primitive under all of them, test case 2.
    found = digest(b"Jefe", b"what do ya want for nothing?", "sha256").hex()
    assert found == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"


def test_vector_of_standard_webhooks() -> None:
    # standard-webhooks, libraries/python/tests/test_webhooks.py
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    verdict = good(check("standard", headers, b'{"test": 2432232314}', now_s=1614265330))
    assert verdict == (1, "msg_p5jXN8AQM9LWM0D4loKWxJek", True)
    several = {
        **headers,
        "webhook-signature": "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc= v2,aaa " + headers["webhook-signature"],
    }
    good(check("standard", several, b'{"test": 2432232314}', now_s=1614265330))
    wrong = {**headers, "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OA="}
    bad(check("standard", wrong, b'{"test": 2432232314}', now_s=1614265330))


def test_vector_of_github() -> None:
    # GitHub's documentation, "Validating webhook deliveries"
    headers = {"X-Hub-Signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"}
    good(check("github", headers, b"Hello, World!"))


def test_vector_of_slack() -> None:
    # Slack's documentation, "Verifying requests from Slack"
    body = (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&"
        b"channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url="
        b"https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&"
        b"trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
    )
    headers = {
        "X-Slack-Request-Timestamp": "1531420618",
        "X-Slack-Signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
    }
    good(check("slack", headers, body, now_s=1531420618))


def test_stripe_signs_with_the_secret_as_it_is_written() -> None:
    # Stripe publishes no static vector; this one was computed with its library's own test payload.
    body = (
        b'{\n  "id": "evt_test_webhook",\n  "object": "event",\n'
        b'  "data": { "object": { "id": "rdr_123", "object": "terminal.reader" } }\n}'
    )
    given = "t=1700000000,v1=3bfab77baf5f7b6991a46c9b53b6547d7afc56148b10468fcad9f35c1992ffbd,v0=ignored"
    good(check("stripe", {"Stripe-Signature": given}, body))


def test_vector_of_shopify() -> None:
    # Shopify publishes none; this one is from the tests of SQLPage, an open-source receiver.
    body = b'{"id":1234567890,"email":"customer@example.com","total_price":"123.45"}'
    good(check("shopify", {"X-Shopify-Hmac-SHA256": "QNyObTlKbMx2qDlPF/ZOZcBqg5OgPg+2oky3zldc0Gw="}, body))


def test_vector_of_pagerduty() -> None:
    # go-pagerduty, webhookv3/webhookv3_test.go: its key, its body and its signature
    body = (Path(__file__).parent / "pagerduty.json").read_bytes()
    right = "v1=0c0b9495b893a39e70d1fea2fe11fbe0a825f88b9f67846f6cc07dd2bc5476cd"
    wrong = "v1=7020c8a7ec668a9b7012bc3dd82e483394b038f4230acc6785efbf2a7d8bcaf5"
    good(check("pagerduty", {"X-PagerDuty-Signature": right}, body))
    good(check("pagerduty", {"X-PagerDuty-Signature": f"{wrong},{right}"}, body))
    bad(check("pagerduty", {"X-PagerDuty-Signature": wrong}, body))
    bad(check("pagerduty", {"X-PagerDuty-Signature": f"{wrong}," * 16 + right}, body))


def test_vectors_of_basic() -> None:
    # RFC 7617, sections 2 and 2.1
    good(check("basic", {"Authorization": "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="}, b""))
    utf8 = [(1, "test:123£".encode())]
    good(check("basic", {"Authorization": "basic dGVzdDoxMjPCow=="}, b"", secrets=utf8))
    for written in ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ", "Basic", "Basic QQ==", "Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ=="):
        bad(check("basic", {"Authorization": written}, b""))


# ── All kinds alike ──────────────────────────────────────────────────────────────────────────────────────────────────

SIGNED = [k for k in KINDS if KINDS[k].has_secret]
COVER_BODY = [k for k in KINDS if KINDS[k].covers_body]
DATED = ("standard", "stripe", "slack")


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_signs_it_verifies(kind: str) -> None:
    headers = signature.sign(kind, SECRETS[kind], b'{"a":1}', NOW, id="id-1")
    good(check(kind, headers, b'{"a":1}'))


@pytest.mark.parametrize("kind", SIGNED)
def test_another_secret_is_refused_and_an_older_live_one_is_found(kind: str) -> None:
    other = b"whsec_" + b64encode(b"another secret of 24 b.") if kind == "standard" else b"another"
    headers = signature.sign(kind, SECRETS[kind], b"body", NOW, id="id-1")
    bad(check(kind, headers, b"body", secrets=[(2, other)]))
    bad(check(kind, headers, b"body", secrets=[]))
    assert good(check(kind, headers, b"body", secrets=[(2, other), (1, SECRETS[kind])])).key_id == 1


@pytest.mark.parametrize("kind", COVER_BODY)
@pytest.mark.parametrize("body", [b"body\n", b"Body", b"", b"bod"])
def test_one_changed_byte_is_refused(kind: str, body: bytes) -> None:
    bad(check(kind, signature.sign(kind, SECRETS[kind], b"body", NOW, id="id-1"), body))


@pytest.mark.parametrize("kind", SIGNED)
def test_without_headers_it_is_refused(kind: str) -> None:
    bad(check(kind, {}, b"body"))


@pytest.mark.parametrize("kind", SIGNED)
def test_a_repeated_header_is_refused(kind: str) -> None:
    headers = signature.sign(kind, SECRETS[kind], b"body", NOW, id="id-1")
    for name, value in headers:
        if name not in ("Idempotency-Key", "X-GitHub-Delivery", "X-Shopify-Event-Id"):
            bad(check(kind, {**dict(headers), name: f"{value}, {value}"}, b"body"))


@pytest.mark.parametrize("kind", DATED)
@pytest.mark.parametrize(("shift_s", "accepted"), [(-299, True), (299, True), (-301, False), (301, False)])
def test_the_replay_window_has_two_sides(kind: str, shift_s: int, accepted: bool) -> None:
    headers = signature.sign(kind, SECRETS[kind], b"body", NOW + shift_s, id="id-1")
    assert isinstance(check(kind, headers, b"body"), Verified) is accepted


@pytest.mark.parametrize(
    "stamp", ["nan", "1e400", "-1", "1700000000.5", "9223372036854775808", "", "１７", " 1700000000"]
)
def test_a_strange_timestamp_is_refused(stamp: str) -> None:
    signed = b"id." + stamp.encode() + b".body"
    given = "v1," + b64encode(digest(b64_key(), signed, "sha256")).decode()
    headers = {b"webhook-id": b"id", b"webhook-timestamp": stamp.encode(), b"webhook-signature": given.encode()}
    bad(KINDS["standard"].verify([(1, STANDARD)], headers, b"body", NOW, DEFAULT))


def b64_key() -> bytes:
    import base64

    return base64.b64decode(STANDARD.removeprefix(b"whsec_"))


@pytest.mark.parametrize(
    "given",
    [
        "garbage",
        "v1,a,b",
        "v1,abc",
        "v1,  v1,",
        ",",
        " ",
        "v1",
        "v1a,",
        "v1a,abc",
        "é",
        "v0,x",
        "sha1=x",
        "v1," + "A" * 9999,
    ],
)  # fmt: skip
def test_hostile_signatures_are_refused(given: str) -> None:
    headers = {"webhook-id": "id", "webhook-timestamp": "1700000000", "webhook-signature": given}
    bad(check("standard", headers, b"\xff\xfe"))
    bad(check("standard", headers, b"\xff\xfe", secrets=[(1, WHPK)]))


def test_a_header_of_many_signatures_is_refused() -> None:
    headers = dict(signature.sign("standard", STANDARD, b"body", NOW, id="id"))
    headers["webhook-signature"] = "v1,x " * 16 + headers["webhook-signature"]
    bad(check("standard", headers, b"body"))


def test_an_id_with_a_dot_is_refused() -> None:
    # id.timestamp.body is one text: with a dot inside, two readings of it would carry the same signature.
    bad(check("standard", signature.sign("standard", STANDARD, b"body", NOW, id="a.b"), b"body"))


def test_ed25519_verifies_with_the_public_key_alone() -> None:
    headers = signature.sign("standard", WHSK, b"body", NOW, id="id")
    assert dict(headers)["webhook-signature"].startswith("v1a,")
    assert good(check("standard", headers, b"body", secrets=[(1, WHPK)])).key_signed
    bad(check("standard", headers, b"bodY", secrets=[(1, WHPK)]))
    # Algorithms can't be confused: the source's key decides, not the header.
    bad(check("standard", headers, b"body", secrets=[(1, STANDARD)]))
    forged = signature.sign("standard", b"whsec_" + WHPK.removeprefix(b"whpk_"), b"body", NOW, id="id")
    bad(check("standard", forged, b"body", secrets=[(1, WHPK)]))


@pytest.mark.parametrize(
    ("kind", "secret"),
    [
        ("standard", b"whsec_not base64!"), ("standard", b""), ("standard", WHSK), ("standard", b"whpk_YWJj"),
        ("github", b""), ("bearer", b"two words"), ("bearer", b"caf\xc3\xa9"), ("none", b"something"),
        ("shopify", b""), ("pagerduty", b""), ("basic", b"user"), ("basic", b":p"), ("basic", b"u:"),
        ("basic", b"u:\n"),
    ],
)  # fmt: skip
def test_a_secret_that_can_not_work_is_told_at_once(kind: str, secret: bytes) -> None:
    assert KINDS[kind].secret_problem(secret)


@pytest.mark.parametrize("kind", KINDS)
def test_a_secret_that_works_has_no_problem(kind: str) -> None:
    assert KINDS[kind].secret_problem(SECRETS[kind]) == ""


def test_a_public_key_can_not_sign() -> None:
    with pytest.raises(ValueError, match="private"):
        signature.sign("standard", WHPK, b"body", NOW, id="id")


# ── Dedupe keys ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "extra", "key", "signed"),
    [
        ("standard", {}, "id-1", True),
        ("github", {}, "id-1", False),
        ("stripe", {}, "", False),
        ("slack", {}, "", False),
        ("shopify", {}, "id-1", False),
        ("shopify", {"X-Shopify-Topic": "orders/paid"}, "orders.paid:id-1", False),
        ("pagerduty", {}, "", False),
        ("basic", {}, "id-1", False),
        ("generic-hmac", {}, "id-1", False),
        ("none", {"Idempotency-Key": '"quoted-1"'}, "quoted-1", False),
        ("none", {"webhook-id": "w-1"}, "w-1", False),
    ],
)
def test_dedupe_key(kind: str, extra: dict[str, str], key: str, signed: bool) -> None:
    signed_ones = dict(signature.sign(kind, SECRETS[kind], b"body", NOW, id="id-1"))
    headers = extra if kind == "none" else signed_ones | extra
    verdict = good(check(kind, headers, b"body"))
    assert (verdict.key, verdict.key_signed) == (key, signed)


@pytest.mark.parametrize("value", ["", '""', "a b", "a/b", "a'b", "é", "x" * 129, "a\tb"])
def test_a_key_that_can_not_be_one_is_400(value: str) -> None:
    assert "idempotency-key" in bad(check("none", {"Idempotency-Key": value}, b"", secrets=[]), 400)


def test_a_bad_key_behind_a_bad_signature_stays_401() -> None:
    headers = dict(signature.sign("generic-hmac", b"other", b"body", NOW, id="id-1"))
    bad(check("generic-hmac", {**headers, "Idempotency-Key": "a b"}, b"body"))


# ── Kinds of their own ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("algorithm", ["sha256", "sha512", "sha1"])
@pytest.mark.parametrize("encoding", ["hex", "base64"])
@pytest.mark.parametrize("prefix", ["", "sig="])
@pytest.mark.parametrize("timestamp_header", ["", "X-Time"])
def test_generic_hmac_as_the_source_says(algorithm: str, encoding: str, prefix: str, timestamp_header: str) -> None:
    options = Options(
        header="X-My-Sig", algorithm=algorithm, encoding=encoding, prefix=prefix, timestamp_header=timestamp_header
    )
    headers = signature.sign("generic-hmac", b"s", b"body", NOW, id="id-1", options=options)
    good(check("generic-hmac", headers, b"body", secrets=[(1, b"s")], options=options))
    bad(check("generic-hmac", headers, b"bodY", secrets=[(1, b"s")], options=options))
    if timestamp_header:
        bad(check("generic-hmac", headers, b"body", secrets=[(1, b"s")], options=options, now_s=NOW + 301))


def test_generic_hmac_takes_the_algorithms_name_as_prefix() -> None:
    value = "sha256=" + digest(b"generic", b"body", "sha256").hex()
    good(check("generic-hmac", {"X-Signature": value}, b"body"))


def test_slack_challenge_is_answered_and_nothing_else_is() -> None:
    shake = KINDS["slack"].handshake
    assert shake is not None
    assert shake(b'{"type":"url_verification","challenge":"3eZbrw1a","token":"x"}') == b"3eZbrw1a"
    for body in (
        b'{"type":"event_callback","text":"url_verification"}', b"url_verification", b'["url_verification"]',
        b'{"type":"url_verification"}', b'{"type":"url_verification","challenge":7}', b"[" * 4000 + b"url_verification",
    ):  # fmt: skip
        assert shake(body) is None


# ── Fuzz ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

NAMES = st.sampled_from(
    [
        b"webhook-id", b"webhook-timestamp", b"webhook-signature", b"x-hub-signature-256", b"x-github-delivery",
        b"stripe-signature", b"x-slack-signature", b"x-slack-request-timestamp", b"x-signature", b"authorization",
        b"idempotency-key", b"x-shopify-hmac-sha256", b"x-shopify-event-id", b"x-shopify-topic",
        b"x-pagerduty-signature",
    ]
)  # fmt: skip
PIECES = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from(
            [
                b"v1,",
                b"v1a,",
                b"t=",
                b"v1=",
                b"sha256=",
                b"v0=",
                b"Bearer ",
                b"Basic ",
                b"1700000000",
                b" ",
                b",",
                b"id",
            ]
        ),
    ),
    max_size=8,
).map(b"".join)


@given(kind=st.sampled_from(sorted(KINDS)), headers=st.dictionaries(NAMES, PIECES), body=st.binary(max_size=100))
def test_no_header_makes_it_raise_or_pass(kind: str, headers: dict[bytes, bytes], body: bytes) -> None:
    for secret in (SECRETS[kind], WHPK if kind == "standard" else SECRETS[kind]):
        verdict = KINDS[kind].verify([(1, secret)], headers, body, NOW, DEFAULT)
        assert isinstance(verdict, Refused) or kind == "none"
        json_shaped = KINDS[kind].handshake
        assert json_shaped is None or json_shaped(body) is None
