"""A partition's reader: what it believes of places and ends, and what it says when they turn out to be wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from unittest.mock import Mock

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from seawall.journal.cluster import Settings
from seawall.journal.kafka.client import client_of
from seawall.journal.kafka.feed import ROUNDS_MAX, Delivery, _Fetcher
from seawall.journal.kafka.feed import Feed as RealFeed
from seawall.journal.kafka.lookout import RENEW_S, STUCK_S, Ends, Standstill
from seawall.journal.kafka.partitions import Partitions
from seawall.journal.kafka.reader import BEYOND_S, PartitionReader
from seawall.journal.kafka.refuted import KEPT_S
from seawall.journal.kafka.stream import RETRY_S, Stream
from seawall.journal.kafka.topic import TopicWatch
from seawall.journal.topic import Topic
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import Deadline, SystemClock
from seawall.kernel.error import Unavailable
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.journal import Position, Replaced, WentBack
from seawall.testing import ManualClock
from seawall.testing.kafka import MockKafka


@dataclass
class Feed:
    """What a reader asks of its consumers."""

    begun: list[tuple[int, int]] = field(default_factory=list)  # offset, turn
    asked: int = 0
    renewed: int = 0
    unanswered: int = 0

    def begin(self, partition: int, offset: int, turn: int) -> None:
        self.begun.append((offset, turn))

    def pause(self, partition: int, *, on: bool) -> None: ...

    def ask(self, partition: int) -> None:
        self.asked += 1

    def silent(self, partition: int) -> int:
        return self.unanswered

    def renew(self) -> bool:
        self.renewed += 1
        return True


def topic(**values: Any) -> Topic:
    given: dict[str, Any] = {
        "cluster_id": "one", "name": "seawall", "id": b"i" * 16, "partitions": 1, "replicas": 3, "in_sync_min": 2,
        "record_bytes_max": 1 << 24, "retention_s": 1e9,
    }  # fmt: skip
    return Topic(**{**given, **values})


class Desk:
    """A reader with its feed and clock."""

    def __init__(self) -> None:
        self.feed, self.clock = Feed(), ManualClock()
        self.reader = PartitionReader(
            topic(), 0, cast(Any, self.feed), cast(Any, Feed()), fetch_bytes=1 << 20, clock=self.clock
        )
        self.bounds(0, 10)

    def bounds(self, oldest: int, end: int) -> None:
        self.reader.take(Delivery(0, 0, bounds=(oldest, end)), fresh=True)

    def found(self, *offsets: int, epoch: int = 1, end: int = -1) -> None:
        turn = self.reader.streams[0].turn
        records = [(offset, bytes([offset]) * 80, epoch) for offset in offsets]
        self.reader.take(Delivery(0, turn, records, end=end), fresh=True)

    def read(self, at: Position) -> Position:
        """Where reading goes on."""
        return self.reader.read(at, records_max=100, bytes_max=1 << 20).next

    def upto(self, offset: int) -> Position:
        """Read so far."""
        at = self.read(self.reader.start())
        self.found(*range(offset))
        at = self.read(at)
        assert at.offset_bytes == offset
        return at


def test_a_place_that_was_refuted_is_refused_also_when_asked_for_again() -> None:
    """Whoever puts the position back asks a second time, under the store's lock."""
    desk = Desk()
    at = desk.upto(5)
    desk.found(5, 6, epoch=2)
    desk.found(4, 5, 6, epoch=2)
    for _ in range(3):
        with pytest.raises(WentBack):
            desk.read(at)
    desk.clock.advance(KEPT_S / 2)
    with pytest.raises(WentBack):
        desk.read(at)
    desk.clock.advance(KEPT_S * 0.9)
    with pytest.raises(WentBack):
        desk.read(at)


def test_nothing_begins_before_the_bounds_of_a_log_that_went_back_were_told_anew() -> None:
    desk = Desk()
    desk.bounds(3, 10)
    assert desk.reader.start().offset_bytes == 3
    at = desk.read(desk.reader.start())
    desk.found(3, 4)
    at = desk.read(at)
    asked = desk.feed.asked
    desk.found(5, epoch=2)
    desk.found(4, 5, epoch=2)
    assert desk.feed.asked == asked + 1
    with pytest.raises(WentBack):
        desk.read(at)
    with pytest.raises(Unavailable):
        desk.reader.start()
    desk.bounds(0, 8)  # older disks have more of what is old
    assert desk.reader.start().offset_bytes == 0


def test_a_topic_made_anew_is_begun_nowhere_before_it_told_its_bounds() -> None:
    """It was begun at -1, and then said that Kafka had deleted records."""
    desk = Desk()
    at = desk.upto(5)
    desk.reader.renew(topic(id=b"n" * 16))
    with pytest.raises(Replaced):
        desk.read(at)
    with pytest.raises(Unavailable):
        desk.reader.start()
    desk.bounds(0, 0)
    assert desk.reader.start().offset_bytes == 0


def test_another_clusters_log_has_another_id_and_refuses_the_old_ones_places() -> None:
    desk = Desk()
    at = desk.upto(5)
    desk.reader.renew(topic(cluster_id="two"))
    assert desk.reader.log_id == topic(cluster_id="two").log_id(0) != at.log_id
    with pytest.raises(Replaced):
        desk.read(at)


def test_an_end_below_what_was_read_makes_the_log_prove_itself() -> None:
    desk = Desk()
    desk.upto(5)
    turn = desk.reader.streams[0].turn
    desk.reader.told(9, 5)
    assert desk.reader.streams[0].turn == turn and desk.reader.synced_end().offset_bytes == 10
    desk.reader.told(3, 5)
    assert desk.feed.begun[-1] == (4, turn + 1)
    assert desk.reader.synced_end().offset_bytes == 3


async def test_a_log_that_ends_before_a_place_and_stays_so_is_said_to_have_gone_back() -> None:
    desk = Desk()
    at = desk.upto(5)
    desk.found(end=10)
    desk.reader.told(3, 5)
    desk.found(end=10)  # what the consumer knew before: only repeated, so it is no news

    async def wait() -> None:
        """The leader answers at once."""
        asked = desk.feed.asked
        waiting = asyncio.ensure_future(desk.reader.wait(at, 0.05))
        while desk.feed.asked == asked:
            await asyncio.sleep(0)
        desk.bounds(0, 3)
        desk.clock.advance(1.0)
        assert not await waiting

    await wait()
    desk.clock.advance(BEYOND_S)
    with pytest.raises(WentBack):
        await wait()


def test_a_position_of_an_older_version_is_believed_and_learns_what_lies_before_it() -> None:
    desk = Desk()
    at = Position(desk.reader.log_id, 1, 5, b"i" * 16)
    assert desk.read(at) == at and desk.feed.begun[-1][0] == 4
    desk.found(4, 5)
    end = desk.read(at)
    assert end.offset_bytes == 6 and len(end.salt) == 16 + 20
    desk.found(6, epoch=2)
    desk.found(5, 6, epoch=2)
    with pytest.raises(WentBack):
        desk.read(end)


def test_a_place_that_nothing_was_read_before_learns_its_witness_though_nothing_comes_after_it() -> None:
    desk = Desk()
    at = Position(desk.reader.log_id, 1, 5, b"i" * 16)
    assert desk.read(at).salt == at.salt
    desk.found(4)
    known = desk.read(at)
    assert known == at and len(known.salt) == 16 + 20
    assert desk.read(known) is known
    assert desk.reader.read(at, end=at, records_max=1, bytes_max=1).next.salt == at.salt, "one with an end needs none"


def test_a_stream_that_gets_nothing_of_what_is_there_stands_still_and_its_feed_is_renewed_in_pauses() -> None:
    feed = Feed()
    standstill, stream = Standstill(cast(Any, feed)), Stream(cast(Any, feed), 0, 1000)
    assert not standstill.saw(0, stream, 10, 0.0), "nobody reads it"
    stream.begin(0, 0.0)
    assert not standstill.saw(0, stream, 0, 0.0), "it has everything"
    assert not standstill.saw(0, stream, 10, 1.0)
    assert not standstill.saw(0, stream, 10, STUCK_S)
    assert standstill.saw(0, stream, 10, 1.0 + STUCK_S)
    assert standstill.renew(20.0) and not standstill.renew(20.0 + RENEW_S / 2) and standstill.renew(20.0 + RENEW_S)
    assert feed.renewed == 2
    stream.add(Delivery(0, stream.turn, [(0, b"0", 1)]), 40.0)
    assert not standstill.saw(0, stream, 10, 40.0), "it goes on"
    stream.add(Delivery(0, stream.turn, [(1, b"x" * 2000, 1)]), 40.0)
    assert not standstill.saw(0, stream, 10, 60.0 + STUCK_S), "it is full: who reads is slow, not Kafka"
    assert RETRY_S < STUCK_S, "a stream tries by itself before"


async def answered(ends: Ends, partitions: int) -> Mapping[int, int]:
    """A client's first question may take longer than it has time."""
    async with asyncio.timeout(30):
        while not (found := await ends.ask(partitions)):
            pass
        return found


async def test_the_ends_are_asked_of_kafka_itself_and_unknown_while_it_is_away() -> None:
    with MockKafka("seawall", partitions=3) as brokers:
        settings = Settings(bootstrap=brokers.bootstrap)
        ends = Ends(client_of(settings, "router"), settings)
        assert await answered(ends, 3) == {0: 0, 1: 0, 2: 0}
        ends.renew()
        assert await answered(ends, 1) == {0: 0}
    assert await ends.ask(3) == {}


async def test_a_consumer_that_was_held_back_reads_on_at_the_head_when_it_is_sent_there() -> None:
    """The client keeps a partition paused that is assigned anew: fresh events waited for a new consumer, 8 s and more,
    whenever the backlog before them was larger than what is read ahead."""
    with MockKafka("seawall") as brokers:
        settings = Settings(bootstrap=brokers.bootstrap, fetch_bytes=64 * 1024)
        client = client_of(settings, "router")
        producer = Producer(client.config())
        for _ in range(200):
            producer.produce("seawall", b"x" * 20_000)  # several rounds
        assert producer.flush(20) == 0
        reader: PartitionReader | None = None

        def take(delivery: Delivery) -> None:
            assert reader is not None
            reader.take(delivery, fresh=True)

        async with RealFeed(client, settings, "fresh", take) as feed:
            reader = PartitionReader(
                topic(), 0, feed, cast(Any, Feed()), fetch_bytes=settings.fetch_bytes, clock=SystemClock()
            )
            while not reader.known:
                reader.ask()
                await reader.until_known(Deadline.after(1.0, SystemClock()))
            start, head = reader.start(), reader.synced_end()
            assert head.offset_bytes == 200
            assert await reader.wait(start, 10.0)
            async with asyncio.timeout(10):
                while reader.streams[0].wants:  # until as much is read ahead as may be
                    await asyncio.sleep(0.01)
            reader.read(head, records_max=10, bytes_max=1 << 20)
            producer.produce("seawall", b"fresh")
            assert producer.flush(20) == 0
            assert await reader.wait(head, 3.0)
            frames = reader.read(head, records_max=10, bytes_max=1 << 20).frames
            assert [frame.payload for frame in frames] == [b"fresh"]


class Endless:
    """A consumer whose partition has always more."""

    def __init__(self, config: object) -> None:
        self.rounds = 0
        self.incremental_assign, self.resume, self.close = Mock(), Mock(), Mock()
        self.get_watermark_offsets = Mock(return_value=None)

    def poll(self, timeout_s: float) -> Mock | None:
        if not self.incremental_assign.called:
            return None
        self.rounds += 1
        return Mock(error=lambda: None, partition=lambda: 0, offset=lambda: self.rounds, leader_epoch=lambda: 0)

    def consume(self, most: int, timeout_s: float) -> list[Mock]:
        return []


async def test_no_more_is_fetched_than_an_event_loop_that_stands_still_can_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Endless] = []
    taken: list[Delivery] = []
    monkeypatch.setattr("seawall.journal.kafka.feed.Consumer", lambda config: made.append(Endless(config)) or made[0])
    settings = Settings(bootstrap="127.0.0.1:1")
    async with RealFeed(client_of(settings, "router"), settings, "fresh", taken.append) as feed:
        feed.begin(0, 0, 1)
        time.sleep(0.5)  # the event loop stands still
        assert all(consumer.rounds <= ROUNDS_MAX + 1 for consumer in made)
        async with asyncio.timeout(10):
            while len(taken) < 5 * ROUNDS_MAX:
                await asyncio.sleep(0)
        assert feed.alive


async def test_an_answer_about_ends_counts_though_the_topic_was_looked_at_meanwhile() -> None:
    """One silent broker delays each answer for so long that a look always came between: nothing was compared then."""
    settings, metrics, clock = Settings(bootstrap="127.0.0.1:1"), Metrics(), ManualClock()

    async def look() -> Topic:
        return topic(id=id)

    id, alerts = b"i" * 16, Alerts(metrics, clock)
    watch = TopicWatch(look, settings, clock=clock, alerts=alerts)
    partitions = Partitions(
        client_of(settings, "router"), settings, watch, clock=clock, alerts=alerts, metrics=metrics
    )  # fmt: skip

    async def ask(count: int) -> Mapping[int, int]:
        partitions._follow(await watch.look())
        return {0: 50 if id == b"i" * 16 else 90}

    partitions._follow(await watch.look())
    partitions._ends = cast(Any, Mock(ask=ask))
    assert partitions._topic is not None
    await partitions._compare(Mock(), partitions._topic)
    assert partitions._readers[0].synced_end().offset_bytes == 50
    id, partitions._renew = b"n" * 16, Mock()  # type: ignore[method-assign]
    await partitions._compare(Mock(), partitions._topic)
    assert partitions._renew.called
    assert partitions._readers[0].synced_end().offset_bytes == 50, "of another topic it says nothing"


def test_bounds_are_asked_for_once_until_they_were_looked_for() -> None:
    """Each question may take a second: those of an outage piled up, and were all asked before anything was fetched."""
    settings = Settings(bootstrap="127.0.0.1:1")
    feed = RealFeed(client_of(settings, "router"), settings, "fresh", lambda delivery: None)
    fetcher = feed._fetcher = _Fetcher({}, "seawall", "fresh", cast(Any, Mock()), Mock())
    for _ in range(3):
        feed.ask(0)
        feed.ask(1)
    assert len(fetcher.commands) == 2
    fetcher._consumer = Mock(get_watermark_offsets=Mock(return_value=None))
    fetcher._obey()
    feed.ask(0)
    assert len(fetcher.commands) == 1


async def test_a_consumer_that_never_tells_bounds_is_replaced_when_the_leader_tells_them_to_others() -> None:
    """Started while leaders changed it was asked once a second for minutes, and nothing was read, with no alert: only
    streams that had begun counted as standing still, and none begins before the bounds are known."""
    settings, metrics, clock = Settings(bootstrap="127.0.0.1:1"), Metrics(), ManualClock()
    alerts = Alerts(metrics, clock)
    watch = TopicWatch(Mock(), settings, clock=clock, alerts=alerts)
    partitions = Partitions(
        client_of(settings, "router"), settings, watch, clock=clock, alerts=alerts, metrics=metrics
    )  # fmt: skip
    partitions._follow(topic())
    partitions._fresh.renew = renewed = Mock(return_value=True)  # type: ignore[method-assign]
    fetcher = partitions._fresh._fetcher = _Fetcher({}, "seawall", "fresh", cast(Any, Mock()), Mock())
    fetcher._consumer = Mock(get_watermark_offsets=Mock(side_effect=KafkaException(KafkaError(KafkaError._TIMED_OUT))))
    ends: dict[int, int] = {}

    async def ask(count: int) -> Mapping[int, int]:
        return ends

    async def compare(*, after_s: float) -> None:
        """As ``find`` and ``look_out`` do."""
        clock.advance(after_s)
        partitions._readers[0].ask()
        fetcher._obey()
        await partitions._compare(Mock(), topic())

    partitions._ends = cast(Any, Mock(ask=ask))
    for _ in range(10):
        await compare(after_s=STUCK_S)
    assert not renewed.called, "in an outage nobody is told an end, and no consumer is to blame"
    ends = {0: 0}
    await compare(after_s=1.0)
    await compare(after_s=STUCK_S / 2)
    assert not renewed.called
    await compare(after_s=STUCK_S / 2)
    assert renewed.call_count == 1
    assert [alert.name for alert in alerts.active()] == ["kafka-reading-stuck"]
    fetcher._consumer = Mock(get_watermark_offsets=Mock(return_value=(0, 0)))
    partitions._readers[0].ask()
    fetcher._obey()
    assert partitions._fresh.silent(0) == 0
    partitions._readers[0].take(Delivery(0, 0, bounds=(0, 0)), fresh=True)
    await compare(after_s=RENEW_S * 2)
    assert renewed.call_count == 1 and not alerts.active()
