"""An alert is told once when it begins and once when it ends, and what is wrong now can be listed."""

from __future__ import annotations

import logging

import pytest

from seawall.kernel.alert import ACTIVE_MAX, Alert, Alerts
from seawall.kernel.metric import Metrics
from seawall.testing import ManualClock


class Rig:
    def __init__(self) -> None:
        self.clock, self.metrics = ManualClock(), Metrics()
        self.heard: list[tuple[str, bool]] = []
        self.alerts = Alerts(self.metrics, self.clock, heard=self._hear)

    def _hear(self, alert: Alert, raised: bool) -> None:
        self.heard.append((alert.name, raised))

    def count(self, name: str) -> float:
        return self.metrics.gauge("seawall_alerts_active_count", "", alert=name).now()


def test_it_is_told_at_its_beginning_and_its_end_only(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "seawall")
    rig = Rig()
    for _ in range(3):
        rig.alerts.raised("breaker-open", "redis is away", breaker="redis")
    assert rig.count("breaker-open") == 1
    rig.clock.advance(5)
    for _ in range(3):
        rig.alerts.cleared("breaker-open", breaker="redis")
    assert rig.heard == [("breaker-open", True), ("breaker-open", False)]
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert caplog.records[1].seawall["lasted_s"] == 5.0  # type: ignore[attr-defined]
    assert rig.count("breaker-open") == 0


def test_labels_tell_two_apart_and_the_oldest_is_listed_first() -> None:
    rig = Rig()
    rig.alerts.raised("breaker-open", "redis is away", breaker="redis")
    rig.clock.advance(1)
    rig.alerts.raised("breaker-open", "geo is away", breaker="geo")
    rig.clock.advance(1)
    rig.alerts.raised("breaker-open", "redis is still away", breaker="redis")
    assert [(a.labels["breaker"], a.summary) for a in rig.alerts.active()] == [
        ("redis", "redis is still away"), ("geo", "geo is away"),
    ]  # fmt: skip
    rig.alerts.cleared("breaker-open", breaker="redis")
    assert [a.labels["breaker"] for a in rig.alerts.active()] == ["geo"]


def test_their_number_is_bounded_and_what_is_dropped_is_counted() -> None:
    rig = Rig()
    for number in range(ACTIVE_MAX + 5):
        rig.alerts.raised("over-limit", "too much", source=str(number))
    assert len(rig.alerts.active()) == ACTIVE_MAX == rig.count("over-limit")
    rig.alerts.cleared("over-limit", source=str(ACTIVE_MAX + 1))
    assert rig.count("over-limit") == ACTIVE_MAX
