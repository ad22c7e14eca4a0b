"""``seawall workflows``."""

from __future__ import annotations

from typing import Any

import click

from seawall.cli.client import Client, find, part
from seawall.cli.listing import place_options
from seawall.cli.say import MISUSED, Failed, json_option, say, say_json, say_table

COLUMNS = ("name", "version", "active", "workers", "held", "on", "queue", "registered_at")


@click.group(epilog="Exit codes: 0 done, 1 refused, 2 misused, 3 no such workflow or version, 4 unreachable.")
def workflows() -> None:
    """Workflows and their versions: which one new runs take. Runs that are under way keep theirs."""


@workflows.command("list", epilog="Example: seawall workflows list")
@place_options
@json_option
def list_(data: str | None, url: str | None, as_json: bool) -> None:
    """List workflows, the newest version of each first."""
    found = Client(find(data, url)).get("/v1/workflows")
    if as_json:
        say_json(found)
        return
    for line in found["items"]:
        said = [word for word, meant in (("yes", line["active"]), ("by hand", line["by_hand"])) if meant]
        line["active"] = ", ".join([*said, *(["frozen"] if line["active"] and line["frozen"] else [])]) or "no"
        line["workers"] = "there" if line["live"] else "none"
    say_table(found["items"], COLUMNS, empty="no workflows")


@workflows.command(
    epilog="""\b
Examples:
  seawall workflows activate deploy 2 --why 'version 3 pages everybody'
  seawall workflows activate deploy --automatic           the newest that workers have, again"""
)
@click.argument("name")
@click.argument("version", required=False)
@click.option("--automatic", is_flag=True, help="The newest version that workers have, as without a word.")
@click.option("--why", default="", metavar="TEXT", help="For the timeline.")
@place_options
@json_option
def activate(
    name: str, version: str | None, automatic: bool, why: str, data: str | None, url: str | None, as_json: bool
) -> None:
    """Have new runs take a version, until it is said otherwise or no worker has it any more."""
    if (version is None) is not automatic:
        raise Failed(MISUSED, "say a version, or --automatic")
    wish = {"automatic": True} if automatic else {"version": version}
    _put(name, {**wish, "why": why}, data, url, as_json=as_json)


@workflows.command(epilog="Example: seawall workflows rollback deploy --why 'version 3 pages everybody'")
@click.argument("name")
@click.option("--why", default="", metavar="TEXT", help="For the timeline.")
@place_options
@json_option
def rollback(name: str, why: str, data: str | None, url: str | None, as_json: bool) -> None:
    """Have new runs take the version before the one that they take now."""
    _put(name, {"rollback": True, "why": why}, data, url, as_json=as_json)


@workflows.command(epilog="Example: seawall workflows freeze deploy --why 'the cluster is being moved'")
@click.argument("name")
@click.option("--why", default="", metavar="TEXT", help="For the timeline.")
@place_options
@json_option
def freeze(name: str, why: str, data: str | None, url: str | None, as_json: bool) -> None:
    """Hold runs of new events, until it is unfrozen. Runs that are under way go on."""
    _put(name, {"frozen": True, "why": why}, data, url, as_json=as_json)


@workflows.command(epilog="Example: seawall workflows unfreeze deploy")
@click.argument("name")
@click.option("--why", default="", metavar="TEXT", help="For the timeline.")
@place_options
@json_option
def unfreeze(name: str, why: str, data: str | None, url: str | None, as_json: bool) -> None:
    """Begin runs of new events again, and those that were held meanwhile beside them."""
    _put(name, {"frozen": False, "why": why}, data, url, as_json=as_json)


def _put(name: str, wish: dict[str, Any], data: str | None, url: str | None, *, as_json: bool) -> None:
    found = Client(find(data, url)).send("POST", f"/v1/workflows/{part(name)}", wish)
    if as_json:
        say_json(found)
    else:
        say(f"{name}: {found['after']} (before: {found['before']})")
