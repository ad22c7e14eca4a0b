"""What is fetched ahead of one partition: a hole in its offsets is believed when it is seen twice, and told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from seawall.journal.kafka.feed import Delivery
from seawall.journal.kafka.stream import RETRY_S, Stream


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


def found(stream: Stream, *offsets: int, turn: int | None = None) -> None:
    records = [(offset, b"%d" % offset) for offset in offsets]
    stream.add(Delivery(0, stream.turn if turn is None else turn, records), 0.0)


def taken(stream: Stream, at: int, limit: int = 100) -> tuple[list[int], int, tuple[int, int] | None]:
    got = stream.take(at, limit, records_max=50, bytes_max=10**6)
    return [offset for offset, _ in got.records], got.next, got.lost


def test_a_hole_seen_once_is_fetched_again_and_nothing_beyond_it_is_given() -> None:
    stream, feed = opened()
    found(stream, 0, 1, 5, 6)
    assert feed.begun == [(0, 1), (2, 2)]
    assert not stream.holds(0), "what came before is fetched again where it is asked for"
    found(stream, 2, 3, 4, 5)
    assert taken(stream, 2) == ([2, 3, 4, 5], 6, None), "it was no hole"


def test_a_hole_seen_twice_is_told_once_and_passed() -> None:
    stream, _ = opened()
    found(stream, 0, 1)
    assert taken(stream, 0) == ([0, 1], 2, None)
    found(stream, 5, 6)
    found(stream, 5, 6)
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
