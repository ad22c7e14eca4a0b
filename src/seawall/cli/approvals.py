"""``seawall approvals``, and ``seawall runs approve``."""

from __future__ import annotations

from typing import Any

import click

from seawall.cli.client import Client, find, part
from seawall.cli.listing import page_options, place_options, say_page
from seawall.cli.say import json_option, say, say_json

COLUMNS = ("id", "run", "workflow", "question", "to", "state", "expires_at", "by", "via", "comment")


@click.group(epilog="Exit codes: 0 done, 1 failed, 2 misused, 4 unreachable.")
def approvals() -> None:
    """What runs ask people."""


@approvals.command(
    "list",
    epilog="""\b
Examples:
  seawall approvals list
  seawall approvals list --all --json""",
)
@click.option(
    "--all", "every", is_flag=True, help="Also those that were decided, have expired, or whose run has ended."
)
@page_options
@place_options
@json_option
def list_(data: str | None, url: str | None, as_json: bool, every: bool, **query: Any) -> None:
    """List what may be decided now, newest first. Who has decided: by link (it was theirs), form (a name that was given
    with the link) or api."""
    found = Client(find(data, url)).get("/v1/approvals", state="all" if every else "open", **query)
    if not as_json:
        for line in found["items"]:
            line["to"] = ", ".join(line["to"]) or "whoever has the link"
    say_page(found, COLUMNS, as_json=as_json, empty="nobody is asked")


@click.command(
    epilog="""\b
Examples:
  seawall runs approve 357402498015232 --yes
  seawall runs approve 357402498015232 --no --by ana --comment 'not on a Friday'"""
)
@click.argument("id")
@click.option("--yes/--no", "approved", default=None, help="Approve, or decline.", required=True)
@click.option("--by", default="", metavar="NAME", help="Who decides. [default: you]")
@click.option("--comment", default="", metavar="TEXT", help="For the run, and the timeline.")
@click.option("--approval", default="", metavar="ID", help="Which request, where the run has several.")
@place_options
@json_option
def approve(
    id: str, approved: bool, by: str, comment: str, approval: str, data: str | None, url: str | None, as_json: bool
) -> None:
    """Decide what a run asks people. It counts once: exit code 1 when somebody was first, or the time is over."""
    wish = {"approved": approved, "by": by, "comment": comment, "approval": approval}
    found = Client(find(data, url)).send("POST", f"/v1/runs/{part(id)}/approve", wish)
    if as_json:
        say_json(found)
    else:
        say(f"run {found['run']}: {found['question']} {found['state']} by {found['by']}")
