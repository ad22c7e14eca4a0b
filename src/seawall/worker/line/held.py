"""Has runs count no more that were held when they had been let in and nobody had begun them.

A run may be held while a refill has read it and hasn't said so yet. So it goes on to count under its limits until the
refills of then have ended, and none of them has it.
"""

from __future__ import annotations

from collections.abc import Iterable

from seawall.store import line
from seawall.store.earlier import refills_passed
from seawall.store.pool import Store

KEYS_MAX = 1000
"""Keys of one workflow that are remembered; those that stay full are met again."""

RUNS_MAX = 1000
TIMEOUT_S = 2.0


class HeldRuns:
    """Those among whom limits have no room."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._full: dict[str, dict[bytes, None]] = {}  # by workflow

    def full(self, name: str, keys: Iterable[bytes]) -> None:
        """There was no room under these keys of a workflow."""
        known = self._full.setdefault(name, {})
        for key in keys:
            if len(known) < KEYS_MAX:
                known[key] = None

    async def work(self, name: str, *, keys_max: int) -> list[bytes]:
        """Look through some of those keys; returns them when there is room under some.

        Raises:
            Unavailable, Uncertain: Safe to repeat.
        """
        known = self._full.get(name, {})
        keys = [key for key, _ in zip(known, range(keys_max), strict=False)]
        for key in keys:
            del known[key]
        if not keys:
            return []
        ids = await line.held(self._store, keys, runs_max=RUNS_MAX)
        if not ids or not await refills_passed(self._store, timeout_s=TIMEOUT_S):
            return []
        return keys if await line.put_down(self._store, ids) else []
