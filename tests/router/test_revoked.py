"""The alert of events that came in under a revoked secret: one for each source, and it ends."""

from __future__ import annotations

from router.rig import record
from seawall.guard.spell import MOST, QUIET_S, Spells
from seawall.kernel.alert import Alerts
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.journal import Position
from seawall.kernel.status import EventStatus
from seawall.router.revoked import Revoked
from seawall.store.router import Event
from seawall.testing import ManualClock

AT = Position(log_id=bytes(16), segment_id=0, offset_bytes=0)


def held(source: str) -> Event:
    return Event(record=record(source=source, key_id=1), at=AT, type="x", status=EventStatus.HELD, reason="r")


def test_it_ends_when_its_source_has_been_quiet() -> None:
    clock = ManualClock()
    alerts = Alerts(Metrics(), clock)
    spells = Spells(alerts, clock)
    revoked = Revoked(spells)
    revoked.saw(held("a"))
    clock.advance(QUIET_S / 2)
    revoked.saw(held("b"))
    revoked.saw(held("b"))
    clock.advance(QUIET_S / 2 + 1)
    spells.rest()
    assert [alert.labels["source"] for alert in alerts.active()] == ["b"]
    revoked.saw(held("b"))
    clock.advance(QUIET_S / 2)
    spells.rest()
    assert len(alerts.active()) == 1
    clock.advance(QUIET_S)
    spells.rest()
    assert alerts.active() == []


def test_a_sender_of_many_sources_does_not_fill_the_memory() -> None:
    clock = ManualClock()
    alerts = Alerts(Metrics(), clock)
    spells = Spells(alerts, clock)
    revoked = Revoked(spells)
    for n in range(MOST + 50):
        revoked.saw(held(f"s{n}"))
    assert len(alerts.active()) == MOST
