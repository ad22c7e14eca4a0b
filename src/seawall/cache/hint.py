"""Hints through Redis Pub/Sub (kernel/seam/hint.py).

A subscription has a connection of its own, whose replies come unasked. Both it and the publisher connect to a primary
only: what is published there reaches the subscribers of its replicas too, and never the other way round.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TypeVar

from seawall.cache.client import Client
from seawall.cache.command import HINTS, packed
from seawall.cache.link import Link
from seawall.cache.setting import Settings, target
from seawall.guard.breaker import Limits
from seawall.guard.dependency import Dependency, Plan, cause_of
from seawall.guard.panel import Panel
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import Clock, SystemClock
from seawall.kernel.error import Unavailable
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.hint import PAYLOADS_MAX, Heard

T = TypeVar("T")

CONNECT_S = 0.8
"""Nobody waits for it but the loop that listens. Short all the same: a try that hangs in what was a hole in the network
hears nothing of its end, and the next one must come soon after it."""

LIMITS = Limits(in_a_row=3, open_max_s=5.0, trial_s=0.05)
"""Without Redis hints go through PostgreSQL. So it opens early, and a trial costs one batch of hints a moment."""

ANEW_S = 1.0
"""Between two connections that were made anew since nobody listened."""


class RedisHints:
    """Implements ``HintChannel``. ``async with`` opens nothing: the first use connects.

    Args:
        settings: With a ``url``.
        name: What Redis calls our connections.
        redis: Bounds and counts what is published; None: only ``timeout_s`` does.

    Raises:
        Misconfigured: The package that it needs isn't installed.
    """

    name = "redis"

    def __init__(
        self, settings: Settings, *, name: str, redis: Dependency[int] | None = None, clock: Clock | None = None
    ) -> None:
        self._target = target(settings.url)
        self._settings = settings if redis is not None else replace(settings, connect_s=CONNECT_S)
        self._name = name
        self._redis = redis
        self._clock = clock or SystemClock()
        # Pub/Sub knows no databases: two of ours on one server must not hear each other.
        self._channel = HINTS + b"reply:%d" % self._target.database
        self._client = Client(self._settings, self._target, name=f"seawall-{name}")
        self._anew_at = float("-inf")
        self._turn = 0  # of the hosts, for the next subscription: one that hangs isn't tried first for ever

    async def __aenter__(self) -> RedisHints:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def publish(self, payloads: Sequence[str], *, timeout_s: float) -> None:
        """See the seam; raises Unavailable also when nobody listens at this server."""
        assert len(payloads) <= PAYLOADS_MAX
        commands = [packed("PUBLISH", self._channel, payload) for payload in payloads] or [packed("PING")]

        async def work() -> int:
            async with asyncio.timeout(timeout_s):
                replies = await self._client.ask_all(commands)
            return min((reply for reply in replies if isinstance(reply, int)), default=0)

        heard_by = await (self._redis.attempt(work) if self._redis is not None else _ours(work))
        if payloads and not heard_by:
            self._look_elsewhere()
            raise Unavailable("redis", "nobody listens there for hints")

    def _look_elsewhere(self) -> None:
        """Perhaps a fail-over made another server the primary, and ours hasn't closed the connection."""
        now = self._clock.monotonic()
        if now - self._anew_at >= ANEW_S:
            self._anew_at = now
            self._client.drop("nobody listens there")

    @contextlib.asynccontextmanager
    async def subscribed(self, heard: Heard) -> AsyncIterator[asyncio.Future[str]]:
        client = Client(
            replace(self._settings, connect_s=CONNECT_S), self._target, name=f"seawall-{self._name}-hints",
            opening=[packed("SUBSCRIBE", self._channel)], link=lambda: _Subscription(heard),
        )  # fmt: skip
        client.turn = self._turn
        try:
            link = await _ours(client.connected)
            assert isinstance(link, _Subscription)
            yield link.ended
        finally:
            self._turn = client.turn
            await client.close()


class _Subscription(Link):
    """A connection on which messages come, between replies."""

    def __init__(self, heard: Heard) -> None:
        super().__init__()
        self._heard = heard
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def _settle(self, reply: object) -> None:
        match reply:
            case [b"message", bytes(), bytes(payload)]:
                self._heard(payload.decode("ascii", "replace"))
            case _:
                super()._settle(reply)

    def abort(self, why: BaseException) -> None:
        super().abort(why)
        if not self.ended.done():
            self.ended.set_result(str(self.lost) or type(why).__name__)


async def _ours(work: Callable[[], Awaitable[T]]) -> T:
    """Its answer; what the connection raises becomes Unavailable."""
    try:
        return await work()
    except (OSError, TimeoutError) as error:
        raise Unavailable("redis", str(error) or "no answer in time") from error


def guarded(
    settings: Settings, *, name: str, clock: Clock, metrics: Metrics, alerts: Alerts, panel: Panel,
    rng: random.Random | None = None,
) -> RedisHints:  # fmt: skip
    """For those who publish and must never wait long for it: behind a breaker of their own."""
    plan = Plan(
        name="redis-hints", timeout_s=settings.timeout_s, limits=LIMITS,
        without="hints of replies go through PostgreSQL (NOTIFY)", unaffected="replies, and who waits for them",
    )  # fmt: skip
    redis: Dependency[int] = Dependency(
        plan, clock=clock, rng=rng or random.Random(), metrics=metrics, alerts=alerts, cause_of=cause_of
    )
    panel.add(redis.breaker, without=plan.without)
    return RedisHints(settings, name=name, redis=redis, clock=clock)
