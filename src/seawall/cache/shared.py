"""What this process has with its Redis: the connection, its breaker, the limiter behind it, and what is read of it."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from types import TracebackType

from seawall.cache.client import Client
from seawall.cache.command import GCRA, packed
from seawall.cache.limiter import SharedLimiter
from seawall.cache.meter import Meter
from seawall.cache.setting import Settings, target
from seawall.guard import Heart, Supervisor
from seawall.guard.breaker import Limits, State
from seawall.guard.dependency import Dependency, Plan, cause_of
from seawall.guard.limiter import LocalLimiter
from seawall.guard.panel import Panel
from seawall.guard.pressure import LOOP_LAG
from seawall.guard.shed import ShedList, declared
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import Clock
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.flag import Switch, always
from seawall.kernel.seam.limiter import ASK_S

PROBE_S = 0.15
"""Without questions for so long, one of our own is asked."""

AGAIN_S = 0.06
"""After one that failed. With ``in_a_row`` failures of ``TIMEOUT_S_MAX`` each, an outage is known within 0.8 s, busy or
not, and mostly it is probes that find out, not events."""

LIMITS = Limits(in_a_row=3, open_max_s=5.0, trial_s=0.15)
"""What is lost by opening too early is little (each process limits alone), so it opens early, and tries again soon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How long anybody waits for Redis, and how often it may fail before nobody does."""

    ask_s: float = ASK_S  # of an event's question
    limits: Limits = LIMITS  # of the breaker


BOUNDS = Bounds()


class Shared:
    """Rate limits shared through Redis. ``async with`` opens nothing: the first question connects.

    Args:
        settings: With a ``url``.
        name: What Redis calls us: that of the collector.
        on: Whether events' questions go to Redis; it is probed all the same.
        bounds: Of waiting for Redis.
    """

    def __init__(
        self, settings: Settings, *, name: str, clock: Clock, metrics: Metrics, alerts: Alerts, panel: Panel,
        rng: random.Random | None = None, shed: ShedList | None = None, on: Switch = always, bounds: Bounds = BOUNDS,
    ) -> None:  # fmt: skip
        plan = Plan(
            name="redis", timeout_s=settings.timeout_s, limits=bounds.limits,
            without="each collector keeps rate limits alone: all of them together let more through",
        )  # fmt: skip
        self._redis: Dependency[list[int]] = Dependency(
            plan, clock=clock, rng=rng or random.Random(), metrics=metrics, alerts=alerts, cause_of=cause_of
        )
        panel.add(self._redis.breaker, without=plan.without)
        script = packed("SCRIPT", "LOAD", GCRA)
        self._client = Client(settings, target(settings.url), name=f"seawall-{name}", opening=[script])
        self._clock = clock
        wanted = declared(shed, "shared-limits", rank=40, without=plan.without, eases=(LOOP_LAG,))
        self.limiter = SharedLimiter(
            self._client.ask, self._redis, LocalLimiter(clock), clock=clock, metrics=metrics, wanted=wanted, on=on,
            ask_s=bounds.ask_s,
        )  # fmt: skip
        self._meter = Meter(self._client.ask, self._redis.breaker, settings, clock=clock, metrics=metrics)

    @property
    def ready(self) -> bool:
        """Whether Redis has answered, and is asked."""
        return self.limiter.heard and self._redis.breaker.state in (State.CLOSED, State.FORCED_CLOSED)

    def register(self, supervisor: Supervisor) -> None:
        """Add the loops that probe Redis and read its figures. Neither makes the role unready: it needs no Redis."""
        supervisor.add("cache.probe", self._probe, essential=False)
        supervisor.add("cache.meter", self._meter.run, essential=False)

    async def __aenter__(self) -> Shared:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.limiter.close()
        await self._client.close()

    async def _probe(self, heart: Heart) -> None:
        breaker, pause_s = self._redis.breaker, 0.0
        while True:
            quiet = self._clock.monotonic() - self.limiter.asked_at >= PROBE_S
            if breaker.state is not State.FORCED_OPEN and not breaker.retry_after_s() and (quiet or pause_s == AGAIN_S):
                pause_s = PROBE_S if await self.limiter.probe() else AGAIN_S
            else:
                pause_s = PROBE_S
            if breaker.state in (State.CLOSED, State.FORCED_CLOSED):
                await heart.beat()
            else:
                heart.unready(f"its breaker is {breaker.state.value}: limits are kept by this process alone")
            await asyncio.sleep(pause_s)
