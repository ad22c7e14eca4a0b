"""Listens for hints on one channel: subscribe, prove it, reconcile, then serve, again and again.

A connection that is dead says nothing, and neither does one whose listener is (incident I1). So a listener sends itself
an echo through the real channel each second, published on another connection. An echo that doesn't come back is what
an outage is known by: metric, readiness, alert, and a new subscription, for ever.

The order matters. Reading every ticket *after* subscribing leaves no moment in which a reply could be neither in that
read nor announced; and after the first echo, so that a channel which takes subscriptions and hands nothing on doesn't
have all of them read at each try.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Final

from seawall.guard import Heart
from seawall.guard.retry import Backoff
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import Clock
from seawall.kernel.error import Unavailable
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.hint import ECHO, HintChannel
from seawall.responder.setting import Settings
from seawall.responder.waiting import Board

log = logger("responder")

ECHO_S: Final = 1.0
"""Longest time for an echo to be published, and again to come back."""

SLICES: Final = 4
"""In so many waits: a process that stood still meanwhile finds its echo after one of them, and calls nothing dead."""

SUBSCRIBE_S: Final = 2.0
"""Below the supervisor's stall limit: a silent server isn't a loop that hangs."""

BACKOFF_MIN_S: Final = 0.05
BACKOFF_MAX_S: Final = 0.5
"""What was away is back for us within 2 s: this pause, a try that hung when it came back, and an echo."""

SILENT_S: Final = 2.0
"""So long without an echo is an alert."""

START_S: Final = 10.0
"""At the start: a store that is being started is no alert."""

ALERT: Final = "reply-channel-silent"
CURES: Final = {
    "notify": "look at PostgreSQL; through a pooler that shares connections, LISTEN hears nothing",
    "redis": "look at Redis (cache.url)",
}
ID_DIGITS: Final = 32


class Listener:
    """Turns one channel's payloads into hints for the board. Not to be entered: its loop is all it is."""

    def __init__(
        self, board: Board, channel: HintChannel, settings: Settings, *, clock: Clock, metrics: Metrics, alerts: Alerts,
        rng: random.Random,
    ) -> None:  # fmt: skip
        self._board = board
        self._channel = channel
        self.settings = settings
        self._clock = clock
        self._alerts = alerts
        self._rng = rng
        self._own = f"{ECHO}{rng.getrandbits(64):016x}"  # nobody else's echo is taken for ours
        self._sent = 0
        self._lost = False
        self._awaited = ""
        self._echo: asyncio.Future[None] | None = None
        self._proven_at = clock.monotonic()
        self._alert_at = self._proven_at + START_S
        self._measure(metrics)

    def _measure(self, metrics: Metrics) -> None:
        name = self._channel.name
        counter, gauge = metrics.counter, metrics.gauge
        self._hints = counter("seawall_reply_hints_total", "Event ids that a channel of hints named.", channel=name)
        self._strange = counter(
            "seawall_reply_hints_unreadable_total", "Hints that held something else.", channel=name
        )  # fmt: skip
        self._subscriptions = counter(
            "seawall_reply_subscriptions_total", "Times a channel of hints was subscribed to.", channel=name
        )
        self._missed = counter(
            "seawall_reply_echoes_missed_total",
            "Echoes through a channel of hints that didn't come back.",
            channel=name,
        )
        self._took = gauge(
            "seawall_reply_echo_seconds", "How long the last echo through a channel of hints took.", channel=name
        )
        age = gauge("seawall_reply_echo_age_seconds", "Since the last echo through a channel of hints.", channel=name)
        age.read = lambda: self._clock.monotonic() - self._proven_at

    async def run(self, heart: Heart) -> None:
        """The supervised loop: reconnects for ever, with a jittered, bounded backoff."""
        backoff = Backoff(BACKOFF_MIN_S, BACKOFF_MAX_S, self._rng)
        while True:
            try:
                async with contextlib.AsyncExitStack() as stack:
                    async with asyncio.timeout(SUBSCRIBE_S):
                        lost = await stack.enter_async_context(self._channel.subscribed(self._heard))
                    self._subscriptions.value += 1
                    await self._serve(lost, backoff, heart)
            except (Unavailable, TimeoutError) as error:
                reason = str(error) or f"{self._channel.name} took no subscription in time"
                self._unproven(reason, heart)
                await asyncio.sleep(backoff.pause_s())

    async def _serve(self, lost: asyncio.Future[str], backoff: Backoff, heart: Heart) -> None:
        """Until the channel is lost (Unavailable)."""
        reconciled = False
        while True:
            await self._prove(lost, heart)
            if not reconciled:
                self._board.look_at_all()
                reconciled = True
            backoff.reset()
            await heart.beat()
            await asyncio.wait((lost,), timeout=self.settings.echo_ms / 1000)
            if lost.done():
                raise Unavailable(self._channel.name, lost.result())

    async def _prove(self, lost: asyncio.Future[str], heart: Heart) -> None:
        """Send an echo and hear it.

        Raises:
            Unavailable: It didn't come back, or there is a reason why it can't.
        """
        self._sent += 1
        self._awaited = f"{self._own}.{self._sent}"
        echo = self._echo = asyncio.get_running_loop().create_future()
        began = self._clock.monotonic()
        try:
            await self._channel.publish([self._awaited], timeout_s=ECHO_S)
            for _ in range(SLICES):
                heart.touch()
                await asyncio.wait((echo, lost), timeout=ECHO_S / SLICES, return_when=asyncio.FIRST_COMPLETED)
                if echo.done() or lost.done():
                    break
        except Unavailable:
            self._missed.value += 1
            raise
        if not echo.done():
            self._missed.value += 1
            raise Unavailable(self._channel.name, lost.result() if lost.done() else "an echo didn't come back in time")
        self._proven_at = self._clock.monotonic()
        self._took.value = self._proven_at - began
        self._alert_at = self._proven_at + SILENT_S
        self._alerts.cleared(ALERT, channel=self._channel.name)
        if self._lost:
            self._lost = False
            log.info("channel of hints is back", extra=fields(channel=self._channel.name))

    def _unproven(self, reason: str, heart: Heart) -> None:
        heart.unready(reason)
        if not self._lost:  # once for each time, however long it lasts
            self._lost = True
            log.warning("channel of hints lost", extra=fields(channel=self._channel.name, cause=reason))
        if self._clock.monotonic() < self._alert_at:
            return
        self._alerts.raised(
            ALERT, f"no hints of replies come through {self._channel.name}: {reason}",
            unaffected="answers: tickets are re-read, so a held request waits up to "
            f"{self.settings.look_ms_max / 1000:g} s longer",
            cure=CURES.get(self._channel.name, ""), channel=self._channel.name,
        )  # fmt: skip

    def _heard(self, payload: str) -> None:
        """Called by the channel. Anybody who may publish decides what it says, so nothing about it is sure."""
        if payload.startswith(ECHO):
            if payload == self._awaited and self._echo is not None and not self._echo.done():
                self._echo.set_result(None)
            return
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
