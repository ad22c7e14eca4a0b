"""All partitions of the topic, for the router: finds them, and sees to it that they are read.

Two consumers fetch them all (`feed`), one reader for each partition hands out what they find (`reader`). Two loops look
after them: ``watch`` follows what the topic is, ``look_out`` compares what is read with what is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import TracebackType

from seawall.guard.supervisor import Heart
from seawall.journal.cluster import Settings
from seawall.journal.kafka import alarm
from seawall.journal.kafka.client import Client
from seawall.journal.kafka.feed import Delivery, Feed
from seawall.journal.kafka.lookout import ASK_S, Ends, Standstill
from seawall.journal.kafka.reader import PartitionReader
from seawall.journal.kafka.topic import TopicWatch
from seawall.journal.topic import Topic
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import Clock, Deadline
from seawall.kernel.error import Unavailable
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.journal import JournalReader

log = logger("journal")

OPEN_S = 2.0
TICK_S = 0.5


class Partitions:
    """Readers of all partitions of the topic; ``find`` is what the router asks.

    ``async with`` starts two consumers. Register ``watch`` and ``look_out`` with a supervisor.
    """

    def __init__(
        self, client: Client, settings: Settings, watch: TopicWatch, *, clock: Clock, alerts: Alerts, metrics: Metrics
    ) -> None:
        self._settings = settings
        self._watch = watch
        self._clock = clock
        self._alerts = alerts
        self._topic: Topic | None = None  # that the readers read
        self._readers: dict[int, PartitionReader] = {}
        self._missing = "nobody has asked for partitions yet"
        self._fresh = Feed(client, settings, "kafka.fresh", lambda delivery: self._take(delivery, fresh=True))
        self._backlog = Feed(client, settings, "kafka.backlog", lambda delivery: self._take(delivery, fresh=False))
        self._ends = Ends(client, settings)
        self._standstills = (Standstill(self._fresh), Standstill(self._backlog))
        self._stuck: list[int] = []
        self._stack = AsyncExitStack()
        metrics.gauge(
            "seawall_kafka_stuck_partitions_count",
            "Partitions that have records which Kafka doesn't hand to this process, though it is asked for them.",
        ).read = lambda: len(self._stuck)
        self._renewals = metrics.counter(
            "seawall_kafka_consumers_renewed_total",
            "Consumers that were replaced: since one stood still, died, or the topic was made anew.",
        )

    async def __aenter__(self) -> Partitions:
        for feed in (self._fresh, self._backlog):
            await self._stack.enter_async_context(feed)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def find(self) -> Mapping[str, JournalReader]:
        """Every partition whose leader has told its bounds, by name; the others when asked next.

        None while the topic isn't known: that must not keep a router from the other logs it reads. ``watch`` is unready
        as long, and says why.
        """
        try:
            topic = self._watch.topic or await self._watch.look()
        except Unavailable as error:
            self._say(str(error))
            return {}
        self._follow(topic)
        unknown = [reader for n, reader in self._readers.items() if n < topic.partitions and not reader.known]
        for reader in unknown:
            reader.ask()
        deadline = Deadline.after(OPEN_S, self._clock)
        for reader in unknown:
            await reader.until_known(deadline)
        found = {f"{topic.name}-{n}": reader for n, reader in self._readers.items() if reader.known}
        self._say("" if found else f"no partition of topic {topic.name} tells its bounds")
        return found

    def _say(self, missing: str) -> None:
        """Why nothing is read, "" when something is; logged once."""
        if missing and missing != self._missing:
            log.warning("nothing is read from Kafka", extra=fields(cause=missing))
        self._missing = missing

    def _follow(self, topic: Topic) -> None:
        """Have a reader for each of its partitions, that reads this very topic."""
        old, self._topic = self._topic, topic
        if old is not None and not old.same(topic):
            log.warning(
                "the topic isn't the one that was read until now; new consumers begin with it",
                extra=fields(topic=topic.name, cluster=topic.cluster_id, before=old.cluster_id),
            )
            self._renew(topic)
            if old.cluster_id != topic.cluster_id:
                alarm.other_cluster(self._alerts, old, topic)
        for partition in range(topic.partitions):
            if partition not in self._readers:
                self._readers[partition] = PartitionReader(
                    topic, partition, self._fresh, self._backlog, fetch_bytes=self._settings.fetch_bytes,
                    clock=self._clock,
                )  # fmt: skip
        alarm.partitions_gone(self._alerts, topic, read=len(self._readers))

    def _renew(self, topic: Topic) -> None:
        """A consumer of the old topic takes the new one's leaders for outdated (`lookout`), so none is kept."""
        self._ends.renew()
        for feed in (self._fresh, self._backlog):
            self._renewals.value += feed.renew()
        for reader in self._readers.values():
            reader.renew(topic)

    async def watch(self, heart: Heart) -> None:
        """Replace a consumer's thread that died, and notice a topic made anew; for a supervisor. Unready while nothing
        can be read."""
        while True:
            for feed in (self._fresh, self._backlog):
                if not feed.alive:
                    log.error("a thread that fetches from Kafka died", extra=fields(feed=feed.name))
                    self._replace(feed)
            topic = self._watch.topic
            if topic is not None and self._topic is not None and topic != self._topic:
                self._follow(topic)
            if self._missing:
                heart.unready(self._missing)
            else:
                await heart.beat()
            await asyncio.sleep(TICK_S)

    def _replace(self, feed: Feed) -> None:
        if feed.renew():
            self._renewals.value += 1
            for reader in self._readers.values():
                reader.begin_again(feed)

    async def look_out(self, heart: Heart) -> None:
        """Ask Kafka itself where partitions end, again and again; for a supervisor. Unready while records that are
        there don't come; a consumer that stands still is replaced."""
        while True:
            if self._topic is not None:
                await self._compare(heart, self._topic)
            for _ in range(round(ASK_S / TICK_S)):
                if self._stuck:
                    heart.unready(f"records of partition {self._stuck[0]} are there, and Kafka doesn't hand them out")
                else:
                    await heart.beat()
                await asyncio.sleep(TICK_S)

    async def _compare(self, heart: Heart, topic: Topic) -> None:
        before = {n: max(stream.next for stream in reader.streams) for n, reader in self._readers.items()}
        ends = await self._asked(heart, topic.partitions)
        if not ends or not topic.same(self._topic):
            return  # nobody knows now
        now = self._clock.monotonic()
        stuck: set[int] = set()
        for partition, end in ends.items():
            reader = self._readers[partition]
            reader.told(end, before[partition])
            for standstill, stream in zip(self._standstills, reader.streams, strict=True):
                if standstill.saw(partition, stream, end, now, known=reader.known):
                    stuck.add(partition)
                    self._unstick(standstill, now)
        self._stuck = sorted(stuck)
        alarm.stuck(self._alerts, topic, {partition: ends[partition] for partition in self._stuck})

    async def _asked(self, heart: Heart, partitions: int) -> Mapping[int, int]:
        """The ends; the answer may take longer than a loop may be silent."""
        asking = asyncio.ensure_future(self._ends.ask(partitions))
        try:
            while not asking.done():
                heart.touch()
                await asyncio.wait([asking], timeout=TICK_S)
            return asking.result()
        finally:
            asking.cancel()

    def _unstick(self, standstill: Standstill, now: float) -> None:
        feed = standstill.feed
        if standstill.renew(now):
            log.warning("a consumer stands still; another one takes its place", extra=fields(feed=feed.name))
            self._renewals.value += 1
            for reader in self._readers.values():
                reader.begin_again(feed)

    def _take(self, delivery: Delivery, *, fresh: bool) -> None:
        reader = self._readers.get(delivery.partition)
        if reader is not None:
            reader.take(delivery, fresh=fresh)
        else:
            log.debug("a delivery for nobody", extra=fields(partition=delivery.partition))
