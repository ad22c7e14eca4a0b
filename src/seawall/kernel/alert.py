"""An alert: something is wrong now, is told once when it begins and once when it ends, and can be listed meanwhile.

A value with labels, kept by the process in which it is wrong: nothing else has to work for it to be raised (no queue,
no store). Rules, routing and escalation are watch's business and begin here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from seawall.kernel.clock import Clock
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Gauge, Metrics

log = logger("alert")

ACTIVE_MAX = 1000
"""Alerts of one process at once. More are counted and logged, not kept: whoever names tenants or sources in labels must
not fill the memory with them."""

Key = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One thing that is wrong."""

    name: str  # of the rule, in words with hyphens: breaker-open
    labels: Mapping[str, str] = field(default_factory=dict)  # which one: with the name, what tells it from others
    summary: str  # what is wrong, in one line
    unaffected: str = ""  # what is not affected
    cure: str = ""  # the command to run, or what to do
    since_us: int = 0  # wall clock


class Alerts:
    """The alerts of one process. Raising one that is raised, and clearing one that isn't, changes nothing but its text.

    Args:
        heard: Called for each that begins (True) or ends (False); watch's part later. Must not raise.
    """

    def __init__(
        self, metrics: Metrics, clock: Clock, *, heard: Callable[[Alert, bool], None] = lambda alert, raised: None
    ) -> None:
        self._metrics = metrics
        self._clock = clock
        self._heard = heard
        self._active: dict[Key, Alert] = {}
        self._dropped = metrics.counter("seawall_alerts_dropped_total", "Alerts beyond what one process keeps.")

    def raised(self, name: str, summary: str, *, unaffected: str = "", cure: str = "", **labels: str) -> None:
        """Something is wrong, from now on."""
        key = _key(name, labels)
        known = self._active.get(key)
        since_us = known.since_us if known is not None else self._clock.wall_us()
        alert = Alert(
            name=name, labels=labels, summary=summary, unaffected=unaffected, cure=cure, since_us=since_us
        )  # fmt: skip
        if known is None:
            log.error(summary, extra=fields(alert=name, **labels, cure=cure))
            if len(self._active) >= ACTIVE_MAX:
                self._dropped.value += 1
                return
            self._gauge(name).value += 1
        self._active[key] = alert
        if known is None:
            self._heard(alert, True)

    def cleared(self, name: str, **labels: str) -> None:
        """It is right again."""
        alert = self._active.pop(_key(name, labels), None)
        if alert is None:
            return
        lasted_s = round((self._clock.wall_us() - alert.since_us) / 1_000_000, 1)
        log.warning("cleared: %s", alert.summary, extra=fields(alert=name, **labels, lasted_s=lasted_s))
        self._gauge(name).value -= 1
        self._heard(alert, False)

    def active(self) -> Sequence[Alert]:
        """Those that are raised now, the oldest first."""
        return sorted(self._active.values(), key=lambda alert: alert.since_us)

    def _gauge(self, name: str) -> Gauge:
        return self._metrics.gauge("seawall_alerts_active_count", "Alerts that are raised now.", alert=name)


def _key(name: str, labels: Mapping[str, str]) -> Key:
    return name, tuple(sorted(labels.items()))
