"""The type of an event is what the glossary says, for any body and any headers."""

from __future__ import annotations

import pytest

from router.rig import record
from seawall.kernel import pointer
from seawall.kernel.signature import KINDS
from seawall.router import match
from seawall.router.match import REMEMBERED_MAX, Matcher, read
from seawall.store.router import Workflow


@pytest.mark.parametrize(
    ("values", "type"),
    [
        ({"kind": "github", "headers": b"Host\0x\0X-GitHub-Event\0push", "body": b'{"type":"no"}'}, "github.push"),
        ({"kind": "github", "headers": b"x-github-event\0pull_request", "body": b""}, "github.pull_request"),
        ({"kind": "github", "body": b'{"type":"ping"}'}, "ping"),
        ({"kind": "github", "body": b"{}"}, "shop"),
        ({"kind": "stripe", "body": b'{"type":"invoice.paid"}'}, "stripe.invoice.paid"),
        ({"kind": "stripe", "body": b'{"type":7}'}, "shop"),
        ({"kind": "slack", "body": b'{"type":"event_callback","event":{"type":"x"}}'}, "slack.event_callback"),
        ({"kind": "standard", "body": b'{"type":"user.created"}'}, "user.created"),
        (
            {"kind": "shopify", "body": b'{"type":"x"}', "headers": b"X-Shopify-Topic\0orders/paid"},
            "shopify.orders/paid",
        ),
        ({"kind": "shopify", "body": b'{"id":1}'}, "shop"),
        (
            {"kind": "pagerduty", "body": b'{"event":{"event_type":"incident.triggered"}}'},
            "pagerduty.incident.triggered",
        ),
        ({"kind": "pagerduty", "body": b'{"event":["event_type"]}'}, "shop"),
        ({"kind": "none", "body": b'{"type":"a"}', "headers": b"ce-type\0b"}, "a"),
        ({"kind": "none", "body": b"not json", "headers": b"X\0ce-type\0CE-Type\0b\0ce-type\0c"}, "b"),
        ({"kind": "bearer", "body": b"[1]"}, "shop"),
        ({"kind": "bearer", "body": b'{"type":""}'}, "shop"),
        ({"kind": "bearer", "body": b'{"type":null}', "headers": b"ce-type"}, "shop"),
        ({"kind": "none", "body": b'{"type":"a\\u0000b"}'}, "a\ufffdb"),
        ({"kind": "none", "body": b'{"type":"' + b"x" * 300 + b'"}'}, "x" * 200),
    ],
)
def test_the_type_follows_the_rule_of_its_kind(values: dict[str, object], type: str) -> None:
    assert read(record(**values), {}).type == type


def test_the_senders_header_key_comes_before_the_key_in_the_body() -> None:
    body = b'{"id":"evt_1","type":"x"}'
    assert read(record(kind="stripe", key="header", body=body), {}).key == "header"
    assert read(record(kind="stripe", body=body), {}).key == "evt_1"
    assert read(record(kind="none", body=body), {}).key == ""
    assert read(record(kind="pagerduty", body=b'{"event":{"id":"01B"}}'), {}).key == "01B"
    assert read(record(kind="stripe", body=b'{"id":7}'), {}).key == ""


def flow(id: int, pattern: str) -> Workflow:
    return Workflow(id, f"flow-{id}", pattern, 1, 4)


@pytest.mark.parametrize(
    ("pattern", "type", "matches"),
    [
        ("github.push", "github.push", True),
        ("github.push", "github.pushed", False),
        ("github.*", "github.push", True),
        ("github.*", "github", False),
        ("*", "", True),
        ("*", "two\nlines", True),
        ("a.*.c", "a.b.b.c", True),
        ("A", "a", False),
        ("a.b", "axb", False),
        ("a[b]", "a[b]", True),
        ("a[b]", "ab", False),
        ("a?", "a?", True),
        ("a?", "ab", False),
        ("a*a", "a", False),
        ("*a*b*", "xxaxb", True),
        ("*a*b*", "bxa", False),
        ("a*bc*c", "abc", False),
        ("a*bc*c", "abcc", True),
    ],
)
def test_patterns_match_whole_types_and_mind_the_case(pattern: str, type: str, matches: bool) -> None:
    assert bool(Matcher([flow(1, pattern)]).match(type)) is matches


def test_every_matching_workflow_is_found_in_order() -> None:
    matcher = Matcher([flow(1, "a.*"), flow(2, "b"), flow(3, "a.b")])
    assert [w.id for w in matcher.match("a.b")] == [1, 3]
    assert [w.id for w in matcher.match("a.b")] == [1, 3]


def test_a_sender_of_ever_new_types_does_not_fill_the_memory() -> None:
    matcher = Matcher([flow(1, "*")])
    for number in range(REMEMBERED_MAX * 2 + 1):
        assert matcher.match(str(number))
    assert len(matcher._remembered) <= REMEMBERED_MAX


def test_the_router_looks_for_a_key_where_the_kind_says_that_it_is() -> None:
    ways = {kind.name: pointer.steps(kind.key_path) for kind in KINDS.values() if kind.key_path}
    assert ways == match._KEY_WAY
