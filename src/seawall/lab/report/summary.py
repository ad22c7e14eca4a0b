"""The table of all runs, and the same for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from seawall.lab.later import later
from seawall.lab.record import STORM, Record, Status
from seawall.lab.report import word
from seawall.lab.report.figure import upper_bound
from seawall.lab.report.original import originals
from seawall.lab.report.shelf import Run, Shelf, where

COLUMNS = ("incident", "experiment", "protections", "came out", "accepted", "lost", "lost at most",
           "otherwise wrong", "held answered", "detected", "mitigated", "recovered")  # fmt: skip
"""Of the table, in every form that it has."""
ABOUT = (
    "“Lost at most” is the share that is lost at worst, with 95 % confidence, when none of n accepted events was: 3/n "
    "(the rule of three), as if each event were lost or not by itself. Times: detected, from the first fault to the "
    "first alert; mitigated, from the first fault to the steady state holding again with the fault still there; "
    "recovered, from the last fault's end to the steady state."
)


def row(record: Record) -> dict[str, str]:
    """One run, by ``COLUMNS``."""
    return {
        "incident": record.incident or "-",
        "experiment": _name(record),
        "protections": record.protections,
        "came out": word.came_out(record),
        "accepted": word.count(word.accepted(record)) if record.verdict else "-",
        "lost": word.lost(record),
        "lost at most": word.bound_said(word.bound(record)),
        "otherwise wrong": word.else_wrong(record),
        "held answered": word.held(record),
        "detected": word.detect(record),
        "mitigated": word.mitigate(record),
        "recovered": word.recover(record),
    }


def _name(record: Record) -> str:
    name = f"{record.name} {record.seed}" if record.name == STORM else record.name
    return ", ".join(each for each in (name, record.variant, where(record)) if each)


NOT_RUN = "not run"


def not_run(record: Record) -> dict[str, str]:
    """The row of the run with the protections that an experiment hasn't had, from one that it has had."""
    said = {"incident": record.incident or "-", "experiment": _name(record), "protections": "on", "came out": NOT_RUN}
    return {**dict.fromkeys(COLUMNS, "-"), **said}


def rows(records: Sequence[Record]) -> list[dict[str, str]]:
    """A row for each, and one for each run with the protections that is missing; then all of them as one."""
    on = {(each.name, each.drawn, where(each)) for each in records if each.protections == "on"}
    found = []
    for each in records:
        found.append(row(each))
        if (each.name, each.drawn, where(each)) not in on:
            found.append(not_run(each))
    last = total(records)
    return found + ([last] if last else [])


def total(records: Iterable[Record]) -> dict[str, str] | None:
    """All runs with the protections that may speak for it, as one; None: there are none, or not all were looked at."""
    kept = [
        each for each in records
        if each.protections == "on" and not where(each) and each.verdict
        and each.status in (Status.AS_EXPECTED, Status.NOT_AS_EXPECTED)
    ]  # fmt: skip
    if not kept or any(each.verdict.get("unknown", 0) for each in kept):
        return None
    lost, accepted = sum(each.verdict.get("lost", 0) for each in kept), sum(word.accepted(each) for each in kept)
    return {
        **dict.fromkeys(COLUMNS, ""),
        "experiment": "all with protections",
        "protections": "on",
        "accepted": word.count(accepted),
        "lost": word.count(lost),
        "lost at most": word.bound_said(upper_bound(lost, accepted)),
    }


def document(shelf: Shelf) -> dict[str, Any]:
    """What ``report.json`` holds. ``runs`` are the newest of each experiment with and without the protections; those
    that they took the place of stand in ``earlier``, shortly. What is no number is None."""
    found = {
        "version": 1,
        "as_expected": shelf.as_expected,
        "runs": [_whole(run) for run in shelf.newest],
        "earlier": [_short(run) for run in sorted(shelf.earlier, key=lambda run: run.record.id)],
        "originals": {
            id: {key: getattr(each, key) for key in ("who", "detect", "mitigate", "recover", "lost", "source")}
            for id, each in originals().items()
            if any(run.record.incident == id for run in shelf.newest)
        },
        "not_run": [
            {"name": case.name, "variant": case.drawn, "where": case.where, "protections": "on"}
            for case in shelf.cases
            if case.on is None
        ],
        "later": msgspec.to_builtins(later()),
        "problems": list(shelf.problems),
    }
    kept: dict[str, Any] = _finite(found)
    return kept


def _whole(run: Run) -> dict[str, Any]:
    record = run.record
    found: dict[str, Any] = msgspec.to_builtins(record)
    return {
        **found,
        "as_expected": record.as_expected,
        "lost_share_max": word.bound(record),
        "folder": run.folder,
        "worse": list(run.worse),
    }


def _short(run: Run) -> dict[str, Any]:
    record = run.record
    names = ("id", "name", "incident", "protections", "seed", "began", "detect_s", "mitigate_s", "recover_s", "verdict")
    return {
        **{name: getattr(record, name) for name in names},
        "status": str(record.status),
        "as_expected": record.as_expected,
    }


def text(value: Mapping[str, Any]) -> str:
    """A ``document`` as JSON that every parser takes."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, (list, tuple)) else value


def records(document: Mapping[str, Any]) -> list[Record]:
    """The runs of a ``report.json``.

    Raises:
        msgspec.ValidationError, KeyError: It isn't one.
    """
    return [msgspec.convert(each, Record) for each in document["runs"]]


def markdown(records: Sequence[Record]) -> str:
    """The table for a README."""
    lines = [
        _cells(COLUMNS),
        _cells(["---"] * len(COLUMNS)),
        *(_cells([each[name] for name in COLUMNS]) for each in rows(records)),
    ]
    return "\n".join(lines) + "\n"


def _cells(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
