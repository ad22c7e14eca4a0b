"""Where to look for runs that may be let in: lines that changed, and those whose time comes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

REMEMBERED_MAX = 10_000
"""Lines of one workflow, and times, that are remembered at once; others are found by looking through all."""


class Looks:
    """What is to be looked at, by workflow. Losing any of it costs time, never a run."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self._lines: dict[str, dict[bytes, None]] = {}  # in the order in which they are looked at
        self._due: dict[tuple[str, bytes], float] = {}  # lines of rates, by when to look, monotonic

    def add(self, name: str, keys: Iterable[bytes]) -> None:
        """Look at these lines of a workflow."""
        lines = self._lines.setdefault(name, {})
        for key in keys:
            if len(lines) < REMEMBERED_MAX:
                lines[key] = None
        self.wake.set()

    def at(self, name: str, key: bytes, when: float) -> None:
        """Look at a line when its time has come."""
        if len(self._due) < REMEMBERED_MAX:
            self._due[name, key] = when

    def name(self, now: float) -> str | None:
        """A workflow with lines to look at; None: there is none."""
        for place in [place for place, at in self._due.items() if at <= now]:
            del self._due[place]
            self.add(place[0], (place[1],))
        return next((name for name, lines in self._lines.items() if lines), None)

    def take(self, name: str, most: int) -> list[bytes]:
        """The next of a workflow's lines; other workflows come first from now on."""
        lines = self._lines.pop(name)
        chosen = [key for key, _ in zip(lines, range(most), strict=False)]
        for key in chosen:
            del lines[key]
        self._lines[name] = lines
        return chosen

    def next_s(self, now: float) -> float:
        """Until the next time comes; infinity when there is none."""
        return min(self._due.values(), default=float("inf")) - now
