"""Keys are the same wherever they are made, and nothing that a body holds breaks them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.kernel.allowance import KEY_BYTES, RULE_BYTES, TENANT, Allowance, Limit, Rate, allowance, span

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
BY_ACCOUNT = Allowance("deploy", (Limit(5, key="/account/id"), Limit(100)), (Rate(100, per=60, key=TENANT),))


def account(id: Any) -> Any:
    return {"account": {"id": id}}


def test_runs_of_one_value_count_together_and_others_apart() -> None:
    (first, whole), (rate,) = BY_ACCOUNT.keys("acme", account(7))
    assert BY_ACCOUNT.keys("acme", account(7)) == ((first, whole), (rate,))
    assert BY_ACCOUNT.keys("acme", account(7.0))[0][0] == first
    for other in (8, "7", True, None, [7]):
        assert BY_ACCOUNT.keys("acme", account(other)) == (
            (BY_ACCOUNT.keys("acme", account(other))[0][0], whole),
            (rate,),
        )
        assert BY_ACCOUNT.keys("acme", account(other))[0][0] != first


def test_a_senders_value_never_counts_with_another_tenants() -> None:
    ours, theirs = BY_ACCOUNT.keys("acme", account(7)), BY_ACCOUNT.keys("other", account(7))
    assert ours[0][0] != theirs[0][0] and ours[1] != theirs[1]
    assert ours[0][1] == theirs[0][1], "a limit without a key is the whole workflow's"


def test_runs_without_the_value_share_one_key_of_their_tenant() -> None:
    keys = {BY_ACCOUNT.keys("acme", body)[0][0] for body in (None, {}, account(None), account({}), [], "x")}
    assert len(keys) == 1
    assert BY_ACCOUNT.keys("other", None)[0][0] not in keys


@given(JSON, st.text())
def test_any_body_and_tenant_gives_keys_that_name_their_rules(body: Any, tenant: str) -> None:
    limits, rates = BY_ACCOUNT.keys(tenant, body)
    assert [BY_ACCOUNT.rule(key) for key in (*limits, *rates)] == [*BY_ACCOUNT.limits, *BY_ACCOUNT.rates]
    start, end = span("deploy")
    assert all(start < key < end and len(key) == KEY_BYTES for key in (*limits, *rates))


def test_versions_with_other_numbers_count_together() -> None:
    newer = Allowance("deploy", (Limit(9, key="/account/id"),))
    assert newer.keys("acme", account(7))[0][0] == BY_ACCOUNT.keys("acme", account(7))[0][0]
    assert newer.rule(BY_ACCOUNT.keys("acme", {})[0][1]) is None
    elsewhere = Allowance("other", (Limit(9, key="/account/id"),)).keys("acme", account(7))[0][0]
    assert elsewhere[:RULE_BYTES] not in newer.rules


def test_what_is_declared_comes_back_from_the_store_and_rubbish_does_not() -> None:
    assert allowance("deploy", BY_ACCOUNT.text) == BY_ACCOUNT
    assert allowance("deploy", None) is None
    for rubbish in ("", "[]", "{", "7", '[["limit"]]', '[["limit", 0, null]]', '[["rate", 1, "x", null, 1]]', "[[]]"):
        assert allowance("deploy", rubbish) == Allowance("deploy")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Limit(0), lambda: Limit(10_001), lambda: Limit(True), lambda: Limit(1, key="account"),
        lambda: Limit(1, key=""), lambda: Rate(1, per=0), lambda: Rate(1, per=float("nan")), lambda: Rate(0, per=1),
        lambda: Rate(1, per=1, burst=0),
    ],
)  # fmt: skip
def test_a_wrong_rule_fails_where_it_is_written(make: Any) -> None:
    with pytest.raises(ValueError, match=r"Limit|Rate"):
        make()
