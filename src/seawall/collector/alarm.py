"""Alerts of what the collector knows of sources: too old, not to be read, not on disk, or of no use for one of them.

While the store is away, intake goes on without it, and nobody who sends would notice anything. So the platform's people
are told by the process itself. Looked at once a second, and it changes nothing.
"""

from __future__ import annotations

import asyncio

from seawall.collector.setting import Settings
from seawall.collector.snapshot import Snapshot
from seawall.guard import Heart, Supervisor
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import Clock

EVERY_S = 1.0
SOURCES_MAX = 100
"""Sources with an alert of their own at once, the first ones by name; each that can't be served is in the log."""

STALE, UNREADABLE, UNWRITTEN = "snapshot-stale", "snapshot-unreadable", "snapshot-unwritten"
UNSERVABLE = "source-unservable"


class SnapshotAlarm:
    """Raises and clears them. ``settings`` may be replaced at any time."""

    def __init__(self, settings: Settings, snapshot: Snapshot, *, alerts: Alerts, clock: Clock) -> None:
        self.settings = settings
        self._snapshot = snapshot
        self._alerts = alerts
        self._clock = clock
        self._began = clock.monotonic()
        self._looked_at = 0  # the snapshot's ``taken`` as of the last look at its sources
        self._unservable: set[str] = set()  # names with an alert

    def register(self, supervisor: Supervisor) -> None:
        """Add the loop. Intake doesn't depend on it."""
        supervisor.add("collector.alarm", self._run, essential=False)

    def look(self) -> None:
        """Compare what is raised with what is."""
        self._look_at_age()
        self._look_at_copy()
        if self._looked_at != self._snapshot.taken:  # there may be many sources, and they change seldom
            self._looked_at = self._snapshot.taken
            self._look_at_sources()

    async def _run(self, heart: Heart) -> None:
        while True:
            self.look()
            await heart.beat()
            await asyncio.sleep(EVERY_S)

    def _look_at_age(self) -> None:
        # In a process that has just begun the store has confirmed nothing yet, and that alone is no news.
        age_s = min(self._snapshot.age_s(), self._clock.monotonic() - self._began)
        if age_s <= self.settings.stale_s:
            self._alerts.cleared(STALE)
            return
        if self._snapshot.known:
            summary = (
                f"the store hasn't confirmed the sources for {age_s:.0f} s: what has changed since isn't known here"
            )
            unaffected = "events of known sources are accepted; what would be refused is answered 503"
        else:
            summary = (
                f"no source is known, as the store hasn't answered for {age_s:.0f} s: all senders are answered 503"
            )
            unaffected = ""
        self._alerts.raised(STALE, summary, unaffected=unaffected, cure="bring the store back: seawall doctor")

    def _look_at_copy(self) -> None:
        if why := self._snapshot.unreadable:
            self._alerts.raised(
                UNREADABLE, f"the sources' copy on disk can't be read ({why}), and the store hasn't given them yet: all"
                " senders are answered 503",
                cure="bring the store back: it has them all, and the copy is written anew",
            )  # fmt: skip
        else:
            self._alerts.cleared(UNREADABLE)
        if why := self._snapshot.copy.trouble:
            self._alerts.raised(
                UNWRITTEN, f"the newest sources aren't in their copy on disk ({why}): a restart while the store is away"
                " wouldn't know them",
                unaffected="accepting events",
                cure=f"make {self._snapshot.copy.file} writable; it is tried again by itself",
            )  # fmt: skip
        else:
            self._alerts.cleared(UNWRITTEN)

    def _look_at_sources(self) -> None:
        told = dict(sorted(self._snapshot.troubles.items())[:SOURCES_MAX])
        for name in self._unservable - told.keys():
            self._alerts.cleared(UNSERVABLE, source=name)
        self._unservable = set(told)
        for name, why in told.items():
            self._alerts.raised(
                UNSERVABLE, f"source {name} can't be served, or not in full: {why}; what isn't taken is answered 503",
                source=name, unaffected="all other sources",
                cure="mend what it says; for a secret, put back the key that it was sealed under, or"
                f" seawall source rotate {name}",
            )  # fmt: skip
