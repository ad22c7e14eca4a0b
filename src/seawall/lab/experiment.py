"""Experiments: Chaos Toolkit files of the catalogue, or of a user's own, and what ours adds to them.

Everything that is Chaos Toolkit's is checked by it (``chaos validate``); what is ours stands under
``extensions: [{name: seawall, …}]`` and is an `Extension`, each field of which is checked here.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf, isnan
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from seawall.kernel.error import Misconfigured, Rejected
from seawall.lab.expect import vain
from seawall.lab.later import later

CATALOG = Path(__file__).parent / "catalog"
CONTROL = "seawall.lab.control"
RIG = "seawall.lab.rig"
EXPECT = "seawall.lab.expect"
DAY_S = 86_400
FILE_BYTES_MAX = 1_000_000
SECONDS_MAX = 3600.0


class _Fields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Strict: a field that nobody knows is a mistake, and said."""


class Seconds(_Fields, frozen=True, kw_only=True):
    """How long it lasts, from the first fault on."""

    max: float  # then it is aborted, and everything is reverted
    min: float = 0.0  # a fault that was there for less has shown nothing
    recover: float = 60.0  # within so long of the last revert the steady state holds again (of a run "on")
    warm: float = 60.0  # within so long of the start the steady state holds for the first time
    before: float = 3.0  # so long what is normal is measured before anything is broken
    drain: float = 60.0  # within so long what was accepted has come to its end


class Claim(_Fields, frozen=True, kw_only=True):
    """One thing that a run should show: a function of `seawall.lab.expect`, or of a module of one's own."""

    claim: str
    func: str
    module: str = EXPECT
    arguments: dict[str, Any] = {}

    def find(self) -> Callable[..., Any]:
        """The function.

        Raises:
            ImportError, AttributeError, TypeError: There is none, or it doesn't take these arguments.
        """
        found: Callable[..., Any] = getattr(importlib.import_module(self.module), self.func)
        inspect.signature(found).bind(None, **self.arguments)
        return found


class Expect(_Fields, frozen=True, kw_only=True):
    """What is seen with the protections, and what without."""

    on: list[Claim]
    off: list[Claim] = []


class Condition(_Fields, frozen=True, kw_only=True):
    """What ends a run at once: a sample above or below a bound for some time."""

    claim: str
    name: str  # of a sample
    above: float | None = None
    below: float | None = None
    for_s: float = 0.0


class Original(_Fields, frozen=True, kw_only=True):
    """The incident's own figures, in the words of its retrospective; "not stated" where it states none."""

    source: str
    detect: str = "not stated"
    mitigate: str = "not stated"
    recover: str = "not stated"
    story: list[str] = []  # three lines

    def told(self) -> dict[str, str]:
        """For a record."""
        return {**{name: getattr(self, name) for name in ("source", "detect", "mitigate", "recover")},
                "story": "\n".join(self.story)}  # fmt: skip


class Extension(_Fields, frozen=True, kw_only=True):
    """What ours adds to an experiment."""

    name: Literal["seawall"]
    worst_case: str  # in words; shown in the confirmation
    seconds: Seconds
    expect: Expect
    incident: Literal["", "I1", "I2", "I3", "I4", "I5"] = ""
    variant: str = ""  # which one, where several bear one name: what a storm is drawn from, beside its seed
    needs: list[str] = []
    profile: Literal["embedded", "cluster"] = "embedded"
    app: str = ""
    traffic: list[dict[str, Any]] = []
    without: list[str] = []  # weak parts of the run "off"; none: it has none
    calls: list[str] = []  # dependencies that the traffic must have called before the fault
    effects: list[Claim] = []  # of the faults themselves: one that isn't seen makes the run invalid
    abort: list[Condition] = []
    memory_mb: float = 3072.0  # of all processes of the rig; above it the run is aborted
    graph: list[str] = []  # names of samples that are drawn in the terminal
    original: Original | None = None
    after: str = ""  # the experiment that comes before it on a ladder: green in the folder, or it is refused
    rig: str = RIG
    options: dict[str, Any] = {}  # what only this rig knows


@dataclass(frozen=True, slots=True, kw_only=True)
class At:
    """An installation of the user's own, on which an experiment is run in place of the lab's rig (lab/target)."""

    name: str
    file: str  # that names it
    hosts: frozenset[str]
    here: bool  # all of them are this machine's loopback
    faults: tuple[str, ...]  # what is done there, in words
    unseen: tuple[str, ...]  # what the experiment would look at, and nobody sees from outside


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """One file, read and checked."""

    name: str  # the file's, without .yaml
    path: Path
    document: Mapping[str, Any]  # as Chaos Toolkit takes it
    ours: Extension
    at: At | None = None  # None: on a rig of the lab's own

    @property
    def title(self) -> str:
        return str(self.document["title"])

    @property
    def description(self) -> str:
        return str(self.document["description"]).strip()

    @property
    def steps(self) -> list[str]:
        """What its method does, in the file's own words."""
        return [str(each["name"]) for each in self.document["method"] if each.get("type") == "action"]

    @property
    def share_of_day(self) -> float:
        """How much of a day's traffic the longest possible fault meets."""
        return self.ours.seconds.max / DAY_S

    def claims(self, *, on: bool) -> list[Claim]:
        return self.ours.expect.on if on else self.ours.expect.off


def names() -> list[str]:
    """Of the catalogue."""
    return sorted(path.stem for path in CATALOG.glob("*.yaml"))


def find(name: str) -> Experiment:
    """One of the catalogue by its name, or any file by its path.

    Raises:
        Rejected: There is none.
        Misconfigured: It isn't right; each problem is a line.
    """
    if name.endswith((".yaml", ".yml")) or "/" in name:
        path = Path(name)
    else:
        path = CATALOG / f"{name}.yaml"
        if (waits := next((each for each in later() if each.name == name), None)) is not None:
            raise Rejected(404, "no such experiment", waits.text)
        if name not in names():
            raise Rejected(404, "no such experiment", f"{name}; there are {', '.join(names()) or 'none'}")
    if not path.is_file():
        raise Rejected(404, "no such experiment", f"there is no file {path}")
    return load(path)


def load(path: Path) -> Experiment:
    """Read and check a file. What is Chaos Toolkit's own is checked by it, before it runs.

    Raises:
        Misconfigured: It isn't right; each problem is a line.
    """
    return parse(read(path), path)


def read(path: Path) -> Mapping[str, Any]:
    """A file as Chaos Toolkit reads it.

    Raises:
        Misconfigured: It can't be read.
    """
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise Misconfigured([f"{path}: larger than {FILE_BYTES_MAX} bytes"])
        found = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Misconfigured([f"{path}: {error}"]) from error
    if not isinstance(found, dict):
        raise Misconfigured([f"{path}: it holds no experiment"])
    return found


def parse(document: Mapping[str, Any], path: Path) -> Experiment:
    """An experiment from what a file says.

    Raises:
        Misconfigured: It isn't right; each problem is a line.
    """
    problems = [f"{path}: {each}" for each in _of_toolkit(document)]
    found = [
        each for each in document.get("extensions") or [] if isinstance(each, dict) and each.get("name") == "seawall"
    ]
    if len(found) != 1:
        problems.append(f"{path}: extensions: one with the name seawall is needed; there are {len(found)}")
    if problems:
        raise Misconfigured(problems)
    try:
        ours = msgspec.convert(_spelt(found[0]), Extension)
    except msgspec.ValidationError as error:
        raise Misconfigured([f"{path}: extension seawall: {error}"]) from error
    problems = [f"{path}: extension seawall: {each}" for each in _of_ours(ours)]
    if problems:
        raise Misconfigured(problems)
    return Experiment(name=path.stem, path=path.absolute(), document=document, ours=ours)


def _spelt(said: Mapping[str, Any]) -> dict[str, Any]:
    """``on`` and ``off`` as words: unquoted, YAML takes them for true and false."""
    expect = said.get("expect")
    if not isinstance(expect, dict):
        return dict(said)
    words = {True: "on", False: "off"}
    return {**said, "expect": {words[key] if isinstance(key, bool) else key: each for key, each in expect.items()}}


def _of_toolkit(document: Mapping[str, Any]) -> list[str]:
    """What we need of the rest, so that our runner and ``chaos run`` do the same."""
    problems = [f"{word}: missing" for word in ("title", "description", "method") if not document.get(word)]
    runtime = document.get("runtime") or {}
    if (runtime.get("rollbacks") or {}).get("strategy") != "always":
        problems.append("runtime.rollbacks.strategy: must be always, or `chaos run` leaves faults in place")
    if (runtime.get("hypothesis") or {}).get("strategy") != "continuously":
        problems.append("runtime.hypothesis.strategy: must be continuously")
    if not (document.get("steady-state-hypothesis") or {}).get("probes"):
        problems.append("steady-state-hypothesis: it needs probes: without them nothing says that it recovered")
    modules = [(each.get("provider") or {}).get("module") for each in document.get("controls") or []]
    if CONTROL not in modules:
        problems.append(f"controls: one with the module {CONTROL} is needed: it makes the rig and arms what reverts")
    return problems


def _of_ours(ours: Extension) -> list[str]:
    """What is wrong with the values."""
    seconds = ours.seconds
    problems = [] if ours.worst_case.strip() else ["worst_case: say what is lost or late when all goes wrong"]
    if not 0 <= seconds.min <= seconds.max or not 0 < seconds.max <= SECONDS_MAX:
        problems.append(f"seconds: 0 <= min <= max is needed, and max from 1 to {SECONDS_MAX:g}; it is "
                        f"min {seconds.min:g}, max {seconds.max:g}")  # fmt: skip
    for name in ("recover", "warm", "before", "drain"):
        if not 0 <= getattr(seconds, name) <= SECONDS_MAX:
            problems.append(f"seconds.{name}: from 0 to {SECONDS_MAX:g}")
    if ours.without and not ours.expect.off:
        problems.append("expect.off: what is seen without the protection? A run that expects nothing shows nothing")
    if ours.expect.off and not ours.without:
        problems.append("without: which weak parts has the run that expect.off is about?")
    if not ours.expect.on:
        problems.append("expect.on: a run that expects nothing shows nothing")
    if ours.calls and not ours.traffic:
        problems.append("calls: without traffic nothing calls them")
    for each in ours.abort:
        if (each.above is None) == (each.below is None):
            problems.append(f"abort: {each.claim}: either above or below is needed")
        if any(isnan(value) for value in (each.above, each.below, each.for_s) if value is not None):
            problems.append(f"abort: {each.claim}: it is never met: a bound isn't a number")
    if not 0 < ours.memory_mb < inf:
        problems.append(f"memory_mb: a number above 0 is needed; it is {ours.memory_mb:g}")
    for where, claims in (("on", ours.expect.on), ("off", ours.expect.off), ("effects", ours.effects)):
        problems += [why for claim in claims if (why := _of_claim(where, claim))]
    return problems


def _of_claim(where: str, claim: Claim) -> str:
    try:
        claim.find()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        return f"expect {where}: {claim.claim}: {claim.module}.{claim.func}: {error}"
    why = vain(claim.func, claim.arguments) if claim.module == EXPECT else ""
    return f"expect {where}: {claim.claim}: {why}" if why else ""
