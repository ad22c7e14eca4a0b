"""``seawall settings``."""

from __future__ import annotations

import click

from seawall.cli.place import folder_of, reader
from seawall.cli.say import data_option, json_option, say_json, say_table


@click.command(
    epilog="""\b
Examples:
  seawall settings                        every setting as a start would see it now
  seawall settings --changed              only what isn't the default
  SEAWALL_LOG_LEVEL=debug seawall settings --json

Exit codes: 0 all is well, 2 something is refused: each problem is a line on standard error."""
)
@data_option
@click.option("--config", metavar="FILE", help="Settings file. [default: DIR/seawall.toml]")
@click.option("--changed", is_flag=True, help="Leave out what has its default.")
@json_option
def settings(data: str | None, config: str | None, changed: bool, as_json: bool) -> None:
    """Show every setting: its value, where it comes from, what is allowed and what it does. Secrets are hidden."""
    values = reader(folder_of(data), config, {})().values.values()
    rows = [
        {"key": v.key, "value": v.shown, "origin": v.origin, "allowed": v.allowed, "live": v.live, "help": v.help}
        for v in values
        if not changed or v.origin != "default"
    ]
    if as_json:
        say_json(rows)
    else:
        say_table(rows, ["key", "value", "origin", "allowed", "help"], empty="every setting has its default")
