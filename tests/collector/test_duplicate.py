"""Recent keys: bounded, and never wrong about a body."""

from __future__ import annotations

from dataclasses import fields

from seawall.collector.duplicate import WINDOW_US, Duplicates, digest_of
from seawall.router import Settings as RouterSettings

NOW = 1_700_000_000_000_000
ONE, TWO = b"1" * 16, b"2" * 16
"""Ids of events."""

BODY = digest_of(b"body", 1)


def test_only_the_same_source_key_and_body_match() -> None:
    known = Duplicates(100)
    known.add(b"s1k", BODY, ONE, NOW)
    assert known.find(b"s1k", BODY, NOW) == (ONE, False)
    assert known.find(b"s2k", BODY, NOW) is None
    assert known.find(b"s1l", BODY, NOW) is None
    assert known.find(b"s1k", digest_of(b"Body", 1), NOW) is None


def test_the_first_event_of_a_key_stays() -> None:
    known = Duplicates(100)
    known.add(b"sk", digest_of(b"1", 1), ONE, NOW)
    known.add(b"sk", digest_of(b"2", 1), TWO, NOW)
    assert known.find(b"sk", digest_of(b"1", 1), NOW) == (ONE, False)


def test_it_keeps_the_newest_half_at_least_and_no_more_than_all() -> None:
    known = Duplicates(100)
    for n in range(1000):
        known.add(b"s%d" % n, BODY, ONE, NOW)
    kept = [n for n in range(1000) if known.find(b"s%d" % n, BODY, NOW)]
    assert kept[0] >= 900
    assert kept == list(range(kept[0], 1000))
    assert 50 <= len(kept) <= 100


def test_none_may_be_kept() -> None:
    known = Duplicates(0)
    known.add(b"sk", BODY, ONE, NOW)
    assert known.find(b"sk", BODY, NOW) is None


def test_a_key_is_forgotten_when_the_stores_shortest_window_has_passed() -> None:
    """The router takes the same key for a new event then, and what is answered from here never reaches it."""
    known = Duplicates(100)
    known.add(b"sk", BODY, ONE, NOW)
    assert known.find(b"sk", BODY, NOW + WINDOW_US - 1) == (ONE, False)
    assert known.find(b"sk", BODY, NOW + WINDOW_US) is None
    assert known.find(b"sk", BODY, NOW - 1) is None  # the clock went back: nothing is known
    known.add(b"sk", BODY, TWO, NOW + WINDOW_US)
    assert known.find(b"sk", BODY, NOW + WINDOW_US) == (TWO, False)
    [window] = [f for f in fields(RouterSettings) if f.name == "dedupe_window_s"]
    assert window.metadata["min"] * 1_000_000 == WINDOW_US


def test_an_event_under_another_secret_is_not_the_same() -> None:
    """One secret may have been revoked since: its event is held, and the other one runs."""
    known = Duplicates(100)
    known.add(b"sk", BODY, ONE, NOW)
    assert known.find(b"sk", digest_of(b"body", 2), NOW) is None
