"""When a rule's finding becomes an alert, and when that is over. Without I/O or a clock: told what was seen, and when.

A value that is bad for a moment is no alert, and one that is fine for a moment is no end of it. Between bad and fine is
a range in which nothing changes: a value that stays around its limit raises one alert, not a hundred.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from seawall.kernel.alert import Alerts

GAP_S = 30.0
"""Looks that are further apart say nothing of the time between them."""

MOST = 500
"""Findings of one rule that are followed at once; beyond, the first by name."""


class Verdict(Enum):
    """What one look found."""

    BAD = "bad"
    BETWEEN = "between"  # neither bad enough to raise, nor good enough to clear
    FINE = "fine"
    UNKNOWN = "unknown"  # it couldn't be looked at: absent data is never "fine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a rule says of one thing."""

    verdict: Verdict
    summary: str = ""
    unaffected: str = ""
    cure: str = ""


@dataclass(slots=True)
class Patience:
    """The state of one finding.

    Args:
        for_s: It is raised when it was bad for so long, without having been fine.
        clear_s: It is cleared when it was fine for so long, without a break.
    """

    for_s: float
    clear_s: float
    raised: bool = False
    _bad_since: float | None = None
    _fine_since: float | None = None
    _looked_at: float | None = None

    def step(self, verdict: Verdict, now: float) -> bool | None:
        """True: raise it now; False: clear it now; None: nothing changes."""
        if self._looked_at is not None and now - self._looked_at > max(GAP_S, self.for_s, self.clear_s):
            self._bad_since = self._fine_since = None
        if verdict is Verdict.UNKNOWN:
            return None
        self._looked_at = now
        if verdict is Verdict.FINE:
            self._bad_since = None
            self._fine_since = now if self._fine_since is None else self._fine_since
            if self.raised and now - self._fine_since >= self.clear_s:
                self.raised = False
                return False
            return None
        self._fine_since = None
        if verdict is Verdict.BAD:
            self._bad_since = now if self._bad_since is None else self._bad_since
            if not self.raised and now - self._bad_since >= self.for_s:
                self.raised = True
                return True
        return None


@dataclass(slots=True)
class Rule:
    """One alert's name, and all things that it is about, by the value of its one label.

    Args:
        label: Name of the label; "": it is about one thing only, called "".
    """

    name: str
    for_s: float
    clear_s: float
    label: str = ""
    _things: dict[str, Patience] = field(default_factory=dict)

    def apply(self, found: Mapping[str, Finding], alerts: Alerts, now: float) -> None:
        """Raise and clear alerts. What isn't there any more is over."""
        for thing in sorted(found)[:MOST]:
            finding = found[thing]
            state = self._things.setdefault(thing, Patience(self.for_s, self.clear_s))
            change = state.step(finding.verdict, now)
            if change is False:
                alerts.cleared(self.name, **self._labels(thing))
            elif state.raised and finding.verdict is Verdict.BAD:  # also to renew its text
                alerts.raised(
                    self.name, finding.summary, unaffected=finding.unaffected, cure=finding.cure, **self._labels(thing)
                )
        for thing in self._things.keys() - found.keys():
            if self._things.pop(thing).raised:
                alerts.cleared(self.name, **self._labels(thing))

    def is_raised(self, thing: str) -> bool:
        """Whether there is an alert about it."""
        state = self._things.get(thing)
        return state is not None and state.raised

    def end(self, alerts: Alerts) -> None:
        """Clear all of it: somebody else looks from now on."""
        self.apply({}, alerts, 0.0)

    def _labels(self, thing: str) -> dict[str, str]:
        return {self.label: thing} if self.label else {}
