"""Bad bodies, as far as one reading of them settles what they are."""

from __future__ import annotations

import pytest

from seawall.kernel.json import DEPTH_MAX, parse


def nested(depth: int, *, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return opening * depth + closing * depth


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"type":"a"}', {"type": "a"}),
        (b"3", 3),
        (b"null", None),
        (b'"x"', "x"),
        (b"-0", 0),
        (b"18446744073709551616", 2**64),
        (b"9007199254740993", 2**53 + 1),
        (b'{"a":1,"a":2}', {"a": 2}),
        (rb'"\u0000"', "\0"),
        (rb'"\ud83d\ude00"', "\U0001f600"),
        (b'{"__proto__":{"x":1},"a.b":2}', {"__proto__": {"x": 1}, "a.b": 2}),
    ],
)
def test_a_good_body_has_its_exact_value(body: bytes, value: object) -> None:
    assert parse(body) == (value, None)


@pytest.mark.parametrize(
    "body",
    [
        b"NaN", b"[Infinity]", b"1e400", b"1" * 5000, rb'"\ud800"', b'"\xff"', b'"\xc0\xaf"', b'"\xed\xa0\x80"',
        b"\xef\xbb\xbf{}", "{}".encode("utf-16"), b"{}{}", b"[1,]", b"// x\n1", b'"a\nb"', b"0123", b"{}\0", b"a=1&b=2",
    ],
)  # fmt: skip
def test_a_bad_body_is_invalid_and_never_raises(body: bytes) -> None:
    assert parse(body) == (None, "invalid")


@pytest.mark.parametrize("body", [b"", b" \r\n\t"])
def test_an_empty_body_is_called_empty(body: bytes) -> None:
    assert parse(body) == (None, "empty")


def test_depth_is_allowed_up_to_the_limit_and_refused_beyond() -> None:
    assert parse(nested(DEPTH_MAX))[1] is None
    assert parse(nested(DEPTH_MAX + 1)) == (None, "too_deep")
    assert parse(nested(DEPTH_MAX + 1, opening=b'{"a":', closing=b"}").replace(b":}", b":1}")) == (None, "too_deep")
    assert parse(nested(100_000)) == (None, "too_deep")


def test_many_brackets_side_by_side_are_not_depth() -> None:
    value, reason = parse(b"[" + b",".join([b"[]"] * 1000) + b"]")
    assert reason is None
    assert value == [[]] * 1000
