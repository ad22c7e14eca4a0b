"""What a benchmark found: a table on the terminal, and rows in build/bench.json for machines."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

PLACE = Path(__file__).resolve().parent.parent / "build" / "bench.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure. ``bound`` is spelt as people read it (">= 12000", "<= 20"); ``holds`` is None when there is none."""

    name: str
    value: float
    unit: str
    bound: str = ""
    holds: bool | None = None


def row(name: str, value: float, unit: str, *, at_least: float | None = None, at_most: float | None = None) -> Row:
    """A row judged against its bound."""
    value = round(value, 4)
    if at_least is not None:
        return Row(name=name, value=value, unit=unit, bound=f">= {at_least:g}", holds=value >= at_least)
    if at_most is not None:
        return Row(name=name, value=value, unit=unit, bound=f"<= {at_most:g}", holds=value <= at_most)
    return Row(name=name, value=value, unit=unit)


def publish(rows: Sequence[Row]) -> None:
    """Print the rows, and put them into build/bench.json in place of earlier rows of the same names."""
    PLACE.parent.mkdir(exist_ok=True)
    kept = json.loads(PLACE.read_text()) if PLACE.exists() else []
    names = {r.name for r in rows}
    kept = [k for k in kept if k["name"] not in names] + [asdict(r) for r in rows]
    PLACE.write_text(json.dumps(kept, indent=1) + "\n")
    for r in rows:
        verdict = "" if r.holds is None else ("holds" if r.holds else "DOES NOT HOLD")
        print(f"{r.name:58} {r.value:>12,.2f} {r.unit:10} {r.bound:>10} {verdict}", flush=True)


def cpu_s(pid: int) -> float:
    """User and system CPU seconds of one process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """A process and everything below it."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            found += [int(child) for child in task.read_text().split()]
    return found


def tree_cpu_s(pid: int) -> float:
    """CPU seconds so far of a process, of everything below it now, and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    found = (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
    for each in tree(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            found += cpu_s(each)
    return found


def fdatasync_p50_ms(count: int = 200) -> float:
    """Median of one fdatasync after a 1 KiB overwrite of zero-filled space: the floor under every durable answer. Below
    0.05 ms the disk (or what stands for it) doesn't do what it says."""
    with tempfile.TemporaryFile(dir=PLACE.parent if PLACE.parent.exists() else None) as file:
        file.write(bytes(1024 * count))
        file.flush()
        os.fsync(file.fileno())
        took = []
        for n in range(count):
            os.pwrite(file.fileno(), b"x" * 1024, n * 1024)
            begin = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - begin)
    return statistics.median(took) * 1000
