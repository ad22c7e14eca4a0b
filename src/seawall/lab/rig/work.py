"""What the platform's workflows say of their own work: how long after its event a run began, and how long it took.

Text, one JSON array a line, in a file of the rig's app, which the product never reads::

    ["began", lane, seconds since its event was accepted, at_us]
    ["ended", lane, seconds that it took, at_us]

So a lane that starves is seen by those who wait in it, and not only by the product's own figures.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict, deque
from collections.abc import Mapping
from pathlib import Path

KEEP_S = 30.0
LATELY_S = 5.0
READ_BYTES_MAX = 4 << 20
"""At one look: later ones read on."""


class Work:
    """One file, read on at each look. One thread asks at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._rest = b""
        self._first: dict[tuple[str, str], float] = {}
        self._seen: dict[tuple[str, str], deque[tuple[float, float]]] = defaultdict(deque)

    def sample(self) -> Mapping[str, float]:
        """For each lane that had some in the last ``LATELY_S``: ``begun.LANE_p99_s`` and ``took.LANE_mean_s``; and
        ``begun.LANE_rate`` from the moment on at which it has been there for so long: sooner it would be too small, and
        whatever is compared with it (`expect.becomes`) too large."""
        self._look()
        now = time.time()
        found: dict[str, float] = {}
        for (word, lane), values in self._seen.items():
            first = self._first.setdefault((word, lane), values[0][0])
            while values and values[0][0] < now - KEEP_S:
                values.popleft()
            lately = sorted(seconds for at, seconds in values if at >= now - LATELY_S)
            if word == "began" and first <= now - LATELY_S:
                found[f"begun.{lane}_rate"] = len(lately) / LATELY_S
            if not lately:
                continue
            if word == "began":
                found[f"begun.{lane}_p99_s"] = lately[min(len(lately) - 1, int(0.99 * len(lately)))]
            else:
                found[f"took.{lane}_mean_s"] = sum(lately) / len(lately)
        return found

    def _look(self) -> None:
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                data = file.read(READ_BYTES_MAX)
        except FileNotFoundError:
            return
        self._read += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            try:
                word, lane, seconds, at_us = json.loads(line)
                self._seen[str(word), str(lane)].append((int(at_us) / 1e6, float(seconds)))
            except (ValueError, TypeError):
                continue  # a crash tore it
