"""JSON Pointers lead where RFC 6901 says, and nowhere else."""

from __future__ import annotations

from json import dumps

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.kernel import json, pointer

# RFC 6901, section 5, as far as its places hold values of ours.
DOCUMENT = {"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "m~n": 8, "~1": 9, "deep": {"er": [{"id": "x"}]}}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("/foo/0", "bar"), ("/", 0), ("/a~1b", 1), ("/c%d", 2), ("/m~0n", 8), ("/~01", 9), ("/deep/er/0/id", "x"),
        ("/foo/2", None), ("/foo/00", None), ("/foo/-", None), ("/foo/-1", None), ("/foo/0/x", None), ("/no", None),
        ("/foo/" + "9" * 50, None),
    ],
)  # fmt: skip
def test_it_finds_what_stands_there(written: str, value: object) -> None:
    assert pointer.find(DOCUMENT, pointer.steps(written)) == value


@pytest.mark.parametrize("written", ["", "foo", "$.foo", "/a~", "/a~2", "/" + "x" * 200])
def test_what_is_no_pointer_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="JSON Pointer"):
        pointer.steps(written)


NAMES = ["a", "b", "0", "1", "00", "-", "", "~0", "~1"]
BODIES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
).map(lambda value: dumps(value).encode())
WAYS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map(lambda names: "/" + "/".join(names))
"""Of any bytes and any text at all, hardly any are a body and a pointer."""


@given(body=BODIES | st.binary(max_size=60), written=WAYS | st.text(max_size=20))
def test_no_body_and_no_pointer_makes_it_raise(body: bytes, written: str) -> None:
    try:
        way = pointer.steps(written)
    except ValueError:
        return
    pointer.find(json.parse(body)[0], way)
