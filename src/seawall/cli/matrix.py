"""``seawall lab matrix``: what each flow does when each of its dependencies fails, and what proves it."""

from __future__ import annotations

import click

from seawall.cli.say import json_option, say_json, say_table
from seawall.lab.matrix import cells, rows

COLUMNS = ("flow", "dependency", "way", "promise", "by")


@click.command(
    epilog="""\b
Examples:
  seawall lab matrix
  seawall lab matrix --json

\b
Tests are named as in a clone, below tests/; experiments are those of `seawall lab list`.
Exit code: 0."""
)
@json_option
def matrix(as_json: bool) -> int:
    """Show what is promised when a dependency is slow, hung or gone, and by what that is proven."""
    found = rows(cells())
    if as_json:
        say_json({"cells": found})
        return 0
    shown = [
        {**row, "promise": row["promise"] if row["called"] else "not called", "by": ", ".join(row["by"])}
        for row in found
    ]  # fmt: skip
    say_table(shown, COLUMNS, empty="no cells")
    return 0
