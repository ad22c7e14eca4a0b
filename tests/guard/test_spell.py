"""What happens again and again is one alert, and it ends when it has been quiet."""

from __future__ import annotations

from seawall.guard.spell import MOST, QUIET_S, Spells
from seawall.kernel.alert import Alert, Alerts
from seawall.kernel.metric import Metrics
from seawall.testing import ManualClock


def test_one_spell_is_one_alert_with_the_newest_words_and_ends_after_quiet() -> None:
    clock, heard = ManualClock(), list[tuple[Alert, bool]]()
    alerts = Alerts(Metrics(), clock, heard=lambda alert, raised: heard.append((alert, raised)))
    spells = Spells(alerts, clock)
    for number in range(5):
        spells.saw("dead-letters", f"record {number}", log="c1")
        clock.advance(QUIET_S - 1)
        spells.rest()
    assert [alert.summary for alert in alerts.active()] == ["record 4"]
    clock.advance(2)
    spells.rest()
    assert not alerts.active()
    assert [raised for _, raised in heard] == [True, False]


def test_each_label_has_a_spell_of_its_own_and_its_own_quiet() -> None:
    clock = ManualClock()
    alerts = Alerts(Metrics(), clock)
    spells = Spells(alerts, clock)
    spells.saw("journal-unreadable", "disk", quiet_s=30, log="c1")
    spells.saw("journal-unreadable", "disk", log="c2")
    clock.advance(31)
    spells.rest()
    assert [alert.labels for alert in alerts.active()] == [{"log": "c2"}]


def test_labels_in_numbers_do_not_fill_the_memory() -> None:
    clock = ManualClock()
    alerts = Alerts(Metrics(), clock)
    spells = Spells(alerts, clock)
    for number in range(MOST + 50):
        spells.saw("run-dead", "x", workflow=f"w{number}")
        clock.advance(1)
    assert len(alerts.active()) == MOST
    assert alerts.active()[0].labels == {"workflow": "w50"}
