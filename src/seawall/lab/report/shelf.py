"""The folders of runs, read, and put side by side: the newest of each experiment with and without the protections."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from seawall.lab import history
from seawall.lab.record import JOURNAL, LEDGER, LOG, RUN, SERIES, STORM, Record, Sample, load, samples
from seawall.lab.report.original import originals

RUNS = "run"
SERIES_BYTES_MAX = 64 * 1024 * 1024
"""A longer series isn't read: some ten hours of samples."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run that was read."""

    record: Record
    samples: Sequence[Sample] = ()
    folder: str = ""  # its name; "" when there is none
    files: tuple[str, ...] = ()  # those of it that a reader may want to open
    worse: tuple[str, ...] = ()  # what has got worse since earlier runs, by lab/history.py

    @property
    def on(self) -> bool:
        return self.record.protections == "on"

    @property
    def zero_s(self) -> float:
        """When the first fault began; the run's start when there was none. Times are told from here."""
        return min((fault.began_s for fault in self.record.faults), default=0.0)


@dataclass(frozen=True, slots=True)
class Case:
    """One experiment, as it came out the last time with and without the protections."""

    name: str
    drawn: str  # of a storm: what sets it apart from others (Record.drawn)
    on: Run | None
    off: Run | None
    earlier: tuple[Run, ...] = ()  # the newest first
    where: str = ""  # on which installation, and whether it was a drill; "": the lab's own rig

    @property
    def runs(self) -> list[Run]:
        """As they are read: first what happens without the protections, then with them."""
        return [run for run in (self.off, self.on) if run is not None]

    @property
    def incident(self) -> str:
        return self.runs[0].record.incident

    @property
    def title(self) -> str:
        return self.runs[-1].record.title


@dataclass(frozen=True, slots=True)
class Shelf:
    """All that a folder holds."""

    cases: Sequence[Case] = ()
    problems: Sequence[str] = field(default_factory=list)  # folders that couldn't be read, and why

    @property
    def newest(self) -> list[Run]:
        return [run for case in self.cases for run in case.runs]

    @property
    def earlier(self) -> list[Run]:
        return [run for case in self.cases for run in case.earlier]

    @property
    def as_expected(self) -> bool:
        """Something was run, each experiment with the protections too, and all of it came out as expected the last
        time. That an incident happens without them shows nothing of what they do."""
        ran = bool(self.newest) and all(case.on is not None for case in self.cases)
        return ran and not self.problems and all(run.record.as_expected for run in self.newest)


def read(folder: Path) -> Shelf:
    """Every run that lies in the lab's folder. Samples are read of the newest only."""
    found: list[tuple[Path, Record]] = []
    problems: list[str] = []
    for path in sorted((folder / RUNS).glob("*/")):
        try:
            found.append((path, load(path)))
        except FileNotFoundError:
            problems.append(f"{path.name}: it has no {RUN}")
        except (OSError, msgspec.DecodeError) as error:
            problems.append(f"{path.name}: {RUN} can't be read: {error}")
    worse = {each.record.id: tuple(each.worse) for each in history.read(folder)}
    runs = [Run(record, folder=path.name, files=_files(path), worse=worse.get(record.id, ())) for path, record in found]
    return Shelf([_measured(folder, case, problems) for case in arrange(runs)], problems)


def arrange(runs: Iterable[Run]) -> list[Case]:
    """By experiment, the incidents first, storms last; of each the newest run with and without."""
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda each: (each.record.began, each.record.id), reverse=True):
        record = run.record
        # Each storm is an experiment of its own, by seed, length, faults and version: one that is green takes nothing
        # back from one that isn't.
        groups.setdefault((record.name, record.drawn, where(record)), []).append(run)
    cases = [_case(name, drawn, found, at) for (name, drawn, at), found in groups.items()]
    return sorted(cases, key=_order)


def where(record: Record) -> str:
    """What sets a run apart from the others of its experiment: where it was, and that people were the ones to see."""
    said = [f"on {record.target}"] if record.target else []
    return ", ".join([*said, *(["a drill"] if record.drill is not None else [])])


def _case(name: str, drawn: str, runs: list[Run], at: str) -> Case:
    on = next((run for run in runs if run.on), None)
    off = next((run for run in runs if not run.on), None)
    return Case(name, drawn, on, off, tuple(run for run in runs if run is not on and run is not off), at)


def _order(case: Case) -> tuple[int, str, bool, str, int, str, str]:
    known = case.incident in originals()
    return (0 if known else 1, case.incident, case.name == STORM, case.name, _seed(case), case.drawn, case.where)


def _seed(case: Case) -> int:
    return case.runs[0].record.seed if case.name == STORM else 0


def _files(path: Path) -> tuple[str, ...]:
    return tuple(name for name in (RUN, SERIES, JOURNAL, LEDGER, LOG) if (path / name).exists())


def _measured(folder: Path, case: Case, problems: list[str]) -> Case:
    with_samples = [_with_samples(folder / RUNS, run, problems) if run else None for run in (case.on, case.off)]
    return replace(case, on=with_samples[0], off=with_samples[1])


def _with_samples(runs: Path, run: Run, problems: list[str]) -> Run:
    path = runs / run.folder
    try:
        if SERIES in run.files and (path / SERIES).stat().st_size > SERIES_BYTES_MAX:
            problems.append(f"{run.folder}: {SERIES} is longer than {SERIES_BYTES_MAX} bytes; it isn't drawn")
            return run
        found = [_finite(sample) for sample in samples(path) if math.isfinite(sample.at_s)]
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{run.folder}: {SERIES} can't be read: {error}")
        return run
    return replace(run, samples=sorted(found, key=lambda sample: sample.at_s))


def _finite(sample: Sample) -> Sample:
    """Without what is no number: it can't be drawn."""
    values: Mapping[str, float] = {name: value for name, value in sample.values.items() if math.isfinite(value)}
    return sample if len(values) == len(sample.values) else Sample(sample.at_s, values)
