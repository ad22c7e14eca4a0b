"""``seawall steps``."""

from __future__ import annotations

from dataclasses import asdict

import click

from seawall.cli.say import FAILED, json_option, say, say_json, say_table
from seawall.step.installed import installed

COLUMNS = ("name", "version", "package", "does")


@click.group()
def steps() -> None:
    """Steps that workflows may use: those that ship with Seawall, and those of other packages.

    A package announces its steps under the entry point group `seawall.steps` (docs/steps.md).
    """


@steps.command(
    "list",
    epilog="""\b
Examples:
  seawall steps list
  seawall steps list --json

\b
Imports the packages that announce steps. Needs no platform.
Exit codes: 0 all can be used, 1 one is broken: a line on standard error says of which package, and why.""",
)
@json_option
def list_(as_json: bool) -> int:
    """Every step that is installed, with its version and its package."""
    found = installed()
    if as_json:
        say_json({"items": [asdict(one) for one in found]})
    else:
        say_table([asdict(one) for one in found if not one.problem], COLUMNS, empty="no steps")
    for one in found:
        if one.problem:
            say(f"seawall: {one.problem}", err=True)
    return FAILED if any(one.problem for one in found) else 0
