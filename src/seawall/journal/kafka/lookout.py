"""Asks Kafka itself where partitions end, beside the consumers: a consumer that stands still can't tell that it does.

librdkafka's consumer keeps to what it knows of a partition's leader until a younger one is named, and a topic that was
made anew names an older one: then it waits for ever, without an error, and calls the end that it knows the end. One
that was started while leaders changed was seen to leave each question about a partition's bounds open, for ever too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from seawall.journal.cluster import Settings
from seawall.journal.kafka.client import Client
from seawall.journal.kafka.feed import Feed
from seawall.journal.kafka.stream import Stream
from seawall.kernel.log import fields, logger

log = logger("journal")

ASK_S = 2.0
"""Pause between two questions."""

ANSWER_S = 2.0
"""How long one may take."""

SILENT_MIN = 2
"""Questions about a partition's bounds that a consumer leaves open, until it may be the consumer."""

FAILURES_MAX = 5
"""Questions in a row without any answer, after which another client asks."""

STUCK_S = 8.0
"""How long nothing comes of what is there until a consumer is called stuck; more than a stream waits before it begins
again by itself."""

RENEW_S = 10.0
"""Pause between two times that a feed gets a new consumer."""


class Ends:
    """The question. Its client lives as long as it gets answers."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._config = client.config()
        self._topic = settings.topic
        self._admin: AdminClient | None = None
        self._failures = 0

    def renew(self) -> None:
        """Ask with another client from now on."""
        self._admin = None

    async def ask(self, partitions: int) -> Mapping[int, int]:
        """The ends of those partitions whose leaders answered; takes at most about twice ``ANSWER_S``.

        Cancelled: the thread that asks ends by itself.
        """
        try:
            async with asyncio.timeout(2 * ANSWER_S):
                found = await asyncio.to_thread(self._ask, partitions)
        except TimeoutError:
            found = {}
        self._failures = 0 if found else self._failures + 1
        if self._failures >= FAILURES_MAX:
            self._failures, self._admin = 0, None
        return found

    def _ask(self, partitions: int) -> dict[int, int]:
        admin = self._admin
        if admin is None:
            admin = self._admin = AdminClient(self._config)
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        wanted = {TopicPartition(self._topic, n): latest for n in range(partitions)}
        found: dict[int, int] = {}
        try:
            for place, answer in admin.list_offsets(wanted, request_timeout=ANSWER_S).items():
                try:
                    end = answer.result(ANSWER_S).offset
                    if end >= 0:  # else it has a number for "not known", without an error
                        found[place.partition] = end
                except (KafkaException, TimeoutError) as error:
                    log.debug("no answer about an end", extra=fields(partition=place.partition, cause=str(error)))
        except KafkaException as error:
            log.debug("no answer about ends", extra=fields(cause=str(error)))
        while admin.poll(0):
            pass  # what it says of connections would pile up
        return found


@dataclass(slots=True)
class _Stand:
    """Where a stream was seen, that should have got more since."""

    next: int
    since: float


class Standstill:
    """Which streams of one feed don't get what is there, and when that feed needs a new consumer.

    A partition whose bounds the feed was asked for can't begin before they are told: where its leader answers others,
    and the feed doesn't, that stands still too.
    """

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self._stands: dict[int, _Stand] = {}
        self._renewed_at = -RENEW_S

    def saw(self, partition: int, stream: Stream, end: int, now: float, *, known: bool = True) -> bool:
        """Whether a stream stands still, though the partition ends beyond it at this monotonic time; ``known`` says
        that its bounds were told."""
        mute = not known and self.feed.silent(partition) >= SILENT_MIN
        if not mute and (not stream.wants or stream.next >= end):
            self._stands.pop(partition, None)
            return False
        stand = self._stands.get(partition)
        if stand is None or stand.next != stream.next:
            self._stands[partition] = _Stand(stream.next, now)
            return False
        return now - stand.since >= STUCK_S

    def renew(self, now: float) -> bool:
        """Give the feed a new consumer, unless that was a short while ago."""
        if now - self._renewed_at < RENEW_S:
            return False
        self._renewed_at = now
        return self.feed.renew()
