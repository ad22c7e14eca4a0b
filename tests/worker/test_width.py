"""Fewer runs in hand while somebody waits, where that makes commits quick, and nowhere else."""

from __future__ import annotations

from seawall.worker.width import ASKED_S, KNOWN_S, LEAST, Width

SLOTS = 1000


def committed(width: Width, *took_s: float, begin: float = 0.0) -> float:
    """Commits one after the other; when the last one ended."""
    now = begin
    for each in took_s:
        now += each
        width.committed(now - each, now=now)
    return now


def test_long_commits_of_many_make_room_for_somebody_who_waits_and_quick_ones_give_it_back() -> None:
    width = Width()
    now = committed(width, 0.001, *[0.025] * 20)
    assert width.most(SLOTS, now=now) == SLOTS, "nobody waits"
    width.asked(now=now)
    assert width.most(SLOTS, now=now) == SLOTS * LEAST
    assert width.most(SLOTS, now=now + ASKED_S + 0.1) == SLOTS, "nobody waits any more"
    now = committed(width, *[0.003] * 200, begin=now)
    width.asked(now=now)
    assert width.most(SLOTS, now=now) == SLOTS


def test_to_a_store_that_is_far_away_as_many_go_as_ever() -> None:
    width = Width()
    now = committed(width, 0.100, *[0.130, 0.101] * 50)
    width.asked(now=now)
    assert width.most(SLOTS, now=now) == SLOTS


def test_a_store_that_moved_away_is_known_as_such_after_some_minutes() -> None:
    width = Width()
    now = committed(width, 0.001)
    now = committed(width, *[0.100] * int(2.1 * KNOWN_S / 0.1), begin=now)
    now = committed(width, *[0.100] * 100, begin=now)
    width.asked(now=now)
    assert width.most(SLOTS, now=now) == SLOTS


def test_there_is_always_room_for_one() -> None:
    width = Width()
    now = committed(width, 0.001, *[1.0] * 50)
    width.asked(now=now)
    assert width.most(1, now=now) == 1
