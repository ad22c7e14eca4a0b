"""``seawall cron``."""

from __future__ import annotations

from typing import Any

import click

from seawall.cli.client import Client, find, part
from seawall.cli.listing import place_options
from seawall.cli.say import json_option, say, say_json, say_table

COLUMNS = ("name", "expression", "zone", "tenant", "paused", "next_at", "last_at", "begun", "skipped", "missed")


@click.group(epilog="Exit codes: 0 done, 1 failed, 2 misused, 3 no such schedule, 4 unreachable.")
def cron() -> None:
    """Schedules: workflows that begin by themselves."""


@cron.command("list", epilog="Example: seawall cron list")
@place_options
@json_option
def list_(data: str | None, url: str | None, as_json: bool) -> None:
    """List schedules: when they are due next, and how many moments had no run since the former one went on."""
    found = Client(find(data, url)).get("/v1/crons")
    if as_json:
        say_json(found)
        return
    for line in found["items"]:
        line["tenant"] = f"all ({line['lines']})" if line["tenant"] is None else line["tenant"]
        line["paused"] = "yes" if line["paused"] else "no"
    say_table(found["items"], COLUMNS, empty="no schedules")


@cron.command(epilog="Example: seawall cron pause ingest --why 'their API is down'")
@click.argument("name")
@click.option("--why", default="", metavar="TEXT", help="For the timeline.")
@place_options
@json_option
def pause(name: str, why: str, data: str | None, url: str | None, as_json: bool) -> None:
    """Begin no runs of a schedule. Moments that pass meanwhile are not made up for."""
    _put(name, {"paused": True, "why": why}, data, url, as_json=as_json)


@cron.command(epilog="Example: seawall cron resume ingest")
@click.argument("name")
@click.option("--why", default="", metavar="TEXT", help="For the timeline.")
@place_options
@json_option
def resume(name: str, why: str, data: str | None, url: str | None, as_json: bool) -> None:
    """Let a paused schedule go on with its next moment."""
    _put(name, {"paused": False, "why": why}, data, url, as_json=as_json)


@cron.command(epilog="Example: seawall cron trigger ingest --tenant acme --why 'they asked'")
@click.argument("name")
@click.option("--tenant", default="", metavar="NAME", help="Whose run; needed where each tenant has its own.")
@click.option("--why", default="", metavar="TEXT", help="For the timeline.")
@place_options
@json_option
def trigger(name: str, tenant: str, why: str, data: str | None, url: str | None, as_json: bool) -> None:
    """Begin a run now, whatever the schedule says, and beside one that goes on."""
    found = Client(find(data, url)).send("POST", f"/v1/crons/{part(name)}/trigger", {"tenant": tenant, "why": why})
    if as_json:
        say_json(found)
    else:
        say(f"{found['name']}: run {found['run']} of tenant {found['tenant']}")


def _put(name: str, wish: dict[str, Any], data: str | None, url: str | None, *, as_json: bool) -> None:
    found = Client(find(data, url)).send("POST", f"/v1/crons/{part(name)}", wish)
    if as_json:
        say_json(found)
    else:
        say(f"{found['name']}: {found['after']} (before: {found['before']})")
