"""Hints: what makes things quick, and may be lost. New runs are hinted to us; replies and ends are hinted by us."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections import deque
from collections.abc import Callable

from seawall.guard import Heart
from seawall.guard.retry import Backoff
from seawall.kernel.error import Unavailable, Uncertain
from seawall.kernel.metric import Metrics
from seawall.kernel.status import CHANNEL_RUN
from seawall.store.pool import Listener, Settings, Store
from seawall.store.run import hint

EVENTS_MAX = 200
"""Event ids in one payload: PostgreSQL's limit is 8000 bytes."""

QUEUE_MAX = 10_000
CHECK_S = 0.8
TIMEOUT_S = 1.0
PAYLOADS_MAX = 10
BACKOFF_MIN_S = 0.05
BACKOFF_MAX_S = 0.5

_PAIR = re.compile(r"(\d{1,5}):(\d{1,18})(?:,|$)")


class Listening:
    """Hears that runs were made. Without it the worker polls.

    Args:
        made: Called with a queue's id and the smallest virtual time of its new runs.
        missed: Called when hints may have been lost.
    """

    def __init__(self, settings: Settings, made: Callable[[int, int], None], missed: Callable[[], None]) -> None:
        self._listener = Listener(settings, [CHANNEL_RUN], self._notified, role="worker")
        self._made = made
        self._missed = missed

    def _notified(self, _channel: str, payload: str) -> None:
        """Anybody with the store's password can notify, so nothing about the payload is sure."""
        for queue_id, vt in _PAIR.findall(payload):
            self._made(int(queue_id), int(vt))

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
    """Tells responders that a reply or an end is in the store, in batches, on a connection of its own."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store = store
        self._queue: deque[str] = deque(maxlen=QUEUE_MAX)
        self._wake = asyncio.Event()
        self._lost = metrics.counter("seawall_hints_lost_total", "Hints to responders that could not be sent.")

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
                    async with asyncio.timeout(0.5):
                        await self._wake.wait()
                continue
            payloads, count = self._payloads()
            try:
                await hint(self._store, payloads, timeout_s=TIMEOUT_S)
            except (Unavailable, Uncertain) as error:
                self._lost.value += count
                heart.unready(str(error))
                await asyncio.sleep(0.1)

    def _payloads(self) -> tuple[list[str], int]:
        payloads: list[str] = []
        count = 0
        while self._queue and len(payloads) < PAYLOADS_MAX:
            ids = [self._queue.popleft() for _ in range(min(EVENTS_MAX, len(self._queue)))]
            count += len(ids)
            # The same event twice (its reply, then its end) is one hint.
            payloads.append(",".join(dict.fromkeys(ids)))
        return payloads, count
