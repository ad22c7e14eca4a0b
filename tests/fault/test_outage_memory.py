"""An outage may last: what a collector holds of it must not grow with it (incident I4).

bench/cluster.py measures two minutes of the same. Here it is ten, of the whole platform on real parts.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import pytest
from outage_rig import Rig, Sender

from seawall.lab.part.fault import Fault
from seawall.lab.platform import Platform
from seawall.testing.postgres import PostgresServer

pytestmark = [pytest.mark.parts, pytest.mark.soak]

RATE = 500.0
OUTAGE_S = 600.0
SETTLED_S = 150.0
"""Until then the recent dedupe keys fill up, which are bounded by their number (50,000)."""

SLOPE_MAX = 1.0
"""MiB a minute: 35 bytes for each event."""

BURST_S = 3.0
"""After the machine kept sender and collector from running, what has come meanwhile is handled at once, and the memory
that this takes once stays with the process. Growth within so many seconds of that isn't the outage's."""


def test_memory_stands_still_in_ten_minutes_without_kafka_and_redis(_prepared: PostgresServer, tmp_path: Path) -> None:
    with PostgresServer(prepared=_prepared) as store, Rig(tmp_path, store) as rig, Platform(rig.tree.place) as platform:
        sender = Sender(platform, tmp_path / "ledger", seed=0, rate=RATE)
        with sender, rig.broken([*rig.kafka.brokers, *rig.redis.servers], Fault(kind="hole")):
            pid = rig.tree.pid("collector")
            assert pid is not None
            seen, bursts = _rss_mib(pid, sender)
            assert rig.tree.pid("collector") == pid, "the collector lived through it"
        assert set(sender.told().statuses) == {202}, sender.told().statuses
    slope = statistics.linear_regression(*zip(*seen, strict=True)).slope * 60
    told = (
        f"{slope:.2f} MiB a minute, from {seen[0][1]:.1f} to {seen[-1][1]:.1f} MiB, {bursts:.1f} MiB of bursts left out"
    )
    print(told)
    assert len(seen) > (OUTAGE_S - SETTLED_S) / 2, f"the machine was too busy to tell: {told}"
    assert slope <= SLOPE_MAX, told


def _rss_mib(pid: int, sender: Sender) -> tuple[list[tuple[float, float]], float]:
    """(seconds, MiB), once a second, from ``SETTLED_S`` to the end of the outage; and MiB grown by bursts, which those
    don't hold."""
    began, seen, bursts, last = time.monotonic(), [], 0.0, None
    while (at := time.monotonic() - began) < OUTAGE_S:
        mib = _status_mib(pid)
        if time.monotonic() - sender.stalled_at < BURST_S:
            bursts += mib - last if at >= SETTLED_S and last is not None else 0.0
        elif at >= SETTLED_S:
            seen.append((at, mib - bursts))
        last = mib
        time.sleep(1.0)
    return seen, bursts


def _status_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024
