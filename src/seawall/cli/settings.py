"""``seawall settings``."""

from __future__ import annotations

from pathlib import Path

import click

from seawall.cli.place import folder_of, reader
from seawall.cli.say import FAILED, data_option, json_option, say_json, say_table
from seawall.kernel.error import Misconfigured
from seawall.machine.folder import Lock
from seawall.machine.tuning import reloaded
from seawall.settings import load_resolved


@click.group(
    invoke_without_command=True,
    epilog="""\b
Examples:
  seawall settings                        every setting as a start would see it now
  seawall settings --changed              only what isn't the default
  SEAWALL_LOG_LEVEL=debug seawall settings --json

Exit codes: 0 all is well, 2 something is refused: each problem is a line on standard error.""",
)
@data_option
@click.option("--config", metavar="FILE", help="Settings file. [default: DIR/seawall.toml]")
@click.option("--changed", is_flag=True, help="Leave out what has its default.")
@json_option
@click.pass_context
def settings(ctx: click.Context, data: str | None, config: str | None, changed: bool, as_json: bool) -> None:
    """Show every setting: its value, where it comes from, what is allowed and what it does. Secrets are hidden.

    `seawall settings diff FILE` previews what a reload with that file would change.
    """
    if ctx.invoked_subcommand is not None:
        if config or changed or as_json:
            raise click.UsageError(f"these options belong after `{ctx.invoked_subcommand}`")
        ctx.obj = data
        return
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


@settings.command(
    epilog="""\b
Examples:
  seawall settings diff new.toml                       before: mv new.toml DIR/seawall.toml; kill -HUP
  seawall settings diff new.toml --data /srv/seawall --json

\b
Exit codes: 0 a reload would take all of it over (or nothing differs), 1 some of it needs a restart,
2 the file would be refused and nothing changed: each problem is a line on standard error."""
)
@click.argument("file", metavar="FILE")
@data_option
@json_option
@click.pass_context
def diff(ctx: click.Context, file: str, data: str | None, as_json: bool) -> int:
    """Say what would change if FILE were the settings file and were read again. Changes nothing.

    Compared with the running platform, flags and variables that it was started with included; with what a start would
    see when nothing runs.
    """
    folder = folder_of(data if data is not None else ctx.obj)
    running = Lock(folder.path / "lock").held()
    try:
        now = load_resolved(folder.resolved_file) if running else reader(folder, None, {})()
        tuned = reloaded(now, Path(file)) if running else now.tuned(reader(folder, file, {})())
    except Misconfigured as error:
        if as_json:
            say_json({"running": running, "accepted": False, "problems": list(error.problems), "changes": []})
        raise
    rows = [
        {"key": one.key, "now": one.before, "then": one.after, "takes": "reload" if one.live else "restart",
         "origin": one.then.origin}
        for one in tuned.differences
    ]  # fmt: skip
    if as_json:
        say_json({"running": running, "accepted": True, "problems": [], "changes": rows})
    else:
        say_table(rows, ["key", "now", "then", "takes", "origin"], empty="nothing would change")
    return FAILED if tuned.kept else 0
