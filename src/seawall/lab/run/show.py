"""What a person sees while an experiment runs: graphs where there is a terminal, else a line now and then."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TextIO

from seawall.lab.record import SAMPLE_S, Fault, Sample

BARS = "▁▂▃▄▅▆▇█"
LINE_EVERY_S = 5.0
STOP_S = 2.0
GRAPHS_MAX = 6
USUAL = (
    "intake.ok_rate", "intake.p99_ms", "held.own_rate", "held.p99_ms", "journal.unrouted_bytes", "alerts.open_count",
    "lab.memory_mb",
)  # fmt: skip
"""What is drawn when a file names nothing: the first of these that are measured."""
ROOM = 30
"""Columns beside a graph: its name and its last value."""


def sparkline(values: Sequence[float | None], width: int) -> str:
    """The last ``width`` values as bars from 0 to the largest; a gap where there was none."""
    shown = list(values)[-width:]
    most = max((value for value in shown if value is not None), default=0.0)
    return "".join(" " if value is None else BARS[_level(value, most)] for value in shown)


def _level(value: float, most: float) -> int:
    if most <= 0 or value <= 0:
        return 0
    return min(len(BARS) - 1, int(value / most * (len(BARS) - 1) + 0.5))


def chosen(wanted: Sequence[str], samples: Sequence[Sample]) -> list[str]:
    """What is drawn."""
    if wanted:
        return list(wanted)[:GRAPHS_MAX]
    there: set[str] = set().union(*(sample.values for sample in samples[-20:])) if samples else set()
    return [name for name in USUAL if name in there][:GRAPHS_MAX]


def graphs(
    names: Sequence[str], samples: Sequence[Sample], faults: Sequence[Fault], *, columns: int, foot: str = ""
) -> list[str]:  # fmt: skip
    """A line for each name, and one above that marks when something was broken; with a ``foot``, that in its place."""
    width = max(10, columns - ROOM - 2)
    shown = samples[-width:]
    if foot:
        return [each[: columns - 1] for each in (*(_graph(name, shown, width) for name in names), foot)]
    marks = "".join("x" if _broken(sample.at_s, faults) else " " for sample in shown)
    there = [fault.name for fault in faults if fault.ended_s is None]
    lines = [f"{'broken':{ROOM}} {marks}", *(_graph(name, shown, width) for name in names)]
    lines.append(f"{shown[-1].at_s if shown else 0:6.1f} s  {'; '.join(there) or 'nothing is broken'}")
    return [line[: columns - 1] for line in lines]


def _graph(name: str, samples: Sequence[Sample], width: int) -> str:
    values = [sample.values.get(name) for sample in samples]
    last = next((value for value in reversed(values) if value is not None), None)
    label = f"{name:20.20} {'-' if last is None else number(last):>8}"
    return f"{label:{ROOM}} {sparkline(values, width)}"


def _broken(at_s: float, faults: Sequence[Fault]) -> bool:
    return any(fault.began_s <= at_s and (fault.ended_s is None or at_s <= fault.ended_s) for fault in faults)


def number(value: float) -> str:
    """As short as people read it."""
    for bound, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= bound:
            scale = {"G": 1e9, "M": 1e6, "k": 1e3}[letter]
            return f"{value / scale:.1f}{letter}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def line(names: Sequence[str], sample: Sample) -> str:
    """One sample, where there is no terminal."""
    said = (f"{name} {number(sample.values[name])}" for name in names if name in sample.values)
    return f"{sample.at_s:6.1f} s  {', '.join(said)}"


class Screen:
    """Draws in a thread, from ``start`` to ``stop``; ``say`` prints a line above what is drawn.

    Args:
        samples: What has been measured, and what was broken, so far.
        out: Where; graphs only when it is a terminal.
        foot: A line that is always there, in place of what is broken, which isn't shown then. "": none.
    """

    def __init__(
        self,
        samples: Callable[[], tuple[Sequence[Sample], Sequence[Fault]]],
        wanted: Sequence[str],
        out: TextIO | None = None,
        foot: Callable[[], str] = lambda: "",
    ) -> None:
        self._foot = foot
        self._samples, self._wanted = samples, wanted
        self._out = out if out is not None else sys.stderr
        self._live = self._out.isatty()
        self._drawn = 0  # lines that are on the screen and will be drawn over
        self._said_s = 0.0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lab.screen", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """What was drawn stays. Harmless when called twice, or before it began. A terminal that takes nothing (Ctrl-S)
        keeps nobody waiting."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(STOP_S)
        if self._lock.acquire(timeout=STOP_S):
            self._drawn = 0
            self._lock.release()

    def entered(self) -> None:
        """Somebody has ended a line at this terminal: what is drawn is one line further up."""
        if self._lock.acquire(timeout=STOP_S):
            self._drawn += bool(self._drawn)
            self._lock.release()

    def say(self, text: str) -> None:
        """A line, which stays; dropped while the terminal takes nothing."""
        if self._lock.acquire(timeout=STOP_S):
            try:
                self._erase()
                self._write("".join(f"{each}\n" for each in text.splitlines()))
            finally:
                self._lock.release()

    def _run(self) -> None:
        while not self._stopping.wait(SAMPLE_S):
            samples, faults = self._samples()
            names = chosen(self._wanted, samples)
            if not samples or not names:
                continue
            with self._lock:
                if self._live:
                    self._erase()
                    lines = graphs(
                        names, samples, faults, columns=shutil.get_terminal_size().columns, foot=self._foot()
                    )
                    self._write("".join(f"{each}\n" for each in lines))
                    self._drawn = len(lines)
                elif samples[-1].at_s - self._said_s >= LINE_EVERY_S:
                    self._said_s = samples[-1].at_s
                    foot = self._foot()
                    self._write("".join(f"{each}\n" for each in (line(names, samples[-1]), foot) if each))

    def _erase(self) -> None:
        if self._live and self._drawn:
            self._write(f"\x1b[{self._drawn}A\x1b[J")
            self._drawn = 0

    def _write(self, text: str) -> None:
        try:
            self._out.write(text)
            self._out.flush()
        except (OSError, ValueError):
            # Nobody looks any more: the run goes on, and is in its record.
            self._live = False
