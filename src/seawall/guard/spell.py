"""Alerts of what happens rather than lasts: a record that becomes a dead letter, a process that died.

Nothing tells when such a thing is over. So its alert is raised when it happens, stays while it goes on happening, and
is cleared when it hasn't happened for a while: one spell, one alert, however often.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from seawall.kernel.alert import Alerts
from seawall.kernel.clock import Clock

QUIET_S = 900.0
"""Long enough for somebody to look."""

MOST = 100
"""Alerts of one kind at once, where senders choose the labels; for one more, the longest silent is ended early."""


@dataclass(slots=True)
class _Spell:
    name: str
    labels: dict[str, str]
    ends_at: float  # monotonic


class Spells:
    """Raises and clears such alerts. ``rest`` must be called once in a while."""

    def __init__(self, alerts: Alerts, clock: Clock) -> None:
        self._alerts = alerts
        self._clock = clock
        self._spells: dict[str, OrderedDict[tuple[str, ...], _Spell]] = {}

    def saw(
        self, name: str, summary: str, *, unaffected: str = "", cure: str = "", quiet_s: float = QUIET_S, **labels: str
    ) -> None:
        """It happened (again).

        Args:
            name: Of the alert; its label *names* are always the same.
            quiet_s: It is over when it hasn't happened for so long. What goes on by itself says so every few seconds,
                and needs less.
        """
        spells = self._spells.setdefault(name, OrderedDict())
        key = tuple(labels.values())
        spells[key] = _Spell(name, labels, self._clock.monotonic() + quiet_s)
        spells.move_to_end(key)
        if len(spells) > MOST:
            self._end(spells.popitem(last=False)[1])
        self._alerts.raised(name, summary, unaffected=unaffected, cure=cure, **labels)

    def rest(self) -> None:
        """End those that are over."""
        now = self._clock.monotonic()
        for spells in self._spells.values():
            for key in [key for key, spell in spells.items() if spell.ends_at <= now]:
                self._end(spells.pop(key))

    def _end(self, spell: _Spell) -> None:
        self._alerts.cleared(spell.name, **spell.labels)
