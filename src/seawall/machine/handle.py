"""What this process and this machine have left of two things that run out without a word: descriptors, and ports for
outgoing connections."""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path

from seawall.guard import Heart, Supervisor
from seawall.guard.patience import patiently
from seawall.kernel.clock import Clock
from seawall.kernel.metric import Metrics

EVERY_S = 10.0
BEAT_S = 1.0
TABLE_BYTES_MAX = 16 * 1024 * 1024
"""Of the kernel's table of sockets: some 100,000 of them. There are fewer ephemeral ports than that."""

PROC = "the kernel's tables in /proc"

TIME_WAIT = b"06"
LISTENS = b"0A"


class Handles:
    """Counts them, in a thread: the kernel's table of sockets takes milliseconds to read on a busy machine, and seconds
    on one that has no time left for it."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._clock = clock
        self._descriptors = metrics.gauge("seawall_descriptors_count", "Open descriptors of this process.")
        metrics.gauge("seawall_descriptors_max_count", "Descriptors that this process may have.").read = lambda: float(
            resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        )
        self._ports = {
            state: metrics.gauge(
                "seawall_ephemeral_ports_count", "Local ports of this machine's range for connections, in use.",
                state=state,
            )
            for state in ("open", "time_wait")
        }  # fmt: skip
        self._ports_max = metrics.gauge("seawall_ephemeral_ports_max_count", "Ports in that range.")

    def register(self, supervisor: Supervisor) -> None:
        supervisor.add("handles", self._run, essential=False)

    async def _run(self, heart: Heart) -> None:
        due = self._clock.monotonic()
        while True:
            if self._clock.monotonic() >= due:
                due = self._clock.monotonic() + EVERY_S
                await patiently(heart, asyncio.to_thread(self.read), what=PROC)
            await heart.beat()
            await asyncio.sleep(BEAT_S)

    def read(self, proc: Path = Path("/proc")) -> None:
        """Count now. What this system doesn't tell stays as it was."""
        try:
            listed = sum(1 for _ in (proc / "self" / "fd").iterdir())
            self._descriptors.value = listed - 1  # without the one that lists them
            first, last = map(int, (proc / "sys/net/ipv4/ip_local_port_range").read_text().split())
            tables = [_table(proc / "net" / name) for name in ("tcp", "tcp6")]
        except (OSError, ValueError):
            return
        self._ports_max.value = last - first + 1
        used: dict[str, set[int]] = {"open": set(), "time_wait": set()}
        for line in (line for table in tables for line in table.splitlines()[1:]):
            fields = line.split(None, 4)
            if len(fields) < 4 or fields[3] == LISTENS:
                continue
            port = int(fields[1].rpartition(b":")[2], 16)
            if first <= port <= last:
                used["time_wait" if fields[3] == TIME_WAIT else "open"].add(port)
        for state, ports in used.items():
            self._ports[state].value = len(ports)


def _table(path: Path) -> bytes:
    """All whole lines; b"" where there is no such protocol."""
    try:
        with path.open("rb") as file:
            text = file.read(TABLE_BYTES_MAX)
    except FileNotFoundError:
        return b""
    return text[: text.rfind(b"\n")]
