"""``seawall lab report``: a page and a file about the runs of experiments."""

from __future__ import annotations

from pathlib import Path

import click

from seawall.cli.experiment import folder_option
from seawall.cli.say import FAILED, NOT_FOUND, Failed, json_option, say, say_json, say_table
from seawall.lab.report import write
from seawall.lab.report.summary import ABOUT, COLUMNS, document, rows


@click.command(
    epilog="""\b
Examples:
  seawall lab report
  seawall lab report --folder build/lab --json

\b
Writes index.html, which works offline, and report.json into the folder, about the newest run of each experiment with
and without the protections; older ones are listed. Nothing is run.
Exit codes: 0 all of them came out as expected; 1 not all, one was run only without the protections, or it couldn't be
written; 3 there are no runs."""
)
@folder_option
@json_option
def report(folder: str, as_json: bool) -> int:
    """Show what became of each experiment, beside the incident that it is about."""
    place = Path(folder)
    if not (place / "run").is_dir():
        raise Failed(NOT_FOUND, f"{folder} has no runs; seawall lab run makes them")
    try:
        written = write(place)
    except OSError as error:
        raise Failed(FAILED, f"{folder}: {error}") from error
    if as_json:
        say_json(document(written.shelf))
    else:
        records = [run.record for run in written.shelf.newest]
        say_table(rows(records), COLUMNS, empty="no runs")
        for line in (*written.shelf.problems, ABOUT, f"{written.html}", f"{written.json}"):
            say(line)
    if not written.shelf.newest:
        return NOT_FOUND
    return 0 if written.shelf.as_expected else FAILED
