"""Listens for hints on a connection of its own: subscribe, then reconcile, then serve, again and again.

The order matters. Reading every ticket *after* subscribing leaves no moment in which a reply could be neither in that
read nor announced. The connection proves itself by a round trip twice a second, since a dead one says nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import replace
from typing import Any

from seawall.guard import Heart
from seawall.guard.retry import Backoff
from seawall.kernel.error import Unavailable
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.kernel.status import CHANNEL_REPLY
from seawall.responder.setting import Settings
from seawall.responder.waiting import Board
from seawall.store import pool

log = logger("responder")

CONNECT_S = 1.0
SUBSCRIBE_S = 2.0
"""Connecting and LISTEN together; below the supervisor's stall limit: a silent store isn't a loop that hangs."""

CHECK_TIMEOUT_S = 1.0
BACKOFF_MIN_S = 0.05
PAUSE_S = 0.5
ID_DIGITS = 32


class Listener:
    """Turns notifications into hints for the board."""

    def __init__(
        self, board: Board, store: pool.Settings, settings: Settings, *, metrics: Metrics, rng: random.Random
    ) -> None:
        self._board = board
        self.settings = settings
        self._rng = rng
        self._channel = pool.Listener(
            replace(store, connect_timeout_s=CONNECT_S), (CHANNEL_REPLY,), self._notified, role="listener"
        )
        self._hints = metrics.counter("seawall_reply_hints_total", "Event ids that the reply channel named.")
        self._strange = metrics.counter("seawall_reply_hints_unreadable_total", "Hints that held something else.")
        self._subscriptions = metrics.counter(
            "seawall_reply_subscriptions_total", "Times the reply channel was subscribed to; each one re-read all."
        )

    async def run(self, heart: Heart) -> None:
        """The supervised loop: reconnects for ever, with a jittered, bounded backoff."""
        backoff = Backoff(BACKOFF_MIN_S, self.settings.backoff_ms_max / 1000, self._rng)
        while True:
            try:
                async with contextlib.AsyncExitStack() as stack:
                    async with asyncio.timeout(SUBSCRIBE_S):
                        check = await stack.enter_async_context(self._channel.subscribed())
                    backoff.reset()
                    await self._serve(check, heart)
            except (Unavailable, TimeoutError) as error:
                reason = str(error) or "PostgreSQL is unavailable: no answer to LISTEN in time"
                log.warning("reply channel lost; tickets are still re-read", extra=fields(cause=reason))
                await self._pause(backoff.pause_s(most_s=self.settings.backoff_ms_max / 1000), reason, heart)

    async def _serve(self, check: Any, heart: Heart) -> None:
        """Until the connection is lost (Unavailable)."""
        self._subscriptions.value += 1
        self._board.look_at_all()
        while True:
            await heart.beat()
            await asyncio.sleep(self.settings.check_ms / 1000)
            await check(CHECK_TIMEOUT_S)

    async def _pause(self, seconds: float, reason: str, heart: Heart) -> None:
        heart.unready(reason)
        while seconds > 0:
            await asyncio.sleep(min(seconds, PAUSE_S))
            seconds -= PAUSE_S
            heart.unready(reason)

    def _notified(self, channel: str, payload: str) -> None:
        """Called by the driver. Anybody with the store's password can notify, so nothing about the payload is sure."""
        ids: list[bytes] = []
        for word in payload.split(","):
            try:
                if len(word) != ID_DIGITS:
                    raise ValueError(word)
                ids.append(bytes.fromhex(word))
            except ValueError:
                self._strange.value += 1
        self._hints.value += len(ids)
        self._board.hint(ids)
