"""What every journal and every reader of one promises, the real one and the one for tests alike."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from seawall.journal import Log, LogReader, Settings, SyncedPublisher, cluster
from seawall.journal.kafka import KafkaLog, Topic, TopicWatch
from seawall.journal.kafka.client import client_of
from seawall.journal.kafka.feed import Delivery, Feed
from seawall.journal.kafka.reader import PartitionReader
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import Deadline, SystemClock
from seawall.kernel.error import Corrupt, Overloaded
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.journal import Chunk, Displaced, Journal, JournalReader, Outcome, Position
from seawall.testing import MemoryJournal
from seawall.testing.kafka import MockKafka

SEGMENT_BYTES = 16 * 1024
PENDING_MAX = 50


@dataclass
class Pair:
    """A journal, and a reader of the same log as another process would have it."""

    journal: Journal
    reader: JournalReader
    segments: bool = True  # a partition of Kafka has offsets only, and forgets by its own rules

    async def read(self, at: Position, *, end: Position | None = None, records_max: int, bytes_max: int) -> Chunk:
        """Read once all that there is can be read without waiting."""
        return self.reader.read(at, end=end, records_max=records_max, bytes_max=bytes_max)

    async def keep(self, *payloads: bytes) -> list[Position]:
        """Submit one after another, each as a batch of its own; their positions."""
        return [(await self.keep_together(payload))[0] for payload in payloads]

    async def keep_together(self, *payloads: bytes) -> list[Position]:
        answers: list[Outcome] = []
        for payload in payloads:
            self.journal.submit(payload, answers.append)
        async with asyncio.timeout(5):
            while len(answers) < len(payloads):
                await asyncio.sleep(0)
        positions = [answer for answer in answers if isinstance(answer, Position)]
        assert len(positions) == len(payloads), answers
        assert await self.reader.wait(Position(positions[0].log_id, positions[-1].segment_id, 0), 5)
        while self.reader.synced_end() < positions[-1]:
            assert await self.reader.wait(self.reader.synced_end(), 5)
        return positions

    async def all(self, at: Position | None = None) -> list[bytes]:
        chunk = await self.read(at or self.reader.start(), records_max=100_000, bytes_max=1 << 30)
        assert not chunk.damage
        return [frame.payload for frame in chunk.frames]


Make = Callable[[AsyncExitStack, Path], Awaitable[Pair]]


async def real(stack: AsyncExitStack, folder: Path) -> Pair:
    settings = Settings(
        segment_bytes=SEGMENT_BYTES, fill_bytes=4096, reserve_bytes=0, pending_records_max=PENDING_MAX
    )  # fmt: skip
    log = await stack.enter_async_context(
        Log(folder / "journal" / "c1", settings, metrics=Metrics(), on_failure=pytest.fail)
    )
    await stack.enter_async_context(SyncedPublisher(log, folder / "run" / "c1.sock"))
    reader = await stack.enter_async_context(LogReader(log.folder, folder / "run" / "c1.sock"))
    return Pair(log, reader)


async def memory(stack: AsyncExitStack, folder: Path) -> Pair:
    journal = MemoryJournal(records_max=PENDING_MAX, segment_bytes_max=SEGMENT_BYTES)
    return Pair(journal, journal.reader())


class KafkaPair(Pair):
    """A partition is fetched ahead of reading; here everything is fetched before."""

    async def read(self, at: Position, *, end: Position | None = None, records_max: int, bytes_max: int) -> Chunk:
        read = partial(self.reader.read, at, end=end)
        limit = self.reader.synced_end() if end is None else min(end, self.reader.synced_end())
        async with asyncio.timeout(10):
            while read(records_max=1_000_000, bytes_max=1 << 40).next < limit:
                await self.reader.wait(at, 0.1)
                await asyncio.sleep(0.005)  # it may say at once that there is something, and we want all
        return read(records_max=records_max, bytes_max=bytes_max)


async def kafka(stack: AsyncExitStack, folder: Path) -> Pair:
    """Over brokers in memory: it shows what our clients do, and nothing of what real brokers keep."""
    mock = stack.enter_context(MockKafka("seawall"))
    settings = cluster.Settings(bootstrap=mock.bootstrap, pending_records_max=PENDING_MAX)
    client, metrics, clock = client_of(settings, "test"), Metrics(), SystemClock()

    async def look() -> Topic:
        return Topic(**mock.facts())

    watch = TopicWatch(look, settings, clock=clock, alerts=Alerts(metrics, clock))
    topic = await watch.look()
    journal = await stack.enter_async_context(KafkaLog(client, settings, watch, metrics=metrics))
    feeds: list[Feed] = []

    def take(delivery: Delivery, *, fresh: bool) -> None:
        reader.take(delivery, fresh=fresh)

    for name, fresh in (("fresh", True), ("backlog", False)):
        feeds.append(await stack.enter_async_context(Feed(client, settings, name, partial(take, fresh=fresh))))
    reader = PartitionReader(topic, 0, *feeds, fetch_bytes=settings.fetch_bytes, clock=clock, beyond_s=0.0)
    reader.ask()
    await reader.until_known(Deadline.after(5.0, clock))
    return KafkaPair(journal, reader, segments=False)


@pytest.fixture(params=[real, memory, kafka], ids=["Log", "MemoryJournal", "KafkaLog-on-mock-brokers"])
async def pair(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Pair]:
    make: Make = request.param
    async with AsyncExitStack() as stack:
        yield await make(stack, tmp_path)


def _needs_segments(pair: Pair) -> None:
    if not pair.segments:
        pytest.skip("it has no segments")


async def test_done_is_called_once_later_and_on_the_loops_thread(pair: Pair) -> None:
    calls: list[tuple[Outcome, int]] = []
    pair.journal.submit(b"one", lambda outcome: calls.append((outcome, threading.get_ident())))
    assert calls == []
    await pair.keep(b"two")
    assert [type(outcome) for outcome, _ in calls] == [Position]
    assert calls[0][1] == threading.get_ident()


async def test_records_are_read_in_order_of_submission_byte_for_byte(pair: Pair) -> None:
    payloads = [bytes([n % 256]) * (n * 7 % 301) for n in range(40)] + [b"", bytes(range(256)), b"x" * 300_000]
    await pair.keep_together(*payloads)
    assert await pair.all() == payloads


async def test_a_position_lies_just_after_its_record(pair: Pair) -> None:
    payloads = [b"%d" % n for n in range(10)]
    positions = await pair.keep_together(*payloads)
    assert positions == sorted(set(positions))
    for index, position in enumerate(positions):
        assert await pair.all(position) == payloads[index + 1 :]
    chunk = await pair.read(pair.reader.start(), records_max=100, bytes_max=1 << 20)
    assert [frame.end for frame in chunk.frames] == positions
    assert pair.reader.synced_end() == positions[-1]


async def test_reading_goes_over_segments_without_a_gap(pair: Pair) -> None:
    _needs_segments(pair)
    payloads = [b"%d" % n * 900 for n in range(60)]
    positions = await pair.keep(*payloads)
    assert positions[-1].segment_id > 2
    at, seen = pair.reader.start(), []
    while True:
        chunk = await pair.read(at, records_max=7, bytes_max=1 << 20)
        assert len(chunk.frames) <= 7
        if not chunk.frames:
            break
        seen += [frame.payload for frame in chunk.frames]
        at = chunk.next
    assert seen == payloads
    assert at == pair.reader.synced_end()


async def test_read_keeps_its_bounds_but_gives_one_record_at_least(pair: Pair) -> None:
    await pair.keep_together(b"a" * 1000, b"b" * 1000, b"c" * 1000)
    start = pair.reader.start()
    assert len((await pair.read(start, records_max=10, bytes_max=1)).frames) == 1
    assert len((await pair.read(start, records_max=10, bytes_max=2500)).frames) == 2
    assert len((await pair.read(start, records_max=1, bytes_max=1 << 20)).frames) == 1


async def test_read_ends_at_the_given_end(pair: Pair) -> None:
    positions = await pair.keep(*(b"%d" % n * 900 for n in range(30)))
    chunk = await pair.read(pair.reader.start(), end=positions[19], records_max=1000, bytes_max=1 << 20)
    assert [frame.end for frame in chunk.frames] == positions[:20]


async def test_nothing_is_read_twice_or_beyond_the_synced_end(pair: Pair) -> None:
    await pair.keep(b"one")
    end = pair.reader.synced_end()
    chunk = await pair.read(end, records_max=10, bytes_max=1 << 20)
    assert not chunk.frames
    assert chunk.next == end


async def test_an_empty_log_has_a_start_that_can_be_read(pair: Pair) -> None:
    chunk = await pair.read(pair.reader.start(), records_max=10, bytes_max=1 << 20)
    assert not chunk.frames and chunk.next == pair.reader.start() == pair.reader.synced_end()


async def test_wait_returns_when_a_record_is_synced_and_not_before(pair: Pair) -> None:
    start = pair.reader.synced_end()
    assert not await pair.reader.wait(start, 0.05)
    waiting = asyncio.create_task(pair.reader.wait(start, 5))
    await asyncio.sleep(0)
    assert not waiting.done()
    pair.journal.submit(b"x", lambda outcome: None)
    assert await waiting
    assert await pair.reader.wait(start, 0)


async def test_a_cancelled_wait_leaves_the_reader_whole(pair: Pair) -> None:
    waiting = asyncio.create_task(pair.reader.wait(pair.reader.synced_end(), 5))
    await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.wait([waiting])
    await pair.keep(b"x")
    assert await pair.all() == [b"x"]


async def test_a_position_of_another_log_is_refused(pair: Pair) -> None:
    (position,) = await pair.keep(b"x")
    foreign = Position(bytes(16), position.segment_id, position.offset_bytes)
    with pytest.raises(Corrupt):
        await pair.read(foreign, records_max=1, bytes_max=1)


async def test_forgetting_takes_whole_segments_before_a_position_and_never_the_newest(pair: Pair) -> None:
    _needs_segments(pair)
    positions = await pair.keep(*(b"%d" % n * 900 for n in range(60)))
    middle = next(position for position in positions if position.segment_id == 2)
    assert pair.reader.forget(middle) == 1
    assert pair.reader.start() <= middle
    assert (await pair.read(positions[0], records_max=1, bytes_max=1)).damage
    assert pair.reader.forget(positions[-1]) == positions[-1].segment_id - 2
    assert pair.reader.start().segment_id == positions[-1].segment_id
    assert pair.reader.forget(positions[-1]) == 0
    await pair.keep(b"after")
    assert (await pair.all())[-1] == b"after"


async def test_what_a_position_says_of_its_segment_is_the_same_wherever_it_comes_from(pair: Pair) -> None:
    _needs_segments(pair)
    kept = await pair.keep(b"a" * 20_000, b"b")
    chunk = await pair.read(pair.reader.start(), records_max=10, bytes_max=1 << 20)
    assert [frame.end.salt for frame in chunk.frames] == [position.salt for position in kept]
    assert len({position.salt for position in kept}) == 2 and all(len(p.salt) == 16 for p in kept)
    assert pair.reader.synced_end().salt == chunk.next.salt == kept[-1].salt
    assert pair.reader.start().salt == kept[0].salt


async def test_a_position_in_a_segment_that_was_written_anew_is_refused(pair: Pair) -> None:
    """A log that was put back from a copy gives segment numbers again; only the salt tells them apart."""
    first, second = await pair.keep(b"a" * 20_000, b"b")
    other = replace(second, salt=bytes(16))
    with pytest.raises(Displaced):
        await pair.read(other, records_max=1, bytes_max=1)
    with pytest.raises(Displaced):
        pair.reader.forget(other)
    assert pair.reader.start() < first, "nothing was forgotten"


async def test_a_position_beyond_the_end_is_refused(pair: Pair) -> None:
    (last,) = await pair.keep(b"x")
    with pytest.raises(Displaced):
        await pair.read(replace(last, segment_id=last.segment_id + 3), records_max=1, bytes_max=1)
    with pytest.raises(Displaced):
        await pair.reader.wait(replace(last, offset_bytes=last.offset_bytes + 1), 1)
    with pytest.raises(Displaced):
        await pair.reader.wait(replace(last, segment_id=last.segment_id + 1), 1)


async def test_a_missing_segment_is_told_and_passed_also_where_reading_stood_in_it(pair: Pair) -> None:
    _needs_segments(pair)
    positions = await pair.keep(*(b"%d" % n * 900 for n in range(60)))
    inside = next(position for position in positions if position.segment_id == 2)
    later = [n for n, position in enumerate(positions) if position.segment_id > 2]
    assert pair.reader.forget(positions[later[0]]) == 2
    chunk = await pair.read(inside, records_max=1000, bytes_max=1 << 20)
    assert [(damage.segment_id, damage.reason) for damage in chunk.damage] == [(2, "the segment is missing")]
    assert [frame.payload for frame in chunk.frames] == [b"%d" % n * 900 for n in later]
    # A stretch that ends in what is missing is done with.
    chunk = await pair.read(positions[0], end=inside, records_max=1000, bytes_max=1 << 20)
    assert not chunk.frames and chunk.damage and chunk.next >= inside


async def test_more_than_the_queue_holds_is_refused_and_not_kept(pair: Pair) -> None:
    answers: list[Outcome] = []
    for n in range(PENDING_MAX):
        pair.journal.submit(b"%d" % n, answers.append)
    with pytest.raises(Overloaded):
        pair.journal.submit(b"too much", answers.append)
    async with asyncio.timeout(30):
        while len(answers) < PENDING_MAX:
            await asyncio.sleep(0)
    await pair.keep(b"later")
    assert b"too much" not in await pair.all()
    assert len(answers) == PENDING_MAX


async def test_an_open_journal_refuses_nothing(pair: Pair) -> None:
    assert pair.journal.refusal is None
