"""A pytest plugin: the table of outages, after everything else that pytest says, before the closing count.

Loaded with ``-p outages``. A test puts its row together with ``record_property("outage", {...})``; a row of a test that
failed is marked.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest

COLUMNS = {
    "sent": "sent", "accepted": "accepted", "finished": "finished", "lost": "lost", "invented": "invented",
    "corrupted": "corrupted", "copies": "duplicated", "slowest_ms": "slowest ms", "seconds": "seconds",
}  # fmt: skip
"""From a row's names to what stands above them."""

LEGEND = "duplicated: records that are in Kafka more than once, under the same id; each event was run once."


def table(rows: list[tuple[Mapping[str, object], bool]]) -> list[str]:
    """Lines of the rows, each with whether its test passed."""
    width = max(len(str(row["row"])) for row, _ in rows)
    lines = [" ".join(["outage".ljust(width), *(name.rjust(max(8, len(name))) for name in COLUMNS.values())])]
    for row, passed in rows:
        cells = [str(row.get(key, "")).rjust(max(8, len(name))) for key, name in COLUMNS.items()]
        lines.append(" ".join([str(row["row"]).ljust(width), *cells]) + ("" if passed else "  FAILED"))
    return [*lines, LEGEND]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = []
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            if report.when != "call":
                continue
            rows += [(dict(value), outcome == "passed") for name, value in report.user_properties if name == "outage"]
    if rows:
        terminalreporter.section("outages, on real parts")
        for line in table(rows):
            terminalreporter.write_line(line)
