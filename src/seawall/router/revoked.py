"""Events that came in under a secret that had been revoked, or for a source that had been removed: they are held, and
somebody must be told.

Either a collector hadn't heard of the change yet, or whoever has the old secret tries it.
"""

from __future__ import annotations

from seawall.guard.spell import Spells
from seawall.store.router import Event

ALERT = "accepted-under-revoked-secret"
SIGNED, REMOVED = REASONS = "signed with key", "its source had been removed"
"""How the reason of such a held event begins."""


class Revoked:
    """Tells of those events: one alert for each source, while there are such events. They stay held after it."""

    def __init__(self, spells: Spells) -> None:
        self._spells = spells

    def saw(self, event: Event) -> None:
        """An event was stored as held for that."""
        source = event.record.source
        what = f"events under secret {event.record.key_id}, which had been revoked"
        if event.reason == REMOVED:
            what = "events after it had been removed"
        self._spells.saw(
            ALERT, f"source {source} accepted {what}",
            unaffected="these events are held and nothing runs on them; all others go on",
            cure=f"seawall events list --source {source} --status held", source=source,
        )  # fmt: skip
