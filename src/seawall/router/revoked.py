"""Events that came in under a secret that had been revoked, or for a source that had been removed: they are held, and
somebody must be told.

Either a collector hadn't heard of the change yet, or whoever has the old secret tries it.
"""

from __future__ import annotations

from collections import OrderedDict

from seawall.kernel.alert import Alerts
from seawall.kernel.clock import Clock
from seawall.store.router import Event

ALERT = "accepted-under-revoked-secret"
SIGNED, REMOVED = REASONS = "signed with key", "its source had been removed"
"""How the reason of such a held event begins."""

QUIET_S = 900.0
"""The alert of a source ends when no more came for so long. Its events stay held."""

SOURCES_MAX = 100
"""Sources with an alert of their own at once; for more, the longest silent one's is ended early."""


class Revoked:
    """Raises and clears those alerts, one for each source."""

    def __init__(self, alerts: Alerts, clock: Clock) -> None:
        self._alerts = alerts
        self._clock = clock
        self._last: OrderedDict[str, float] = OrderedDict()  # by source: when it had one, the longest silent first

    def saw(self, event: Event) -> None:
        """An event was stored as held for that."""
        source = event.record.source
        what = f"events under secret {event.record.key_id}, which had been revoked"
        if event.reason == REMOVED:
            what = "events after it had been removed"
        self._last[source] = self._clock.monotonic()
        self._last.move_to_end(source)
        if len(self._last) > SOURCES_MAX:
            self._end(next(iter(self._last)))
        self._alerts.raised(
            ALERT, f"source {source} accepted {what}",
            unaffected="these events are held and nothing runs on them; all others go on",
            cure=f"seawall events list --source {source} --status held", source=source,
        )  # fmt: skip

    def rest(self) -> None:
        """Once in a while: end the alerts of sources that have been quiet."""
        oldest = self._clock.monotonic() - QUIET_S
        while self._last and next(iter(self._last.values())) < oldest:
            self._end(next(iter(self._last)))

    def _end(self, source: str) -> None:
        del self._last[source]
        self._alerts.cleared(ALERT, source=source)
