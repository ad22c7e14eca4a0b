"""Writes the report of a lab's folder beside the runs that it is about."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seawall.lab.part.node import whole
from seawall.lab.report.page import page
from seawall.lab.report.shelf import Shelf, read
from seawall.lab.report.summary import document, text

HTML, JSON = "index.html", "report.json"


@dataclass(frozen=True, slots=True)
class Report:
    """What was written, and from what."""

    html: Path
    json: Path
    shelf: Shelf


def write(folder: Path) -> Report:
    """``index.html`` and ``report.json`` anew, each replaced whole.

    Raises:
        OSError: They can't be written; what was there is there still.
    """
    shelf = read(folder)
    report = Report(folder / HTML, folder / JSON, shelf)
    whole(report.html, page(shelf))
    whole(report.json, text(document(shelf)))
    return report
