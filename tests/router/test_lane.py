"""The search for the record that can't be stored finds exactly those that can't, with few tries."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from seawall.kernel.seam.journal import Position
from seawall.router.lane import CAREFUL_STARTS, DEADLY_STARTS, GROWTH, Lane
from seawall.store.position import Range

WIDTH = 64


@given(bad=st.sets(st.integers(0, 299), max_size=12))
def test_halving_condemns_the_bad_records_and_no_other(bad: set[int]) -> None:
    lane = Lane(backlog=False, records_max=WIDTH)
    condemned, at, tries = set(), 0, 0
    while at < 300:
        tries += 1
        count = min(lane.width, 300 - at)
        if lane.verdict is not None:
            assert count == 1
            condemned.add(at)
        elif bad & set(range(at, at + count)):
            lane.refused(count, "bad value")
            continue
        lane.stored(count)
        at += count
    assert condemned == bad
    assert tries <= 300 // WIDTH + 1 + len(bad) * 14
    assert not lane.troubled


def test_few_starts_change_nothing_and_more_go_one_by_one() -> None:
    for starts in range(1, CAREFUL_STARTS):
        lane = Lane(backlog=False, records_max=WIDTH)
        lane.began(0, starts)
        assert (lane.width, lane.verdict) == (WIDTH, None)
    for starts in range(CAREFUL_STARTS, DEADLY_STARTS):
        lane = Lane(backlog=False, records_max=WIDTH)
        lane.began(0, starts)
        for _ in range(WIDTH):
            assert (lane.width, lane.verdict) == (1, None)
            lane.stored(1)
        assert lane.width == WIDTH


def test_only_the_record_at_the_position_is_condemned() -> None:
    lane = Lane(backlog=False, records_max=WIDTH)
    lane.began(0, DEADLY_STARTS)
    assert lane.width == 1
    assert lane.verdict is not None
    lane.stored(1)
    assert (lane.width, lane.verdict) == (WIDTH, None)


def test_a_failure_that_the_process_survives_clears_the_record() -> None:
    lane = Lane(backlog=False, records_max=WIDTH)
    lane.began(0, DEADLY_STARTS)
    lane.survived()
    assert (lane.width, lane.verdict, lane.unproven) == (WIDTH, None, False)


def test_a_verdict_is_about_the_record_at_its_place() -> None:
    here, there = Position(b"l" * 16, 1, 64), Position(b"l" * 16, 1, 96)
    for part, at, stays in ((0, here, True), (0, there, False), (1, here, False)):
        lane = Lane(backlog=True, records_max=WIDTH)
        lane.turned(Range(0, here, None))
        lane.refused(1, "bad value")
        lane.turned(Range(part, at, None))
        assert (lane.verdict is not None) is stays


def test_a_slow_store_gets_smaller_batches_and_whole_ones_again_when_it_is_not() -> None:
    lane = Lane(backlog=False, records_max=WIDTH)
    widths = []
    for _ in range(8):
        lane.overdue()
        widths.append(lane.width)
    assert widths == [32, 16, 8, 4, 2, 1, 1, 1]
    assert not lane.troubled
    for _ in range(GROWTH):
        lane.stored(lane.width)
    assert lane.width == WIDTH
