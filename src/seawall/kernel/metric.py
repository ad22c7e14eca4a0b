"""Counters and gauges as plain numbers, so that the hot path pays one addition.

A name carries its unit last (``_seconds``, ``_bytes``, ``_total``). ``watch/exposition.py`` renders them for
Prometheus; docs/metrics.md lists them, and a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass


class Counter:
    """A number that only grows: ``counter.value += 1``."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0


class Gauge:
    """A number that is set, or read from a function when somebody looks."""

    __slots__ = ("read", "value")

    def __init__(self) -> None:
        self.value: float = 0.0
        self.read: Callable[[], float] | None = None

    def now(self) -> float:
        return self.value if self.read is None else self.read()


Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of an exposition."""

    name: str
    kind: str  # "counter" or "gauge"
    help: str
    labels: Labels
    value: float


class Metrics:
    """The numbers of one process. The same name and labels always give the same object."""

    def __init__(self) -> None:
        self._counters: dict[tuple[str, Labels], Counter] = {}
        self._gauges: dict[tuple[str, Labels], Gauge] = {}
        self._help: dict[str, str] = {}

    def counter(self, name: str, help: str, **labels: str) -> Counter:
        """Find or make a counter; ``name`` ends in ``_total``."""
        assert name.startswith("seawall_") and name.endswith("_total"), name
        self._help.setdefault(name, help)
        return self._counters.setdefault((name, tuple(sorted(labels.items()))), Counter())

    def gauge(self, name: str, help: str, **labels: str) -> Gauge:
        """Find or make a gauge; ``name`` ends in its unit."""
        assert name.startswith("seawall_") and not name.endswith("_total"), name
        self._help.setdefault(name, help)
        return self._gauges.setdefault((name, tuple(sorted(labels.items()))), Gauge())

    def samples(self) -> Iterator[Sample]:
        """All numbers as they stand, ordered by name and labels."""
        for (name, labels), counter in sorted(self._counters.items()):
            yield Sample(name, "counter", self._help[name], labels, counter.value)
        for (name, labels), gauge in sorted(self._gauges.items()):
            yield Sample(name, "gauge", self._help[name], labels, gauge.now())
