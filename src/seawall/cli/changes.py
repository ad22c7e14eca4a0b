"""``seawall changes``."""

from __future__ import annotations

from typing import Any

import click

from seawall.cli.client import Client, find
from seawall.cli.flags import CHANGE_COLUMNS
from seawall.cli.listing import place_options
from seawall.cli.say import FAILED, json_option, say_json, say_table
from seawall.kernel.seam.change import Kind

KINDS = tuple(kind.value for kind in Kind)
PAGE = 500


@click.command(
    epilog="""\b
Examples:
  seawall changes --since 2h
  seawall changes --since 7d --kind flag --json
  seawall changes --kind source --what gh --since 2026-01-31T12:00:00Z

\b
While the store is away, only what this machine noted itself is shown; all the rest is there when it is back.
Exit codes: 0 done, 1 the store didn't answer, 2 misused, 4 unreachable."""
)
@click.option(
    "--since", default="24h", show_default=True, metavar="WHEN", help="How long ago (30m, 2h, 7d), or a time."
)
@click.option("--kind", type=click.Choice(KINDS), help="Only changes of this kind.")
@click.option("--what", metavar="NAME", help="Only changes of this flag, source, setting or role; with --kind.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=1000, show_default=True, metavar="N",
              help="At most so many, the newest.")  # fmt: skip
@place_options
@json_option
def changes(
    since: str, kind: str | None, what: str | None, limit: int, data: str | None, url: str | None, as_json: bool
) -> int:
    """Everything that was changed, and by whom, newest last: versions, settings, flags, sources, restarts, …"""
    client = Client(find(data, url))
    items: list[dict[str, Any]] = []
    cursor: str | None = None
    trouble = ""
    while len(items) < limit:
        count = min(PAGE, limit - len(items))
        page = client.get("/v1/changes", since=since, kind=kind, what=what, limit=count, cursor=cursor)
        items += page["items"]
        trouble, cursor = trouble or page["trouble"], page["next"]
        if cursor is None:
            break
    items.reverse()
    if as_json:
        say_json({"items": items, "complete": not trouble and cursor is None, "trouble": trouble})
    else:
        say_table(items, CHANGE_COLUMNS, empty="nothing was changed")
    if cursor is not None:
        click.echo(f"seawall: there are older ones; --limit {limit} is reached", err=True)
    if trouble:
        click.echo(f"seawall: the store doesn't answer; these are this machine's own: {trouble}", err=True)
    return FAILED if trouble else 0
