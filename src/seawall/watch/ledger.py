"""Whether what was accepted is what was routed: counted by two processes that know nothing of each other.

A collector counts what it made durable, the router what it stored. Their difference is what is in flight. When the
router says that it has read everything, nothing is, but the events of the last seconds; a difference that stays beyond
that is events that nobody routed. Without I/O or a clock.

Both count from their process's start, so only changes mean something: a restart, or a log that is read again, begins a
new account.
"""

from __future__ import annotations

from dataclasses import dataclass

from seawall.watch.verdict import Finding, Verdict

CAUGHT_UP_S = 3.0
"""A router whose oldest unread record is younger has read everything but what comes right now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """What the two processes say, the collector asked first."""

    durable: float
    handled: float  # stored, or collapsed into another event
    reread: float
    lag_s: float


class Account:
    """One machine's account."""

    def __init__(self) -> None:
        self._last: Count | None = None
        self._least: float | None = None  # the smallest difference while the router had caught up

    def step(self, count: Count | None) -> Finding:
        """Judge one look; None: one of the two couldn't be asked."""
        last, self._last = self._last, count
        if count is None:
            return Finding(verdict=Verdict.UNKNOWN)
        if last is None or _anew(last, count):
            self._least = None
            return Finding(verdict=Verdict.UNKNOWN)
        if count.lag_s > CAUGHT_UP_S:
            return Finding(verdict=Verdict.UNKNOWN)
        difference = count.durable - count.handled
        self._least = difference if self._least is None else min(self._least, difference)
        fresh = count.durable - last.durable  # since the last look: they may be in flight
        missing = difference - self._least - fresh
        if missing <= 0:
            return Finding(verdict=Verdict.FINE)
        return Finding(
            verdict=Verdict.BAD,
            summary=f"{missing:.0f} accepted events weren't routed, though the router has read everything",
            unaffected="accepting events; they are in the journal",
            cure="seawall journal verify; restart the router, which reads on from its position",
        )


def _anew(before: Count, now: Count) -> bool:
    return now.durable < before.durable or now.handled < before.handled or now.reread != before.reread
