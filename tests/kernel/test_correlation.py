"""What is waited for and what comes have one key, exactly when tenant, type and values are the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.kernel.correlation import FIELDS_MAX, Value, found, key_of, ways

TEXT = st.text(max_size=8)
VALUES = st.one_of(TEXT, st.integers(), st.booleans())


def wanted(tenant: str, type: str, match: dict[str, Value]) -> bytes:
    values = {field if field.startswith("/") else f"/{field}": value for field, value in match.items()}
    return key_of(tenant, type, [(field, values[field]) for field, _ in ways(match)])


@given(st.dictionaries(st.from_regex(r"[a-z]{1,3}", fullmatch=True), VALUES, min_size=1, max_size=4))
def test_an_event_with_these_values_is_found_by_them(match: dict[str, Value]) -> None:
    body = {**match, "more": [1, 2]}
    assert found("acme", "x", ways(match), body) == wanted("acme", "x", match)


@given(TEXT, TEXT, VALUES, TEXT, TEXT, VALUES)
def test_different_ones_have_different_keys(a: str, b: str, c: Value, d: str, e: str, f: Value) -> None:
    """Also where words run into each other, and where one value looks like another one: 1, "1" and true."""
    same = (a, b, type(c), c) == (d, e, type(f), f)
    assert (key_of(a, b, [("/k", c)]) == key_of(d, e, [("/k", f)])) == same


def test_the_order_in_which_fields_are_given_makes_no_difference() -> None:
    one, other = {"b": 1, "/a/b": "x"}, {"/a/b": "x", "b": 1}
    assert wanted("t", "y", one) == wanted("t", "y", other) == found("t", "y", ways(one), {"b": 1, "a": {"b": "x"}})


@pytest.mark.parametrize(
    ("body", "same"),
    [
        ({"n": 5}, True), ({"n": 5.0}, True), ({"n": "5"}, False), ({"n": 5.5}, False), ({"n": None}, False),
        ({}, False), ([], False), (None, False), ({"n": [5]}, False), ({"n": True}, False),
    ],
)  # fmt: skip
def test_whole_numbers_are_the_same_however_they_are_written(body: object, *, same: bool) -> None:
    assert (found("t", "x", ways(["n"]), body) == wanted("t", "x", {"n": 5})) == same


@pytest.mark.parametrize("fields", [[], [f"f{n}" for n in range(FIELDS_MAX + 1)], ["/~2"], ["/" + "x" * 300]])
def test_what_names_no_fields_is_refused(fields: list[str]) -> None:
    with pytest.raises(ValueError, match=r"fields to match|JSON Pointer"):
        ways(fields)


def test_a_name_with_a_slash_in_it_is_that_of_one_field() -> None:
    assert found("t", "x", ways(["a/b"]), {"a/b": 1}) == wanted("t", "x", {"/a~1b": 1})
    assert found("t", "x", ways(["a/b"]), {"a": {"b": 1}}) is None
    assert ways(["a~b"])[0] == ("/a~0b", ("a~b",))
