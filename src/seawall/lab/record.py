"""What is kept of one run of an experiment, in a folder of its own: the seam between whoever runs and whoever reports.

``build/lab/run/ID/`` (ID is ``NAME.on.20261123T061500`` or ``NAME.off.…``; a drill's is ``drill.on.…``) holds

``run.json``
    a `Record`; written anew, whole, whenever it changes, so that a runner that is killed leaves what it knew.
``series.jsonl``
    a `Sample` a line, twice a second: what the graphs are drawn from, and what abort conditions are read from.
``journal.json``
    Chaos Toolkit's own journal.
``ledger``
    of the traffic (lab/checker/ledger.py).
``log``
    what the platform and the runner wrote.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from seawall.lab.part.node import whole

RUN, SERIES, JOURNAL, LEDGER, LOG = "run.json", "series.jsonl", "journal.json", "ledger", "log"
SAMPLE_S = 0.5
STORM = "storm"
"""The name of every storm."""


class Status(enum.StrEnum):
    """How a run of an experiment ended. Only the first is green."""

    AS_EXPECTED = "as_expected"
    NOT_AS_EXPECTED = "not_as_expected"
    INVALID = "invalid"  # the rig didn't prove itself: nothing was shown, for or against
    ABORTED = "aborted"  # an abort condition, a person, or the runner's own end
    RUNNING = "running"


@dataclass(slots=True, kw_only=True)
class Fault:
    """One thing that was broken, and when. Seconds are since the run began."""

    name: str  # "redis a black hole"
    target: str  # what it is done to: "redis", "kafka.b1", "collector"
    began_s: float
    ended_s: float | None = None
    ended_by: str = ""  # "method", "rollback", "watchdog", "panic"


@dataclass(slots=True, kw_only=True)
class Proof:
    """One thing that the rig must show of itself, else the verdict is *invalid*."""

    claim: str  # "the path to redis is dead", "traffic called redis", "forwarding fell by the cut share"
    at_s: float
    held: bool
    said: str = ""  # what was measured


@dataclass(slots=True, kw_only=True)
class Moment:
    """A moment that somebody reading the report wants to see on the graph: an alert, a step, a person's act."""

    at_s: float
    kind: str  # "alert", "cleared", "step", "act", "breaker", "killed"
    text: str


@dataclass(slots=True, kw_only=True)
class Expectation:
    """One thing that this run should show, on or off, and whether it did."""

    claim: str
    held: bool
    said: str = ""


@dataclass(slots=True, kw_only=True)
class Mark:
    """What somebody has said in a drill."""

    at_s: float
    word: str  # "seen", "acted", "done"
    text: str = ""
    by: str = ""


@dataclass(slots=True, kw_only=True)
class Drill:
    """A run whose fault was hidden from people, and what they made of it."""

    candidates: list[str]  # of which it was drawn
    delay_s: float  # from ready to broken
    marks: list[Mark] = field(default_factory=list)
    right: int = 1  # which act, from 1, was the right one; 0: none
    seen_s: float | None = None  # from the first fault to the first mark
    acted_s: float | None = None  # … to the right act


@dataclass(slots=True, kw_only=True)
class Record:
    """One run of one experiment."""

    id: str
    name: str  # of the experiment: the catalogue file's, without .yaml
    title: str
    incident: str = ""  # I1 … I5, "" for what has no original
    protections: str = "on"  # "on" | "off"
    weak: list[str] = field(default_factory=list)  # the weak parts of an "off" run
    seed: int = 0
    variant: str = ""  # of a storm, what it is drawn from beside its seed
    target: str = ""  # the installation that it was run on; "": the lab's own rig
    unseen: list[str] = field(default_factory=list)  # what nobody sees from outside, and so isn't judged
    command: str = ""  # that runs it again
    original: dict[str, str] = field(default_factory=dict)  # what the file says of the incident: experiment.Original
    began: str = ""  # ISO 8601, UTC
    seconds: float = 0.0
    status: Status = Status.RUNNING
    why: list[str] = field(default_factory=list)  # of a status that isn't green: each cause in words
    expectations: list[Expectation] = field(default_factory=list)
    proofs: list[Proof] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)
    verdict: dict[str, int] = field(default_factory=dict)  # of the ledger; empty: there was no traffic
    detect_s: float | None = None  # from the first fault to the first raised alert
    mitigate_s: float | None = None  # … to the steady state holding again, with the fault still there
    recover_s: float | None = None  # from the last fault's end to the steady state, backlog drained
    drill: Drill | None = None
    facts: dict[str, str] = field(default_factory=dict)  # figures that the experiment itself wants told

    @property
    def drawn(self) -> str:
        """What a storm was drawn from: one of another seed, length or version is another experiment. "" for what isn't
        drawn."""
        if self.name != STORM:
            return self.variant
        # An earlier version's record has no variant; its title tells length, faults and overlap.
        return f"seed {self.seed}, {self.variant or self.title}"

    @property
    def as_expected(self) -> bool:
        return self.status is Status.AS_EXPECTED

    def save(self, folder: Path) -> None:
        """Durability: replaces the file whole; a reader sees the old one or the new one."""
        whole(folder / RUN, msgspec.json.format(msgspec.json.encode(self), indent=1).decode())


def load(folder: Path) -> Record:
    """
    Raises:
        OSError: There is none.
        msgspec.ValidationError: It isn't one.
    """
    return msgspec.json.decode((folder / RUN).read_bytes(), type=Record)


@dataclass(slots=True, frozen=True)
class Sample:
    """What was seen at one moment. A name is ``room.what_unit``; one that is missing wasn't there to be read."""

    at_s: float
    values: Mapping[str, float]

    def line(self) -> str:
        return json.dumps({"t": round(self.at_s, 3), **{k: round(v, 6) for k, v in self.values.items()}})


def samples(folder: Path) -> Iterator[Sample]:
    """All samples of a run; a line that a crash tore is left out."""
    try:
        lines = (folder / SERIES).read_text("utf-8").splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            said = json.loads(line)
            yield Sample(float(said.pop("t")), {str(k): float(v) for k, v in said.items()})
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
