"""How many runs a worker has in hand while somebody waits for one of them.

Runs that do nothing but wait for each other's commits make these long: a thousand of them 25 ms, and a run that
somebody waits for stands in two of those (bench/drain.py). Fewer in hand are committed more often, for some of the
rate. So it is done only while somebody waits, and only where a commit takes long for what is in it: to a store that is
far away each takes the same, and fewer at once would only be fewer.
"""

from __future__ import annotations

ASKED_S = 5.0
"""For so long after a run began that somebody waits for, the next one is expected."""

SLOW = 4.0
"""A commit takes so many times what the quickest takes: what is in it is why."""

LEAST = 0.2
"""Share of the slots that is left in any case."""

CUT, RAISE = 0.8, 1.05
"""Factors for each commit; as a sender of TCP Vegas finds its window, by times and not by losses (Brakmo, 1995)."""

KNOWN_S = 300.0
"""The quickest commit counts for so long, and up to twice."""


class Width:
    """Told of each commit, and of each run that somebody waits for. Times are monotonic, in seconds."""

    def __init__(self) -> None:
        self._share = 1.0
        self._asked_at = -ASKED_S
        self._quick_s = self._before_s = float("inf")
        self._since = 0.0

    def committed(self, began: float, *, now: float) -> None:
        """A commit of any size has ended."""
        took_s = now - began
        if now - self._since > KNOWN_S:
            self._since, self._before_s, self._quick_s = now, self._quick_s, took_s
        self._quick_s = min(self._quick_s, took_s)
        slow = took_s > SLOW * min(self._quick_s, self._before_s)
        self._share = max(LEAST, self._share * CUT) if slow else min(1.0, self._share * RAISE)

    def asked(self, *, now: float) -> None:
        """A run begins that somebody waits for."""
        self._asked_at = now

    def most(self, slots: int, *, now: float) -> int:
        """How many of so many slots may hold runs that wait for commits."""
        if self._share == 1.0 or now - self._asked_at > ASKED_S:
            return slots
        return max(1, round(slots * self._share))
