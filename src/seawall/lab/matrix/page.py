"""The matrix for people, and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from seawall.lab.later import later
from seawall.lab.matrix.cell import EXPERIMENT, Cell, cells
from seawall.lab.matrix.code import DEPENDENCIES, FLOWS, WAYS

HEAD = """# The matrix

What each flow does when each of its dependencies is slow, hung or gone, and what proves it: a test (below `tests/`), or
an experiment of [the lab](../lab.md). Written by `tool/matrix.py` from `src/seawall/lab/matrix/cells.toml`;
`seawall lab matrix` shows it too.

That nothing is missing is checked against the code: roles, libraries, breakers, the doctor's checks, the lab's parts
and its actions must each belong to a row or a column. A cell is left out only where the code of that flow joins nothing
that would call the dependency (`lab/matrix/code.py` reads that from `app.py` and from imports). A cell without a
promise, or with a test that isn't there, fails `make check`.

How many tests and experiments prove what a flow does when a dependency is slow, hung and gone (3 ways):
"""


def rows(found: Sequence[Cell]) -> list[dict[str, Any]]:
    """For programs."""
    return [{**asdict(cell), "by": list(cell.by)} for cell in found]


def page() -> str:
    """The whole document."""
    found = cells()
    parts = [HEAD, _overview(found)]
    for flow in FLOWS:
        parts.append(f"## {flow.name[0].upper()}{flow.name[1:]}: {flow.about}\n\n" + _table([
            cell for cell in found if cell.flow == flow.name and cell.called
        ]))  # fmt: skip
        missing = sorted({cell.dependency for cell in found if cell.flow == flow.name and not cell.called})
        if missing:
            parts.append(f"Not called by this flow: {', '.join(missing)}.\n")
    if waiting := [f"- `{each.name}` ({each.incident}): {each.title}. It joins {each.joins}.\n" for each in later()]:
        head = "## Not there yet\n\nExperiments that have a name, and wait for what they would break:\n\n"
        parts.append(head + "".join(waiting))
    return "\n".join(parts)


def _overview(found: Sequence[Cell]) -> str:
    lines = ["| | " + " | ".join(DEPENDENCIES) + " |", "|---" * (len(DEPENDENCIES) + 1) + "|"]
    for flow in FLOWS:
        counts = []
        for dependency in DEPENDENCIES:
            mine = [cell for cell in found if cell.flow == flow.name and cell.dependency == dependency]
            proofs = {proof for cell in mine for proof in cell.by}
            counts.append(f"{len(proofs)} for {len(WAYS)} ways" if all(cell.called for cell in mine) else "not called")
        lines.append(f"| **{flow.name}** | " + " | ".join(counts) + " |")
    return "\n".join(lines) + "\n"


def _table(found: Sequence[Cell]) -> str:
    lines = ["| dependency | | what holds | proven by |", "|---|---|---|---|"]
    for cell in found:
        proofs = ", ".join(_proof(each) for each in cell.by)
        lines.append(f"| {DEPENDENCIES[cell.dependency]} | {cell.way} | {cell.promise} | {proofs} |")
    return "\n".join(lines) + "\n"


def _proof(text: str) -> str:
    if text.startswith(EXPERIMENT):
        return f"`lab run {text.removeprefix(EXPERIMENT)}`"
    return f"`{text}`"
