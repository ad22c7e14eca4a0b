"""What the platform says of itself, as numbers: its metrics and alerts, read with short patience, as anybody may."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from seawall.kernel.error import Rejected, Unavailable
from seawall.lab.platform import Find, Platform

PATIENCE_S = 0.8

Reduce = Callable[[Sequence[float]], float]


def _total(values: Sequence[float]) -> float:
    return sum(values)


def _most(values: Sequence[float]) -> float:
    return max(values)


@dataclass(frozen=True, slots=True)
class Figure:
    """One value of a sample, out of a metric's lines."""

    metric: str
    reduce: Reduce = _total
    label: str = ""  # a part of the labels, such as 'to="redis"'


FIGURES: Mapping[str, Figure] = {
    "intake.accepted_total": Figure("seawall_accepted_total"),
    "held.waiting_count": Figure("seawall_tickets_held_count"),
    "journal.unrouted_bytes": Figure("seawall_unrouted_bytes"),
    "router.lag_s": Figure("seawall_router_lag_seconds", _most),
    "router.events_total": Figure("seawall_router_events_total"),
    "spool.lag_s": Figure("seawall_journal_forward_lag_seconds", _most),
    "spool.spooled_total": Figure("seawall_journal_spooled_total"),
    "kafka.acks_total": Figure("seawall_kafka_acks_total"),
    "runs.inflight_count": Figure("seawall_runs_inflight_count"),
    "runs.ended_total": Figure("seawall_runs_ended_total"),
    "governor.share_ratio": Figure("seawall_governor_share_ratio", _most),
    "governor.cuts_total": Figure("seawall_governor_windows_total", _total, 'act="cut"'),
    "governor.raises_total": Figure("seawall_governor_windows_total", _total, 'act="raise"'),
    "listener.redis_age_s": Figure("seawall_reply_echo_age_seconds", _most, 'channel="redis"'),
    "listener.notify_age_s": Figure("seawall_reply_echo_age_seconds", _most, 'channel="notify"'),
    "limiter.shared_total": Figure("seawall_limiter_shared_total"),
    "limiter.local_total": Figure("seawall_limiter_local_total"),
    "breaker.redis_code": Figure("seawall_breaker_state_code", _most, 'to="redis"'),
    "breaker.redis_hints_code": Figure("seawall_breaker_state_code", _most, 'to="redis-hints"'),
    "breaker.kafka_code": Figure("seawall_breaker_state_code", _most, 'to="kafka"'),
    "listener.restarts_total": Figure("seawall_loop_restarts_total", _total, 'loop="responder.listener'),
    "alerts.open_count": Figure("seawall_alerts_active_count"),
}


@dataclass(frozen=True, slots=True)
class Alert:
    """One that is open."""

    name: str
    labels: str
    summary: str

    @property
    def text(self) -> str:
        return f"{self.name}{f' ({self.labels})' if self.labels else ''}: {self.summary}"


class Sight:
    """Looks at one platform. Any thread may ask; one is served at a time."""

    def __init__(self, find: Find, *, timeout_s: float = PATIENCE_S) -> None:
        self._platform = Platform(find, patience_s=0.0, timeout_s=timeout_s)
        self._lock = threading.Lock()

    def figures(self) -> dict[str, float]:
        """Each of ``FIGURES`` that its metrics have; none at all while it can't be read."""
        try:
            with self._lock:
                text = self._platform.raw("GET", "/metrics").decode("utf-8", "replace")
        except (Unavailable, Rejected):
            return {}
        return numbers(text)

    def alerts(self) -> list[Alert]:
        """Those that are open, the oldest first.

        Raises:
            Unavailable: It can't be asked.
        """
        try:
            with self._lock:
                said = self._platform.call("GET", "/v1/alerts")
        except Rejected as error:
            raise Unavailable("the platform's alerts", str(error)) from error
        return [
            Alert(str(one["name"]), ", ".join(map(str, one.get("labels", {}).values())), str(one["summary"]))
            for one in said["items"]
        ]

    def api(self) -> dict[str, float]:
        """Whether a page that needs the store is answered within ``PATIENCE_S``, and how soon: what a person sees who
        opens the console."""
        began = time.monotonic()
        try:
            with self._lock:
                self._platform.call("GET", "/v1/runs?limit=50")
        except (Unavailable, Rejected):
            return {"api.ok_ratio": 0.0}
        return {"api.ok_ratio": 1.0, "api.answer_ms": (time.monotonic() - began) * 1000}

    def close(self) -> None:
        with self._lock:
            self._platform.close()


def numbers(text: str) -> dict[str, float]:
    """Figures out of a page of metrics, by the names of ``FIGURES``."""
    return dict(_figures(text))


def _figures(text: str) -> Iterator[tuple[str, float]]:
    lines: dict[str, list[tuple[str, float]]] = {}
    for line in text.splitlines():
        if not line.startswith("seawall_"):
            continue
        name, _, rest = line.partition("{") if "{" in line else line.partition(" ")
        labels, _, value = rest.rpartition("} ") if "{" in line else ("", "", rest)
        lines.setdefault(name, []).append((labels, float(value)))
    for word, figure in FIGURES.items():
        found = [value for labels, value in lines.get(figure.metric, []) if figure.label in labels]
        if found:
            yield word, figure.reduce(found)
