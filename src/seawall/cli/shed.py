"""``seawall shed``: the list of what can be done without, and the hand on it."""

from __future__ import annotations

import click

from seawall.cli.alerts import said, unasked
from seawall.cli.client import Client, find, part
from seawall.cli.listing import place_options
from seawall.cli.say import json_option, say, say_json

COLUMNS = ("rank", "name", "role", "on", "why", "eases", "without")

WHY = click.option("--why", default="", metavar="TEXT", help="Why, for whoever reads the timeline later.")


@click.group(epilog="Exit codes: 0 done, 1 not in every role, 2 misused, 3 no such work, 4 unreachable.")
def shed() -> None:
    """Optional work: what goes off under load, in order, or by your hand."""


@shed.command("list", epilog="Example: seawall shed list")
@place_options
@json_option
def list_work(data: str | None, url: str | None, as_json: bool) -> None:
    """List optional work, the first to go first, and why what is off is off. Works without the store."""
    found = Client(find(data, url)).get("/v1/shed")
    for line in found["items"]:
        line["eases"] = line["eases"] if as_json else " ".join(line["eases"])
    said(found, COLUMNS, as_json=as_json, empty="no optional work")


@shed.command(epilog="Example: seawall shed off countries --why 'the resolver is slow'")
@click.argument("name")
@WHY
@place_options
@json_option
def off(name: str, why: str, data: str | None, url: str | None, as_json: bool) -> int:
    """Hold work off in every role that has it, also over a restart, until you let it go."""
    return _move(name, "off", why, data, url, as_json=as_json)


@shed.command(epilog="Example: seawall shed on countries")
@click.argument("name")
@WHY
@place_options
@json_option
def on(name: str, why: str, data: str | None, url: str | None, as_json: bool) -> int:
    """Hold work on, whatever the load, until you let it go."""
    return _move(name, "on", why, data, url, as_json=as_json)


@shed.command(epilog="Example: seawall shed auto countries")
@click.argument("name")
@WHY
@place_options
@json_option
def auto(name: str, why: str, data: str | None, url: str | None, as_json: bool) -> int:
    """Let work go: the load decides again."""
    return _move(name, "auto", why, data, url, as_json=as_json)


def _move(name: str, state: str, why: str, data: str | None, url: str | None, *, as_json: bool) -> int:
    found = Client(find(data, url)).send("POST", f"/v1/shed/{part(name)}", {"state": state, "why": why})
    if as_json:
        say_json(found)
    else:
        say(f"{name}: {state} in {', '.join(found['roles']) or 'no role'}")
    return unasked(found, as_json=as_json)
