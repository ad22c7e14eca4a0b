"""What guards and counts shipped steps: a breaker for each step and service, how many calls it has at once, and
counters by step and cause.

A service that hangs would cost each run its step's whole timeout, and a slot of its queue meanwhile; with a breaker
they are told at once to come back later. Counters go by step alone: hosts may come from events, and would fill the
metrics.
"""

from __future__ import annotations

import random
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from seawall.guard.breaker import Breaker, Cause, Limits, State
from seawall.guard.dependency import cause_of
from seawall.guard.panel import Panel
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import Clock
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.step.error import StepUnavailable
from seawall.step.setting import Settings
from seawall.workflow import may_retry

log = logger("step")

T = TypeVar("T")

SERVICES_MAX: Final = 256
"""Breakers of one worker. The one that was used longest ago makes place; what is in use stays."""

NAME_CHARS_MAX = 300
_STRANGE = re.compile(r"[^A-Za-z0-9_.:\[\]-]")
"""What a breaker's name has none of, so that a hand can move it; another package may call a service anything."""

WITHOUT = "runs that need it are tried again later"
INVALID = "invalid"  # refused by us or declined by the service: the workflow's mistake
LIMITED = "limited"  # it works, and wants us to wait
OTHER = "other"


@dataclass(slots=True)
class _Service:
    breaker: Breaker
    inflight: int = 0


class Meter:
    """Guards and counts calls of shipped steps."""

    def __init__(
        self, settings: Settings, *, clock: Clock, rng: random.Random, metrics: Metrics, alerts: Alerts,
        panel: Panel | None = None,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self._metrics = metrics
        self._alerts = alerts
        self._panel = panel
        # Trials have a call's usual time, and some more: a service that is back may still be slow.
        self._limits = Limits(
            window_s=120.0, slow_s=settings.slow_s, open_min_s=1.0, open_max_s=60.0, trials=1, trial_s=60.0
        )
        self._services: OrderedDict[str, _Service] = OrderedDict()

    async def call(self, step: str, service: str, work: Callable[[], Awaitable[T]]) -> T:
        """Do what a step does, unless its service is known not to work.

        Args:
            step: The step's name, without its version.
            service: Host and port, or whatever tells one service of this step from another; "" when it has one only.

        Raises:
            StepUnavailable: Not done at all: its breaker is open, or it has as many calls as it may have.
            Exception: Whatever ``work`` raised.

        Cancelled: says nothing about the service.
        """
        found = self._service(step, service)
        permit = found.breaker.admit() if found.inflight < self._settings.inflight_max else None
        if permit is None:
            self._failed(step, Cause.REJECTED.value)
            raise StepUnavailable(
                f"{step} isn't called now: the breaker of {found.breaker.name} is {found.breaker.state.value}"
                if found.inflight < self._settings.inflight_max
                else f"{step} has {found.inflight} calls to {service or 'it'} under way already (step.inflight_max)",
                cause=Cause.REJECTED, sent=False, retry_after_s=max(1.0, found.breaker.retry_after_s()),
            )  # fmt: skip
        found.inflight += 1
        settled = False
        try:
            value = await work()
            settled = True
            found.breaker.succeeded(permit)
            return value
        except Exception as error:  # every one goes up as it is; the breaker hears which ones are the service's
            settled = True
            label = _label(error)
            (found.breaker.failed if label in _AGAINST else found.breaker.succeeded)(permit)
            self._failed(step, label)
            raise
        finally:
            found.inflight -= 1
            if not settled:
                found.breaker.abandoned(permit)
            self._counted(step, self._clock.monotonic() - permit.began)

    def refused(self, step: str) -> None:
        """Count one that was refused before it was known which service it is for."""
        self._failed(step, INVALID)

    def services(self) -> list[str]:
        """Names of the breakers, the one used longest ago first."""
        return list(self._services)

    def _service(self, step: str, service: str) -> _Service:
        name = f"{step}:{_STRANGE.sub('_', service)}"[:NAME_CHARS_MAX] if service else step
        found = self._services.get(name)
        if found is not None:
            self._services.move_to_end(name)
            return found
        if len(self._services) >= SERVICES_MAX and not self._forget_one():
            # All are in use, by as many services: the rest share one, which is safe, and only less exact.
            name = step
            if name in self._services:
                return self._services[name]
        breaker = Breaker(name, self._limits, clock=self._clock, rng=self._rng, changed=self._changed)
        found = self._services[name] = _Service(breaker)
        if self._panel is not None:
            self._panel.add(breaker, without=WITHOUT)
        return found

    def _forget_one(self) -> bool:
        idle = [(name, one.breaker.state) for name, one in self._services.items() if not one.inflight]
        # An open one is worth more than a closed one: whoever names hosts without end must not close others' breakers.
        # What somebody's hand holds stays.
        for states in ((State.CLOSED,), (State.OPEN, State.HALF_OPEN)):
            name = next((name for name, state in idle if state in states), None)
            if name is not None:
                del self._services[name]
                if self._panel is not None:
                    self._panel.remove(name)
                self._alerts.cleared("breaker-open", breaker=name)
                return True
        return False

    def _failed(self, step: str, cause: str) -> None:
        self._metrics.counter(
            "seawall_step_failures_total", "Calls of a shipped step that failed, by cause.", step=step, cause=cause
        ).value += 1

    def _counted(self, step: str, seconds: float) -> None:
        counter = self._metrics.counter
        counter("seawall_step_calls_total", "Calls of a shipped step that were made.", step=step).value += 1
        counter("seawall_step_seconds_total", "Time spent in calls of a shipped step.", step=step).value += seconds
        if seconds > self._settings.slow_s:
            counter(
                "seawall_step_slow_total", "Calls of a shipped step that took longer than step.slow_s.", step=step
            ).value += 1

    def _changed(self, breaker: Breaker, before: State, after: State) -> None:
        if after in (State.OPEN, State.FORCED_OPEN):
            log.warning("a step's breaker opened", extra=fields(breaker=breaker.name, before=before.value))
            self._alerts.raised(
                "breaker-open", f"{breaker.name} doesn't do its work; {WITHOUT}",
                unaffected="accepting events, and runs that don't need it", cure="seawall breakers list",
                breaker=breaker.name,
            )  # fmt: skip
        elif after in (State.CLOSED, State.FORCED_CLOSED):
            log.info("a step's breaker closed", extra=fields(breaker=breaker.name))
            self._alerts.cleared("breaker-open", breaker=breaker.name)


_AGAINST = frozenset({Cause.TIMEOUT.value, Cause.REFUSED.value, Cause.RESET.value, Cause.ERROR.value})


def _label(error: Exception) -> str:
    """What a failure is counted as."""
    if isinstance(error, StepUnavailable):
        return error.cause.value if error.cause is not None else LIMITED
    if not may_retry(error):
        return INVALID
    cause = cause_of(error)
    return cause.value if cause is not None else OTHER
