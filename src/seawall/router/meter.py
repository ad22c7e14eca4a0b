"""The router's numbers."""

from __future__ import annotations

from seawall.kernel.metric import Metrics
from seawall.kernel.status import EventStatus
from seawall.router.revoked import REASONS, Revoked
from seawall.store.router import Kept, Writes


class Meter:
    """Counters of one router."""

    def __init__(self, metrics: Metrics, revoked: Revoked) -> None:
        self._revoked = revoked
        counter = metrics.counter
        self.batches = counter("seawall_router_batches_total", "Transactions that the router committed.")
        self.runs = counter("seawall_router_runs_total", "Runs that the router created.")
        self.duplicates = counter("seawall_router_duplicates_total", "Events that were collapsed into an earlier one.")
        self.reread = counter("seawall_router_reread_total", "Records read again that were stored before.")
        self.fenced = counter("seawall_router_fenced_total", "Batches dropped since another router moved the position.")
        self.refused = counter("seawall_router_refused_total", "Batches that the store refused for a value in them.")
        self.damage = counter("seawall_router_damage_total", "Damaged ranges of the journal that reading passed.")
        self.missing = metrics.gauge(
            "seawall_router_missing_segments_count",
            "Journal segments, or stretches of a partition, that were missing when reading came to them, since this "
            "router began.",
        )
        self.anew = counter(
            "seawall_router_begun_anew_total",
            "Times that a log wasn't what its position says (put back from a copy, two copies, made anew, gone back) "
            "and was read again.",
        )
        self.went_back = counter(
            "seawall_router_went_back_total",
            "Times that a partition had lost records which were read of it, and was read again.",
        )
        self.splits = counter("seawall_router_splits_total", "Times that fresh records were put before a backlog.")
        self.forgotten = counter("seawall_router_forgotten_total", "Journal segments deleted after they were routed.")
        self._events = {
            status: counter("seawall_router_events_total", "Events that the router stored.", status=status.name.lower())
            for status in (EventStatus.ROUTED, EventStatus.HELD, EventStatus.CONFLICT, EventStatus.DEAD)
        }

    def kept(self, writes: Writes, kept: Kept) -> None:
        """Count a committed batch."""
        self.batches.value += 1
        self.runs.value += kept.runs
        self.duplicates.value += kept.duplicates
        self.reread.value += len(writes.events) - kept.events + len(writes.duplicates) - kept.duplicates + writes.passed
        for event in writes.events:
            self._events[event.status].value += 1
            if event.status is EventStatus.HELD and (event.reason or "").startswith(REASONS):
                self._revoked.saw(event)
