"""Measures how loaded this process is, and lets its shed list look at it, every half second."""

from __future__ import annotations

import asyncio
from pathlib import Path

from seawall.guard.shed import ShedList, Signal
from seawall.guard.supervisor import Heart, Supervisor
from seawall.kernel.clock import Clock
from seawall.kernel.metric import Metrics

EVERY_S = 0.5
LOOP_LAG = "loop-lag"
MEMORY = "memory"
STORE_POOL = "store-pool"

LAG_HIGH_S, LAG_LOW_S = 0.25, 0.05
MEMORY_HIGH, MEMORY_LOW = 0.95, 0.85


class Pressure:
    """The loop that looks. Adds two signals that every process has: how late its event loop is, and how much of the
    memory that it may use is used.

    Args:
        memory: Where Linux tells of memory; elsewhere that signal is always low.
    """

    def __init__(
        self, shed: ShedList, *, clock: Clock, metrics: Metrics, memory: Path = Path("/proc/meminfo"),
        limits: Path = Path("/sys/fs/cgroup"),
    ) -> None:  # fmt: skip
        self._shed = shed
        self._clock = clock
        self._memory = memory
        self._limits = limits
        self._lag_s = self._used = 0.0
        metrics.gauge("seawall_loop_lag_seconds", "How late the event loop was lately.").read = lambda: self._lag_s
        shed.watch(Signal(name=LOOP_LAG, read=lambda: self._lag_s, high=LAG_HIGH_S, low=LAG_LOW_S))
        shed.watch(Signal(name=MEMORY, read=lambda: self._used, high=MEMORY_HIGH, low=MEMORY_LOW))

    def register(self, supervisor: Supervisor) -> None:
        """Add the loop."""
        supervisor.add("shed", self._run, essential=False)

    async def _run(self, heart: Heart) -> None:
        while True:
            due = self._clock.monotonic() + EVERY_S
            await asyncio.sleep(EVERY_S)
            self._lag_s = max(0.0, self._clock.monotonic() - due)
            self._used = used_memory(self._memory, self._limits)
            self._shed.look()
            await heart.beat()


def used_memory(memory: Path, limits: Path) -> float:
    """The used part of the memory that this process may have, 0 to 1: of its control group where that has a limit, else
    of the machine. What can be given back at once (caches) counts as free. 0.0 where nobody tells."""
    try:
        limit = (limits / "memory.max").read_text().strip()
        if limit.isdigit():
            used = int((limits / "memory.current").read_text())
            stat = dict(line.split() for line in (limits / "memory.stat").read_text().splitlines())
            return max(0, used - int(stat.get("inactive_file", 0))) / max(1, int(limit))
    except (OSError, ValueError):
        pass  # no version 2 control group here: the machine's own numbers are what counts
    try:
        told = dict(line.split(":", 1) for line in memory.read_text().splitlines())
        return 1 - int(told["MemAvailable"].split()[0]) / int(told["MemTotal"].split()[0])
    except (OSError, ValueError, KeyError, IndexError):
        return 0.0
