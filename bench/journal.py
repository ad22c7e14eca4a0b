"""What a durable record costs from ``submit`` to ``done``, and what reading one back costs.

A closed loop keeps so many records in flight, as many connections of a collector would: each answer submits the next
record. Batches are whatever comes while the last sync runs, so more in flight means larger batches and less CPU per
record. Windows of the sizes take turns; figures are medians. One record at a time is the price of a sync alone.

    python bench/journal.py           # about 20 seconds
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.result import PLACE, Row, fdatasync_p50_ms, publish, row

from seawall.journal import Log, LogReader, Settings
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.journal import Outcome, Position

ROUNDS = 5
RECORD_BYTES = 1300
"""An encoded event: 1 KiB of body, 12 headers, and our own fields."""

WINDOWS = {1: 1500, 8: 8000, 64: 30_000, 256: 30_000}
"""Records in flight → records in one window."""

CPU_BOUND_US = 8.0


@dataclass(frozen=True, slots=True)
class Window:
    """One window's figures."""

    per_s: float
    cpu_us: float
    batch: float


async def window(log: Log, metrics: Metrics, in_flight: int, records: int) -> Window:
    """Keep ``in_flight`` records on their way until ``records`` are durable."""
    loop = asyncio.get_running_loop()
    finished = loop.create_future()
    payload = os.urandom(RECORD_BYTES)
    left, answered = records, 0

    def done(outcome: Outcome) -> None:
        nonlocal left, answered
        assert isinstance(outcome, Position), outcome
        answered += 1
        if left:
            left -= 1
            # By way of the loop, as a request comes in: not from within the answer.
            loop.call_soon(log.submit, payload, done)
        elif answered == records:
            finished.set_result(None)

    syncs = metrics.counter("seawall_journal_syncs_total", "", journal=log.name)
    before, cpu, began = syncs.value, time.process_time(), time.perf_counter()
    for _ in range(in_flight):
        left -= 1
        log.submit(payload, done)
    await finished
    took = time.perf_counter() - began
    return Window(records / took, (time.process_time() - cpu) / records * 1e6, records / (syncs.value - before))


async def read_back(folder: Path) -> float:
    """CPU per record, in microseconds, to read all of a log."""
    async with LogReader(folder, folder / "nobody") as reader:
        at, count, cpu = reader.start(), 0, time.process_time()
        while frames := (chunk := reader.read(at, records_max=1000, bytes_max=16 << 20)).frames:
            count += len(frames)
            at = chunk.next
        return (time.process_time() - cpu) / count * 1e6


async def measure() -> list[Row]:
    found: dict[int, list[Window]] = {size: [] for size in WINDOWS}
    PLACE.parent.mkdir(exist_ok=True)
    # On the disk of the checkout: a temporary folder may be in memory, where a sync costs nothing.
    with tempfile.TemporaryDirectory(dir=PLACE.parent) as folder:
        metrics = Metrics()
        async with Log(Path(folder) / "c1", Settings(), metrics=metrics, on_failure=print) as log:
            await window(log, metrics, 64, 2000)
            for _ in range(ROUNDS):
                for size, records in WINDOWS.items():
                    found[size].append(await window(log, metrics, size, records))
        reading_us = await read_back(Path(folder) / "c1")
    rows = [row("journal: fdatasync of this disk, p50", fdatasync_p50_ms(), "ms")]
    for size, windows in found.items():
        per_s = statistics.median(w.per_s for w in windows)
        cpu_us = statistics.median(w.cpu_us for w in windows)
        batch = statistics.median(w.batch for w in windows)
        rows.append(row(f"journal: durable records, {size} in flight", per_s, "1/s"))
        bound = CPU_BOUND_US if size == 64 else None
        rows.append(row(f"journal: CPU per record, {size} in flight", cpu_us, "us", at_most=bound))
        rows.append(row(f"journal: records per sync, {size} in flight", batch, "records"))
    rows.append(row("journal: CPU per record read back", reading_us, "us"))
    return rows


if __name__ == "__main__":
    publish(uvloop.run(measure()))
