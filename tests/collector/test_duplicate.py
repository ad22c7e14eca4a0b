"""Recent keys: bounded, and never wrong about a body."""

from __future__ import annotations

from seawall.collector.duplicate import Duplicates, digest_of


def test_only_the_same_source_key_and_body_match() -> None:
    known = Duplicates(100)
    known.add(b"s1", "k", digest_of(b"body"), b"id-1")
    assert known.find(b"s1", "k", digest_of(b"body")) == b"id-1"
    assert known.find(b"s2", "k", digest_of(b"body")) is None
    assert known.find(b"s1", "l", digest_of(b"body")) is None
    assert known.find(b"s1", "k", digest_of(b"Body")) is None


def test_the_first_event_of_a_key_stays() -> None:
    known = Duplicates(100)
    known.add(b"s", "k", digest_of(b"1"), b"id-1")
    known.add(b"s", "k", digest_of(b"2"), b"id-2")
    assert known.find(b"s", "k", digest_of(b"1")) == b"id-1"


def test_it_keeps_the_newest_half_at_least_and_no_more_than_all() -> None:
    known = Duplicates(100)
    for n in range(1000):
        known.add(b"s", str(n), b"d", b"%d" % n)
    kept = [n for n in range(1000) if known.find(b"s", str(n), b"d")]
    assert kept[0] >= 900
    assert kept == list(range(kept[0], 1000))
    assert 50 <= len(kept) <= 100


def test_none_may_be_kept() -> None:
    known = Duplicates(0)
    known.add(b"s", "k", b"d", b"id")
    assert known.find(b"s", "k", b"d") is None
