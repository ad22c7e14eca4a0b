"""Writes what the README shows of the lab: the table of ``docs/lab/report.json``, and one of its plots.

``python tool/shown.py`` writes the README's table anew from the report that is kept in ``docs/lab`` (a tidy test
compares them); ``python tool/shown.py build/lab`` first takes over the report and the plot of a folder in which
everything came out as expected. Figures are never typed by hand.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from seawall.lab.report.graph import alone
from seawall.lab.report.panel import PANELS
from seawall.lab.report.shelf import read
from seawall.lab.report.summary import document, markdown, records, text

ROOT = Path(__file__).resolve().parent.parent
KEPT = "docs/lab/report.json"
PLOT, SHOWN, PANEL = "docs/lab/plot.svg", "redis-listener-dies", "Held requests"
BEGIN, END = "<!-- lab: written by tool/shown.py -->", "<!-- lab: end -->"


def block(kept: str) -> str:
    """What stands in the README between the two marks, from a ``report.json``."""
    said = json.loads(kept)
    found = records(said)
    days = sorted({record.began[:10] for record in found})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return (
        f"{BEGIN}\n{markdown(found)}\n"
        f"Runs of {when}, each with the protections (on) and, where an incident is known, without them (off): there it "
        f"happens. Times: the steady state is what the experiment's file says.\n\n"
        f"![Requests that wait for their answer, while Redis is upgraded without a word: without the protections and "
        f"with them]({PLOT})\n{END}\n"
    )


def replaced(readme: str, block: str) -> str:
    """The README with this block; where it stands, it is marked."""
    before, _, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END + "\n")
    if not end:
        raise SystemExit(f"README.md lacks the marks {BEGIN} and {END}, each on a line of its own")
    return before + block + after


def keep(folder: Path) -> None:
    """Take over a folder's report and plot, if all of it is as expected."""
    shelf = read(folder)
    if not shelf.as_expected:
        raise SystemExit(f"{folder}: not all of it came out as expected; nothing was taken over")
    case = next((case for case in shelf.cases if case.name == SHOWN and case.on and case.off), None)
    panel = next(panel for panel in PANELS if panel.title == PANEL)
    plot = alone(panel, case.runs, "plot") if case is not None else None
    if plot is None:
        raise SystemExit(f"{folder}: {SHOWN} wasn't run with and without the protections, or has no samples")
    (ROOT / PLOT).write_text(plot + "\n", "utf-8")
    (ROOT / KEPT).write_text(text(document(shelf)), "utf-8")


def main() -> None:
    if len(sys.argv) > 1:
        keep(Path(sys.argv[1]))
    readme = ROOT / "README.md"
    readme.write_text(replaced(readme.read_text("utf-8"), block((ROOT / KEPT).read_text("utf-8"))), "utf-8")


if __name__ == "__main__":
    main()
