"""Says once what is damaged in a log, however often it is read."""

from __future__ import annotations

from collections.abc import Iterable

from seawall.guard.spell import Spells
from seawall.kernel.log import fields, logger
from seawall.kernel.seam.journal import Damage
from seawall.router.alarm import damaged
from seawall.router.meter import Meter

log = logger("router")

REPORTED_MAX = 1000
MISSING_SAID_S = 60.0
"""How long readiness tells of a missing segment. What comes after it is routed, so it isn't told for ever; the gauge
and the log keep it."""


def _said(damage: Damage) -> str:
    if damage.gone:
        return f"{damage.reason}: {damage.start_bytes} to {damage.end_bytes} is missing"
    return f"segment {damage.segment_id} is missing"


class DamageReport:
    """Damage of one log that was counted and logged already."""

    def __init__(self, log_name: str, meter: Meter, spells: Spells) -> None:
        self._spells = spells
        self._log_name = log_name
        self._meter = meter
        self._known: set[Damage] = set()
        self._missing: tuple[float, str] | None = None  # the newest: when it was found, and what

    def missing(self, now: float) -> str:
        """What was found missing in the last ``MISSING_SAID_S``; "" when none was."""
        if self._missing is None or now - self._missing[0] > MISSING_SAID_S:
            return ""
        return self._missing[1]

    def add(self, found: Iterable[Damage], now: float) -> None:
        """Count and log what is new at this monotonic time."""
        for damage in found:
            if damage in self._known or len(self._known) >= REPORTED_MAX:
                continue
            self._known.add(damage)
            self._meter.damage.value += 1
            if damage.gone or damage.end_bytes == 0:
                self._meter.missing.value += 1
                self._missing = (now, f"log {self._log_name}: {_said(damage)} and was passed")
            log.warning(
                "the journal is damaged; what is readable after it goes on",
                extra=fields(
                    log=self._log_name, segment=damage.segment_id, start=damage.start_bytes, end=damage.end_bytes,
                    reason=damage.reason,
                ),
            )  # fmt: skip
            missing = damage.gone or damage.end_bytes == 0
            said = _said(damage) if missing else f"segment {damage.segment_id} is damaged: {damage.reason}"
            damaged(self._spells, self._log_name, said)
