"""How long the machine kept a test from running: what a bound on a latency must not be blamed for.

The kernel counts, for each thread, the time in which it could have run and another had the core. Code of ours that
blocks the event loop, or waits where it shouldn't, adds nothing to it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path


class Stopwatch:
    """Time since it was made, in the thread that made it.

    Args:
        pids: Other processes that what is measured waits for.
    """

    def __init__(self, pids: Iterable[int] = ()) -> None:
        self._pids = tuple(pids)
        self._began, self._before_s = time.monotonic(), stalled_s(self._pids)

    @property
    def wall_s(self) -> float:
        """By the clock: for what must take at least so long."""
        return time.monotonic() - self._began

    @property
    def s(self) -> float:
        """Without what the machine took: for what may take at most so long."""
        return self.wall_s - self.stalled_s

    @property
    def stalled_s(self) -> float:
        """What the machine took."""
        return stalled_s(self._pids) - self._before_s


def stalled_s(pids: Iterable[int] = ()) -> float:
    """Seconds since they began that this thread, and the main threads of other processes, waited for a core.

    0 where the kernel doesn't say. Source: Linux, Documentation/scheduler/sched-stats.rst, the second of the figures.
    """
    return sum(_delay_s(Path("/proc") / each / "schedstat") for each in ("thread-self", *map(str, pids)))


def _delay_s(file: Path) -> float:
    try:
        return int(file.read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0
