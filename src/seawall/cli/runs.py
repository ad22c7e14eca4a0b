"""``seawall runs``."""

from __future__ import annotations

from typing import Any

import click

from seawall.cli import bulk
from seawall.cli.approvals import approve
from seawall.cli.check import check
from seawall.cli.client import Client, find, part
from seawall.cli.draw import TIMELINE_COLUMNS, drawn
from seawall.cli.listing import page_options, place_options, say_page, where_option
from seawall.cli.say import FAILED, MISUSED, Failed, json_option, say, say_fields, say_json, say_table

COLUMNS = ("id", "workflow", "version", "status", "cause", "attempt", "created_at", "finished_at", "event")
STEP_COLUMNS = ("name", "task", "nth", "attempt", "started_at", "finished_at", "result")


@click.group(epilog="Exit codes: 0 done, 1 failed, 2 misused, 3 no such run or another count, 4 unreachable.")
def runs() -> None:
    """Look at runs of workflows, and act on many at once."""


@runs.command(
    "list",
    epilog="""\b
Examples:
  seawall runs list
  seawall runs list --status failed --workflow deploy
  seawall runs list --where 'state=failed|dead, cause=attempts, type=github.*, since=2h'
  seawall runs list --event 0193f6a0-7c1e-7d3a-9b42-5f0e8c6d1a2b --json""",
)
@where_option
@click.option("--event", metavar="ID", help="Only of this event.")
@click.option("--source", metavar="NAME", help="Only of events of this source.")
@click.option("--workflow", metavar="NAME", help="Only of this workflow.")
@click.option("--status", metavar="STATUS", help="queued, waiting, running, succeeded, failed, cancelled, dead …")
@click.option("--tenant", metavar="NAME", help="Only of this tenant.")
@page_options
@place_options
@json_option
def list_(data: str | None, url: str | None, as_json: bool, **query: Any) -> None:
    """List runs, newest first."""
    found = Client(find(data, url)).get("/v1/runs", **query)
    say_page(found, COLUMNS, as_json=as_json, empty="no runs")


@runs.command(epilog="Example: seawall runs show 357402498015232")
@click.argument("id")
@place_options
@json_option
def show(id: str, data: str | None, url: str | None, as_json: bool) -> None:
    """Show one run: its state, its result or error, its steps, and its way from the beginning."""
    found = Client(find(data, url)).get(f"/v1/runs/{part(id)}")
    if as_json:
        say_json(found)
        return
    steps, moments = found.pop("steps", []), found.pop("timeline", [])
    say_fields(found)
    say_table(steps, STEP_COLUMNS, empty="no steps")
    if moments:
        say("")
        say_table(drawn(moments), TIMELINE_COLUMNS, empty="")


@runs.command(
    epilog="""\b
Examples:
  seawall runs cancel 357402498015232 --why 'wrong channel'
  seawall runs cancel --where 'queue=bulk, tenant=acme'                      counts, and does nothing
  seawall runs cancel --where 'queue=bulk, tenant=acme' --expect-count 120"""
)
@click.argument("id", required=False)
@bulk.act_options(required=False)
@click.option("--why", default="", metavar="TEXT", help="For the timeline, and the run's error.")
@place_options
@json_option
def cancel(
    id: str | None,
    where: str | None,
    expect_count: int | None,
    why: str,
    data: str | None,
    url: str | None,
    as_json: bool,
) -> int:
    """End a run, or all those that --where means. One that a worker has in hand is told: its `finally` runs, and after
    some seconds it has ended."""
    if (id is None) == (where is None) or (expect_count is not None and where is None):
        raise Failed(MISUSED, "give the id of a run, or --where and --expect-count")
    if where is not None:
        return bulk.ask("cancel", where, expect_count, why, Client(find(data, url)), as_json=as_json)
    assert id is not None
    found = Client(find(data, url)).send("POST", f"/v1/runs/{part(id)}/cancel", {"why": why})
    if as_json:
        say_json(found)
    else:
        say(f"run {found['id']}: {found['after']} (before: {found['before']})")
    return 0


@runs.command(
    epilog="""\b
Examples:
  seawall runs move 357402498015232 --to-version 3 --why 'nobody has version 2 any more'
  seawall runs list --where 'state=queued, workflow=deploy, version=2' --json | jq -r '.items[].id' \\
    | xargs seawall runs move --to-version 3"""
)
@click.argument("ids", nargs=-1, required=True)
@click.option("--to-version", required=True, metavar="VERSION", help="Of the runs' own workflow.")
@click.option("--why", default="", metavar="TEXT", help="For the timeline.")
@place_options
@json_option
def move(ids: tuple[str, ...], to_version: str, why: str, data: str | None, url: str | None, as_json: bool) -> int:
    """Have runs go on with another version of their workflow. What they have done is kept; one that a worker has in
    hand isn't moved. Exit code 1: some weren't."""
    wish = {"ids": list(ids), "to_version": to_version, "why": why}
    found = Client(find(data, url)).send("POST", "/v1/runs/move", wish)
    if as_json:
        say_json(found)
    else:
        say(f"moved to version {to_version}: {len(found['moved'])}")
        say_table(found["missed"], ("id", "why"), empty="all of them")
    return FAILED if found["missed"] else 0


# The acts on many of them stand in a file of their own.
for command in (approve, check, bulk.count, bulk.hold, bulk.release, bulk.retry):
    runs.add_command(command)
