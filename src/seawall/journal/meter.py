"""The numbers of one log."""

from __future__ import annotations

from collections.abc import Callable

from seawall.journal.recovery import Recovered
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics

log = logger("journal")


class Meter:
    """Counts what one log takes, refuses and finds; one addition per batch, not per record."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self._metrics = metrics
        self._name = name
        counter, gauge = metrics.counter, metrics.gauge
        self._records = counter("seawall_journal_records_total", "Records made durable.", journal=name)
        self._bytes = counter("seawall_journal_bytes_total", "Bytes of records made durable.", journal=name)
        self._syncs = counter("seawall_journal_syncs_total", "Batches written, one sync each.", journal=name)
        self._seconds = counter("seawall_journal_sync_seconds_total", "Time spent in syncs.", journal=name)
        self._last_s = gauge("seawall_journal_sync_seconds", "How long the last sync took.", journal=name)
        self.refused = counter("seawall_journal_refused_total", "Records refused, none of them kept.", journal=name)
        self._torn = counter("seawall_journal_torn_bytes_total", "Bytes cut from a torn tail at a start.", journal=name)
        self._damaged = counter("seawall_journal_damage_total", "Damaged ranges found at a start.", journal=name)

    def watch(self, records: Callable[[], float], size_bytes: Callable[[], float]) -> None:
        """Show the queue."""
        gauge = self._metrics.gauge
        gauge("seawall_journal_queue_records", "Records waiting for a batch.", journal=self._name).read = records
        gauge("seawall_journal_queue_bytes", "Bytes waiting for a batch.", journal=self._name).read = size_bytes

    def landed(self, records: int, size_bytes: int, sync_s: float) -> None:
        """A batch is durable."""
        self._records.value += records
        self._bytes.value += size_bytes
        self._syncs.value += 1
        self._seconds.value += sync_s
        self._last_s.value = sync_s

    def recovered(self, found: Recovered) -> None:
        """What a start found: a torn tail is normal after a crash, damage is not."""
        self._torn.value += found.torn_bytes
        self._damaged.value += len(found.damage)
        if found.torn_bytes:
            log.warning("a torn tail was cut and kept", extra=fields(journal=self._name, bytes=found.torn_bytes))
        for part in found.damage:
            log.warning(
                "the journal is damaged",
                extra=fields(
                    journal=self._name, segment=part.segment_id, start=part.start_bytes, end=part.end_bytes,
                    reason=part.reason,
                ),
            )  # fmt: skip
