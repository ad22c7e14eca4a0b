"""One optional dependency, as its callers see it: a call within a deadline, or at once a default.

Breaker, bulkhead and timeout together. Whoever calls can't forget one of them, and can't forget what to do without the
dependency, since a default is declared with it: ``geo → nothing known``, ``rate limit → the local one``.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from seawall.guard.breaker import Breaker, Cause, Limits, State
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import Clock
from seawall.kernel.error import Misconfigured, SeawallError, Unavailable
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Counter, Metrics

log = logger("guard")

T = TypeVar("T")

STATES = {State.CLOSED: 0, State.HALF_OPEN: 1, State.OPEN: 2, State.FORCED_CLOSED: 3, State.FORCED_OPEN: 4}
"""Numbers for the gauge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How one dependency is called."""

    name: str
    timeout_s: float  # of a call, connecting included
    without: str  # what happens without it, in words: for the alert, and so that nobody declares none
    unaffected: str = "accepting events"
    inflight_max: int = 64  # the bulkhead; one more doesn't wait, it gets the default
    limits: Limits = field(default_factory=Limits)


class Dependency(Generic[T]):
    """Calls to one dependency.

    Raises:
        Misconfigured: No default is declared, or the breaker could never open.
    """

    def __init__(
        self, plan: Plan, *, clock: Clock, rng: random.Random, metrics: Metrics, alerts: Alerts,
        cause_of: Callable[[BaseException], Cause | None],
    ) -> None:  # fmt: skip
        problems = [] if plan.without.strip() else [f"breaker {plan.name}: declares no default"]
        if plan.timeout_s > plan.limits.window_s / 2:
            problems.append(f"breaker {plan.name}: timeout_s must be at most half of window_s")
        if problems:
            raise Misconfigured(problems)
        self.plan = plan
        self._clock = clock
        self._alerts = alerts
        self._cause_of = cause_of
        self._inflight = 0
        self.breaker = Breaker(plan.name, plan.limits, clock=clock, rng=rng, changed=self._changed)
        self._calls = metrics.counter("seawall_dependency_calls_total", "Calls that were answered.", to=plan.name)
        self._fallbacks = fallbacks(metrics, plan.name)
        self._opened = metrics.counter("seawall_breaker_opened_total", "Times a breaker opened.", to=plan.name)
        state = metrics.gauge(
            "seawall_breaker_state_code", "0 closed, 1 half open, 2 open, 3 and 4 forced closed and open.", to=plan.name
        )
        state.read = lambda: STATES[self.breaker.state]
        self._seconds = metrics.counter("seawall_dependency_seconds_total", "Time spent in calls.", to=plan.name)

    async def call(self, work: Callable[[], Awaitable[T]], default: Callable[[], T]) -> T:
        """The dependency's answer, or the default: within ``timeout_s``, whatever the dependency does.

        Args:
            work: Starts the call. Not called at all while the breaker is open.
            default: What to use without an answer.

        Raises:
            Whatever ``cause_of`` doesn't take for the dependency's fault.

        Cancelled: the call is cancelled; it says nothing about the dependency.
        """
        try:
            return await self.attempt(work)
        except Unavailable:
            return default()

    async def attempt(self, work: Callable[[], Awaitable[T]]) -> T:
        """As ``call``, for a caller that decides itself what to do without.

        Raises:
            Unavailable: No answer; counted by cause.
        """
        permit = self.breaker.admit() if self._inflight < self.plan.inflight_max else None
        if permit is None:
            self._fallbacks[Cause.REJECTED].value += 1
            raise Unavailable(self.plan.name, f"its breaker is {self.breaker.state.value}")
        timeout_s = self.plan.timeout_s
        if permit.trial:
            timeout_s = min(timeout_s, self.plan.limits.trial_s)
        self._inflight += 1
        settled = False
        try:
            async with asyncio.timeout(timeout_s):
                answer = await work()
            settled = True
            self.breaker.succeeded(permit)
            self._calls.value += 1
            return answer
        except Exception as error:  # every one goes up: as it is, or as Unavailable with its cause
            cause = self._cause_of(error)
            settled = True
            if cause is None:
                self.breaker.succeeded(permit)
                raise
            self.breaker.failed(permit)
            self._fallbacks[cause].value += 1
            raise Unavailable(self.plan.name, f"{cause.value}: {error or type(error).__name__}") from error
        finally:
            self._inflight -= 1
            self._seconds.value += self._clock.monotonic() - permit.began
            if not settled:
                self.breaker.abandoned(permit)

    def _changed(self, breaker: Breaker, before: State, after: State) -> None:
        said = fields(breaker=breaker.name, before=before.value, after=after.value)
        if after in (State.OPEN, State.FORCED_OPEN):
            self._opened.value += 1
            log.warning("a breaker opened", extra=said)
            self._alerts.raised(
                "breaker-open", f"{breaker.name} doesn't do its work; {self.plan.without}",
                unaffected=self.plan.unaffected, cure="seawall breakers list", breaker=breaker.name,
            )  # fmt: skip
        elif after in (State.CLOSED, State.FORCED_CLOSED):
            log.info("a breaker closed", extra=said)
            self._alerts.cleared("breaker-open", breaker=breaker.name)


def fallbacks(metrics: Metrics, name: str) -> dict[Cause, Counter]:
    """A dependency's counters of defaults used, by cause."""
    return {
        cause: metrics.counter(
            "seawall_dependency_fallbacks_total", "Defaults used, by cause.", to=name, cause=cause.value
        )
        for cause in Cause
    }


def cause_of(error: BaseException) -> Cause | None:
    """The cause of what Python itself raises; None: not the dependency's fault. Drivers' errors come on top."""
    match error:
        case TimeoutError():
            return Cause.TIMEOUT
        case ConnectionRefusedError() | FileNotFoundError():
            return Cause.REFUSED
        case ConnectionError() | EOFError():
            return Cause.RESET
        case OSError():
            return Cause.ERROR
        case SeawallError():
            return Cause.ERROR if isinstance(error, Unavailable) else None
        case _:
            return None
