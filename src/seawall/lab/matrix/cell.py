"""The cells: a promise in one line, and what proves it. ``cells.toml`` has them; this checks them against the code."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from seawall.lab.matrix.code import DEPENDENCIES, FLOWS, WAYS, calls, unknown

FILE = Path(__file__).with_name("cells.toml")
TEST = re.compile(r"[\w/]+\.py::test_\w+")
EXPERIMENT = "experiment "


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One flow, one dependency, one way of failing."""

    flow: str
    dependency: str
    way: str
    called: bool  # by this flow, as the code has it
    promise: str  # "" where it isn't called, or nobody has promised anything
    by: Sequence[str]  # tests (room/test_it.py::test_this) and experiments (experiment redis-slow)


class _Said(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    promise: str
    by: list[str]


_File = dict[str, dict[str, dict[str, _Said]]]


def cells() -> list[Cell]:
    """Every cell, in the order of flows, dependencies and ways; those that nobody has filled are empty.

    Raises:
        msgspec.ValidationError: The file isn't right.
    """
    said = msgspec.convert(tomllib.loads(FILE.read_text("utf-8")), _File)
    return [
        _cell(flow.name, dependency, way, called=dependency in calls(flow), said=said)
        for flow in FLOWS for dependency in DEPENDENCIES for way in WAYS
    ]  # fmt: skip


def _cell(flow: str, dependency: str, way: str, *, called: bool, said: _File) -> Cell:
    found = said.get(flow, {}).get(dependency, {}).get(way)
    return Cell(
        flow=flow, dependency=dependency, way=way, called=called, promise=found.promise if found else "",
        by=tuple(found.by) if found else (),
    )  # fmt: skip


def problems(*, tests: Mapping[str, set[str]], experiments: Sequence[str]) -> list[str]:
    """What is wrong with the matrix, a line each.

    Args:
        tests: Names of the tests of each file below ``tests/``.
        experiments: Names of the catalogue.
    """
    found = unknown() + _strange()
    for cell in cells():
        at = f"{cell.flow}, {cell.dependency} {cell.way}"
        if not cell.called:
            found += [f"{at}: it isn't called, so nothing can be promised"] if cell.promise else []
            continue
        if not cell.promise or not cell.by:
            found.append(f"{at}: empty; promise something in lab/matrix/cells.toml, and name what proves it")
        for proof in cell.by:
            if not _there(proof, tests, experiments):
                found.append(f"{at}: there is no {proof}")
    return found


def _there(proof: str, tests: Mapping[str, set[str]], experiments: Sequence[str]) -> bool:
    if proof.startswith(EXPERIMENT):
        return proof.removeprefix(EXPERIMENT) in experiments
    path, _, name = proof.partition("::")
    return TEST.fullmatch(proof) is not None and name in tests.get(path, set())


def _strange() -> list[str]:
    """Words of the file that are no flow, dependency or way."""
    known = {(flow.name, dependency, way) for flow in FLOWS for dependency in DEPENDENCIES for way in WAYS}
    said = msgspec.convert(tomllib.loads(FILE.read_text("utf-8")), _File)
    there = {(flow, one, way) for flow, ones in said.items() for one, ways in ones.items() for way in ways}
    return [
        f"lab/matrix/cells.toml: {flow}.{one}.{way}: there is no such cell" for flow, one, way in sorted(there - known)
    ]
