"""Steps of other packages: each announces its steps under the entry point group ``seawall.steps``.

    [project.entry-points."seawall.steps"]
    page = "acme_steps:page"

Nothing of a package is imported until its step is asked for, and one that is broken says which package it is of, and
what is wrong, without taking the others with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from seawall.kernel.error import Misconfigured, said
from seawall.step.github import github_issue
from seawall.step.http import http_request
from seawall.step.postgres import sql
from seawall.step.shipped import Step
from seawall.step.slack import slack_channel

GROUP = "seawall.steps"
OWN: dict[str, Step[Any, Any]] = {one.name: one for one in (http_request, slack_channel, github_issue, sql)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """One step that can be used here, or that is broken."""

    name: str
    version: int  # 0: it is broken
    package: str
    does: str  # the first line of what it says of itself
    problem: str  # "": none


def load(name: str) -> Step[Any, Any]:
    """The step of that name: of Seawall, else of whichever package announces it.

    Raises:
        Misconfigured: There is none, there are several, or it is broken.
    """
    if name in OWN:
        return OWN[name]
    found = [one for one in entry_points(group=GROUP) if one.name == name]
    if not found:
        known = sorted({*OWN, *(one.name for one in entry_points(group=GROUP))})
        raise Misconfigured([f"step {name}: no installed package has it; known: {', '.join(known)}"])
    if len(found) > 1:
        raise Misconfigured([f"step {name}: announced by {' and '.join(sorted(map(_package, found)))}; remove one"])
    return _loaded(found[0])


def installed() -> Sequence[Installed]:
    """Every step, Seawall's first, then by name. A broken one is in it too, with its problem."""
    found = [_shown(one, "seawall") for one in OWN.values()]
    for entry in sorted(entry_points(group=GROUP), key=lambda one: (one.name, _package(one))):
        try:
            if entry.name in OWN:
                raise Misconfigured([f"step {entry.name} of {_package(entry)}: Seawall's own has this name"])
            found.append(_shown(load(entry.name), _package(entry)))
        except Misconfigured as error:
            found.append(
                Installed(name=entry.name, version=0, package=_package(entry), does="", problem=error.problems[0])
            )
    return found


def _loaded(entry: EntryPoint) -> Step[Any, Any]:
    where = f"step {entry.name} of {_package(entry)} ({entry.value})"
    try:
        found = entry.load()
    except Exception as error:
        # Foreign code that is imported here: whatever it raises is its own failure, and is told as that.
        raise Misconfigured([f"{where}: can't be imported: {said(error)}"]) from error
    if not isinstance(found, Step):
        raise Misconfigured([f"{where}: is no step; declare it with @seawall.step.step(name, version=…)"])
    if found.name != entry.name:
        raise Misconfigured([f"{where}: calls itself {found.name}; both names must be the same"])
    return found


def _shown(one: Step[Any, Any], package: str) -> Installed:
    does = (one.__doc__ or "").strip().partition("\n")[0]
    return Installed(name=one.name, version=one.version, package=package, does=does, problem="")


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "a package"
