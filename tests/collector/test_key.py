"""Dedupe keys that a source's settings ask for: found, missing, required, and never raising."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.collector.key import DedupeChoice, KeyRule
from seawall.collector.setting import choice, source_problems
from seawall.kernel import signature
from seawall.kernel.signature import KINDS, Refused, Verified

from .rig import SourceTable, client, request, running

BODY = b'{"data":{"id":"evt-7","n":42,"dotted":"a.b","list":[{"id":"first"}],"none":null,"yes":true,"e":""}}'


def judged(
    kind: str = "github", *, body: bytes = BODY, headers: dict[bytes, bytes] | None = None, own: str = "own",
    **wish: object,
) -> Verified | Refused:  # fmt: skip
    rule = KeyRule(DedupeChoice(**wish), KINDS[kind])  # type: ignore[arg-type]
    return rule.judge(Verified(1, own, True), headers or {}, body)


@pytest.mark.parametrize(
    ("paths", "key"),
    [
        (("/data/id",), "evt-7"),
        (("/data/n",), "42"),
        (("/data/dotted",), "a.b"),
        (("/data/list/0/id",), "first"),
        (("/data/id", "/data/n"), "evt-7.42"),
    ],
)
def test_paths_are_read_in_the_body(paths: tuple[str, ...], key: str) -> None:
    assert judged(paths=paths) == Verified(1, key, key_signed=True)
    assert judged("bearer", paths=paths) == Verified(1, key, key_signed=False)


def test_what_can_be_no_key_as_it_is_becomes_its_digest() -> None:
    keys = [
        judged(paths=("/a",), body=json.dumps({"a": value}).encode()).key  # type: ignore[union-attr]
        for value in ("with space", "x" * 129, "é", "\ud83d\ude00", "a\0b")
    ]
    assert all(len(key) == 71 and key.startswith("sha256:") for key in keys)
    assert len(set(keys)) == len(keys)


def test_two_lists_of_parts_never_make_one_key() -> None:
    one = judged(paths=("/a", "/b"), body=b'{"a":"x.y","b":"z"}')
    other = judged(paths=("/a", "/b"), body=b'{"a":"x","b":"y.z"}')
    assert one != other


def test_a_configured_key_replaces_the_kinds_own() -> None:
    assert judged(header="X-My-Id", headers={b"x-my-id": b"mine"}) == Verified(1, "mine", key_signed=False)
    assert judged(header="X-My-Id") == Verified(1)
    assert judged(paths=("/nothing",)) == Verified(1)
    both = {"header": "X-My-Id", "paths": ("/data/id",)}
    assert judged(headers={b"x-my-id": b"mine"}, **both) == Verified(1, "mine")  # type: ignore[arg-type]
    assert judged(**both).key == "evt-7"  # type: ignore[arg-type, union-attr]


@pytest.mark.parametrize("path", ["/data/none", "/data/yes", "/data/e", "/data", "/data/list", "/no"])
def test_a_required_place_without_a_key_is_422(path: str) -> None:
    for body in (BODY, b"", b"not json", b"\xff"):
        verdict = judged(paths=(path,), required=True, body=body)
        assert isinstance(verdict, Refused)
        assert verdict.status == 422
        assert path in verdict.reason


def test_a_required_header_that_is_missing_or_can_be_no_key_is_400() -> None:
    for headers in ({}, {b"x-my-id": b"a b"}, {b"x-my-id": b""}):
        verdict = judged(header="X-My-Id", required=True, headers=headers)
        assert isinstance(verdict, Refused)
        assert verdict.status == 400


def test_a_required_key_may_be_the_kinds_own() -> None:
    assert judged(required=True) == Verified(1, "own", True)
    assert isinstance(judged(required=True, own=""), Refused)
    # Where the kind has it in the body, the router finds it as a rule; one that must be there is looked for at once.
    assert judged("stripe", required=True, own="", body=b'{"id":"evt_1"}') == Verified(1, "evt_1", True)
    missing = judged("pagerduty", required=True, own="", body=b'{"id":"evt_1"}')
    assert isinstance(missing, Refused)
    assert (missing.status, "/event/id" in missing.reason) == (422, True)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
)


@given(
    body=VALUES.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=80),
    headers=st.dictionaries(st.just(b"x-id"), st.binary(max_size=20)),
    required=st.booleans(),
)
def test_nothing_makes_it_raise(body: bytes, headers: dict[bytes, bytes], required: bool) -> None:
    judged(header="X-Id", paths=("/a", "/b/0"), required=required, body=body, headers=headers)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"header": "two words"}, "dedupe.header"),
        ({"paths": ["data.id"]}, "dedupe.paths"),
        ({"paths": ["/a"] * 9}, "dedupe.paths"),
        ({"path": "/a"}, "path"),
    ],
)
def test_settings_that_can_not_work_are_told(settings: dict[str, object], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        choice(json.dumps({"dedupe": settings}))
    problems = source_problems(
        name="a", kind="none", tenant="t", settings=json.dumps({"dedupe": settings}), secret=None
    )
    assert len(problems) == 1


async def test_over_the_wire(tmp_path: Path) -> None:
    sources = SourceTable()
    sources.add("tok", kind="shopify", secret=b"s", settings='{"dedupe":{"paths":["/id"],"required":true}}')

    def signed(body: bytes) -> bytes:
        return request(body=body, headers=dict(signature.sign("shopify", b"s", body, time.time(), id="event-id")))

    async with running(tmp_path, sources=sources) as rig, client(rig) as c:
        for raw, status in (
            (signed(b'{"id":1}'), 202), (signed(b'{"id":1}'), 200), (signed(b'{"id":2}'), 202), (signed(b"{}"), 422),
        ):  # fmt: skip
            await c.send(raw)
            answer = await c.answer()
            assert answer is not None
            assert answer.status == status
        assert [(r.key, r.key_signed) for r in rig.records] == [("1", True), ("2", True)]


@pytest.mark.parametrize(("kind", "scheme"), [("basic", "Basic realm="), ("bearer", "Bearer"), ("github", None)])
async def test_a_401_names_the_scheme_that_http_knows(kind: str, scheme: str | None, tmp_path: Path) -> None:
    sources = SourceTable()
    sources.add("tok", kind=kind, secret=b"user:password")
    async with running(tmp_path, sources=sources) as rig, client(rig) as c:
        await c.send(request(body=b"x"))
        async with asyncio.timeout(5):
            answer = await c.answer()
        assert answer is not None
        assert answer.status == 401
        given = answer.headers.get("www-authenticate")
        assert given is None if scheme is None else given is not None and given.startswith(scheme)
