"""What is fetched ahead of one partition: a hole in its offsets is believed when it is seen twice, and told; a place is
believed when the record before it is the one that was read there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from seawall.journal.kafka.feed import Delivery
from seawall.journal.kafka.stream import RETRY_S, Stream, witness_of


@dataclass
class Feed:
    """What a stream asks of its consumer."""

    begun: list[tuple[int, int]] = field(default_factory=list)  # offset, turn
    paused: list[bool] = field(default_factory=list)

    def begin(self, partition: int, offset: int, turn: int) -> None:
        self.begun.append((offset, turn))

    def pause(self, partition: int, *, on: bool) -> None:
        self.paused.append(on)


def opened(bytes_max: int = 1000) -> tuple[Stream, Feed]:
    feed = Feed()
    stream = Stream(cast(Any, feed), 0, bytes_max)
    stream.begin(0, 0.0)
    return stream, feed


def found(stream: Stream, *offsets: int, turn: int | None = None, epoch: int = 1) -> None:
    records = [(offset, b"%d" % offset, epoch) for offset in offsets]
    stream.add(Delivery(0, stream.turn if turn is None else turn, records), 0.0)


def taken(stream: Stream, at: int, limit: int = 100) -> tuple[list[int], int, tuple[int, int] | None]:
    got = stream.take(at, limit, records_max=50, bytes_max=10**6)
    return [offset for offset, _, _ in got.records], got.next, got.lost


def test_a_hole_seen_once_is_fetched_again_and_nothing_beyond_it_is_given() -> None:
    stream, feed = opened()
    found(stream, 0, 1, 5, 6)
    assert feed.begun == [(0, 1), (1, 2)], "from the record before the hole on"
    assert not stream.holds(0), "what came before is fetched again where it is asked for"
    found(stream, 1, 2, 3, 4, 5)
    assert taken(stream, 2) == ([2, 3, 4, 5], 6, None), "it was no hole"


def test_a_hole_seen_twice_is_told_once_and_passed() -> None:
    stream, _ = opened()
    found(stream, 0, 1)
    assert taken(stream, 0) == ([0, 1], 2, None)
    found(stream, 5, 6)
    found(stream, 1, 5, 6)
    assert taken(stream, 2) == ([5, 6], 7, (2, 5))
    found(stream, 7)
    assert taken(stream, 7) == ([7], 8, None)


def test_a_hole_in_the_middle_ends_one_reading_and_begins_the_next() -> None:
    stream, _ = opened()
    found(stream, 0, 1, 5, 6)
    assert not stream.covers(0)
    stream.begin(0, 0.0)  # as a reader does then
    found(stream, 0, 1, 5, 6)
    assert taken(stream, 0) == ([0, 1], 2, None)
    assert taken(stream, 2) == ([5, 6], 7, (2, 5))


def test_a_hole_that_reaches_beyond_the_readings_end_is_told_up_to_there() -> None:
    stream, _ = opened()
    found(stream, 8)
    found(stream, 8)
    assert taken(stream, 0, limit=3) == ([], 3, (0, 3))
    assert taken(stream, 3) == ([8], 9, (3, 8))


def test_what_belongs_to_an_earlier_beginning_is_dropped() -> None:
    stream, _ = opened()
    stream.begin(10, 0.0)
    found(stream, 0, 1, turn=1)
    assert not stream.holds(0) and not stream.holds(10)


def test_a_full_stream_holds_its_feed_back_until_half_of_it_is_taken() -> None:
    stream, feed = opened(bytes_max=4)
    found(stream, 0, 1, 2, 3, 4, 5)
    assert feed.paused == [True]
    taken(stream, 3)
    assert feed.paused == [True]
    taken(stream, 6)
    assert feed.paused == [True, False]


def test_silence_where_there_should_be_records_begins_anew() -> None:
    stream, feed = opened()
    stream.nudge(RETRY_S / 2)
    assert len(feed.begun) == 1
    stream.nudge(RETRY_S * 1.1)
    assert feed.begun[-1] == (0, 2)


def test_another_leaders_records_are_taken_when_what_was_read_last_is_still_there() -> None:
    stream, feed = opened()
    found(stream, 0, 1)
    found(stream, 2, 3, epoch=2)
    assert feed.begun[-1] == (1, 2) and stream.next == 2, "the log may have gone back before them"
    found(stream, 1)
    found(stream, 2, 3, epoch=2)
    assert taken(stream, 0) == ([0, 1, 2, 3], 4, None)
    found(stream, 4, epoch=2)
    assert len(feed.begun) == 2, "asked once for each change"


def test_a_record_that_took_the_place_of_one_that_was_read_refutes_all_that_follows() -> None:
    stream, _ = opened()
    found(stream, 0, 1)
    found(stream, 2, 3, epoch=2)
    found(stream, 1, 2, 3, epoch=2)  # the same payload, written anew by another leader
    assert stream.refuted and stream.next == 2
    assert taken(stream, 0) == ([0, 1], 2, None), "what came before it was accepted, and is given"
    found(stream, 1, 2, 3)
    assert stream.next == 2 and not stream.wants


def test_a_witness_from_the_store_is_looked_for_before_anything_is_given() -> None:
    for witness, refuted in ((witness_of(b"9", 1), False), (witness_of(b"9", 2), True), (b"", False)):
        stream, feed = opened()
        stream.begin(10, 0.0, witness)
        assert feed.begun[-1] == (9, 2)
        found(stream, 9, 10)
        assert stream.refuted is refuted and stream.holds(10) is not refuted


def test_a_witness_that_was_deleted_with_all_before_it_is_not_asked_for() -> None:
    stream, feed = opened()
    stream.begin(10, 0.0, witness_of(b"9", 1))
    stream.bounded(10, 0.0)
    assert feed.begun[-1] == (10, 3)
    found(stream, 10, 11, epoch=7)
    assert taken(stream, 10) == ([10, 11], 12, None)


def test_a_witness_that_is_missing_in_the_midst_of_the_log_refutes_it() -> None:
    stream, _ = opened()
    stream.begin(10, 0.0, witness_of(b"9", 1))
    found(stream, 10, 11)
    assert not stream.refuted and not stream.holds(10), "seen once"
    found(stream, 10, 11)
    assert stream.refuted


def test_after_every_broker_was_away_the_log_must_prove_that_it_is_the_same() -> None:
    stream, feed = opened()
    stream.add(Delivery(0, stream.turn, [(0, b"a" * 80, 1), (1, b"b" * 80, 1)]), 0.0)
    stream.add(Delivery(0, stream.turn, interrupted=True), 0.0)
    # By a leader of the same epoch: a cluster whose metadata were set back too.
    stream.add(Delivery(0, stream.turn, [(2, b"c" * 80, 1)]), 0.0)
    assert feed.begun[-1] == (1, 2) and stream.next == 2
    stream.add(Delivery(0, stream.turn, [(1, b"d" * 80, 1), (2, b"c" * 80, 1)]), 0.0)
    assert stream.refuted


def test_a_place_that_was_reached_on_another_way_is_not_covered() -> None:
    """Another router may have moved the position meanwhile, through records that took the place of ours."""
    stream, _ = opened()
    stream.add(Delivery(0, stream.turn, [(n, bytes([n]) * 80, 1) for n in range(6)]), 0.0)
    for _ in range(2):
        for at in (1, 3, 6):
            assert stream.covers(at, witness_of(bytes([at - 1]) * 80, 1))
            assert not stream.covers(at, witness_of(bytes([at - 1]) * 80, 2))
            assert not stream.covers(at, witness_of(b"x" * 80, 1))
    taken(stream, 3)
    assert stream.covers(3, witness_of(b"\2" * 80, 1)) and not stream.covers(3, witness_of(b"\7" * 80, 1))
