"""Says once what is damaged in a log, however often it is read."""

from __future__ import annotations

from collections.abc import Iterable

from seawall.kernel.log import fields, logger
from seawall.kernel.seam.journal import Damage
from seawall.router.meter import Meter

log = logger("router")

REPORTED_MAX = 1000


class DamageReport:
    """Damage of one log that was counted and logged already."""

    def __init__(self, log_name: str, meter: Meter) -> None:
        self._log_name = log_name
        self._meter = meter
        self._known: set[Damage] = set()

    def add(self, found: Iterable[Damage]) -> None:
        """Count and log what is new."""
        for damage in found:
            if damage in self._known or len(self._known) >= REPORTED_MAX:
                continue
            self._known.add(damage)
            self._meter.damage.value += 1
            log.error(
                "the journal is damaged; what is readable after it goes on",
                extra=fields(
                    log=self._log_name, segment=damage.segment_id, start=damage.start_bytes, end=damage.end_bytes,
                    reason=damage.reason,
                ),
            )  # fmt: skip
