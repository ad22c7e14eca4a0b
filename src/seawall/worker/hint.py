"""Hints: what makes things quick, and may be lost. New runs are hinted to us; replies and ends are hinted by us."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections import deque
from collections.abc import Callable, Sequence

from seawall.guard import Heart
from seawall.guard.retry import Backoff
from seawall.kernel.error import Unavailable
from seawall.kernel.made import Made, heard
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.hint import PAYLOADS_MAX, HintChannel
from seawall.kernel.status import CHANNEL_LEASE, CHANNEL_LINE, CHANNEL_RUN
from seawall.store.pool import Listener, Settings

EVENTS_MAX = 200
"""Event ids in one payload: 6,599 bytes."""

QUEUE_MAX = 10_000
CHECK_S = 0.8
TIMEOUT_S = 1.0
IDLE_S = 0.5
BACKOFF_MIN_S = 0.05
BACKOFF_MAX_S = 0.5

_LINE = re.compile(r"(\d{1,10}):([0-9a-f]{40})(?:,|$)")
_QUEUE = re.compile(r"\b\d{1,5}\b")


class Listening:
    """Hears that runs were made. Without it the worker polls.

    Args:
        made: Called with a queue's id and what is new of it.
        lined: Called with a workflow's id and the key of a line that has new runs.
        missed: Called when hints may have been lost.
        given: Called with the ids of queues of which another worker gave shards back.
    """

    def __init__(
        self, settings: Settings, made: Callable[[int, Made], None], lined: Callable[[int, bytes], None],
        missed: Callable[[], None], given: Callable[[Sequence[int]], None],
    ) -> None:  # fmt: skip
        self._listener = Listener(settings, [CHANNEL_RUN, CHANNEL_LINE, CHANNEL_LEASE], self._notified, role="worker")
        self._made = made
        self._lined = lined
        self._missed = missed
        self._given = given

    def _notified(self, channel: str, payload: str) -> None:
        """Anybody with the store's password can notify, so nothing about the payload is sure."""
        if channel == CHANNEL_LINE:
            for workflow_id, key in _LINE.findall(payload):
                self._lined(int(workflow_id), bytes.fromhex(key))
            return
        if channel == CHANNEL_LEASE:
            self._given([int(id) for id in _QUEUE.findall(payload)])
            return
        for queue_id, made in heard(payload):
            self._made(queue_id, made)

    async def run(self, heart: Heart) -> None:
        """The supervised loop: subscribe, look once for what was missed, then serve."""
        backoff = Backoff(BACKOFF_MIN_S, BACKOFF_MAX_S, random.Random())
        while True:
            try:
                async with self._listener.subscribed() as check:
                    backoff.reset()
                    self._missed()
                    while True:
                        await heart.beat()
                        await asyncio.sleep(CHECK_S)
                        await check(TIMEOUT_S)
            except Unavailable as error:
                heart.unready(str(error))
                await asyncio.sleep(backoff.pause_s())


class Hints:
    """Tells responders that a reply or an end is in the store, in batches.

    Args:
        channels: Hints go through the first that takes them. One that is away must say so at once, or nearly.
    """

    def __init__(self, channels: Sequence[HintChannel], metrics: Metrics) -> None:
        self._channels = channels
        self._queue: deque[str] = deque(maxlen=QUEUE_MAX)
        self._wake = asyncio.Event()
        self._lost = metrics.counter("seawall_hints_lost_total", "Hints to responders that could not be sent.")
        self._sent = {
            channel.name: metrics.counter(
                "seawall_hints_sent_total", "Hints to responders, by what they went through.", channel=channel.name
            )
            for channel in channels
        }

    def add(self, event_id: str) -> None:
        """Queue one event's id (32 hex digits); with the queue full, the oldest hint is lost."""
        if len(self._queue) == QUEUE_MAX:
            self._lost.value += 1
        self._queue.append(event_id)
        self._wake.set()

    async def run(self, heart: Heart) -> None:
        """The supervised loop."""
        while True:
            await heart.beat()
            if not self._queue:
                self._wake.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(IDLE_S):
                        await self._wake.wait()
                if not self._queue:
                    await self._ask()
                continue
            payloads, count = self._payloads()
            try:
                await self._publish(payloads, count)
            except Unavailable as error:
                self._lost.value += count
                heart.unready(str(error))
                await asyncio.sleep(0.1)

    async def _ask(self) -> None:
        """While there is nothing to say: so an outage is found out, and its end, before a reply has to."""
        for channel in self._channels[:-1]:
            with contextlib.suppress(Unavailable):
                await channel.publish([], timeout_s=TIMEOUT_S)

    async def _publish(self, payloads: list[str], count: int) -> None:
        *first, last = self._channels
        for channel in first:
            with contextlib.suppress(Unavailable):  # its own breaker counts it, and tells
                await channel.publish(payloads, timeout_s=TIMEOUT_S)
                self._sent[channel.name].value += count
                return
        await last.publish(payloads, timeout_s=TIMEOUT_S)
        self._sent[last.name].value += count

    def _payloads(self) -> tuple[list[str], int]:
        payloads: list[str] = []
        count = 0
        while self._queue and len(payloads) < PAYLOADS_MAX:
            ids = [self._queue.popleft() for _ in range(min(EVENTS_MAX, len(self._queue)))]
            count += len(ids)
            # The same event twice (its reply, then its end) is one hint.
            payloads.append(",".join(dict.fromkeys(ids)))
        return payloads, count
