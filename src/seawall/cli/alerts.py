"""``seawall alerts`` and ``seawall breakers``."""

from __future__ import annotations

from typing import Any

import click

from seawall.cli.client import Client, find, part
from seawall.cli.listing import place_options
from seawall.cli.say import FAILED, json_option, say, say_json, say_table

ALERT_COLUMNS = ("since", "role", "name", "summary", "unaffected", "cure")
HISTORY_COLUMNS = ("raised_at", "cleared_at", "role", "name", "summary", "machine")
MOST = 500
"""What one answer has at most."""
BREAKER_COLUMNS = ("name", "role", "state", "retry_after_s", "without")


@click.group(epilog="Exit codes: 0 done, 1 failed, 2 misused, 4 unreachable.")
def alerts() -> None:
    """What is wrong now."""


@alerts.command(
    "list",
    epilog="""\b
Examples:
  seawall alerts list --json
  seawall alerts list --since 24h         also those that are over, of all machines""",
)
@click.option("--since", metavar="WHEN", help="Those that were raised up to so long ago (30m, 2h, 7d), over or not.")
@place_options
@json_option
def list_alerts(since: str | None, data: str | None, url: str | None, as_json: bool) -> None:
    """List the alerts that are raised, the oldest first. Works without the store, but for --since."""
    client = Client(find(data, url))
    if since is not None:
        past = client.get("/v1/alerts/history", since=since, limit=MOST)
        if len(past["items"]) >= MOST:
            say(f"seawall: these are the newest {MOST}, and there may be older ones", err=True)
        past["items"].reverse()
        if as_json:
            say_json(past)
        else:
            say_table(past["items"], HISTORY_COLUMNS, empty="nothing was wrong")
        return
    found = client.get("/v1/alerts")
    said(found, ALERT_COLUMNS, as_json=as_json, empty="nothing is wrong")


@click.group(epilog="Exit codes: 0 done, 1 not in every role, 2 misused, 3 no such breaker, 4 unreachable.")
def breakers() -> None:
    """Circuit breakers around what Seawall can do without."""


@breakers.command("list", epilog="Example: seawall breakers list")
@place_options
@json_option
def list_breakers(data: str | None, url: str | None, as_json: bool) -> None:
    """List every role's breakers, and what happens while each is open. Works without the store."""
    found = Client(find(data, url)).get("/v1/breakers")
    said(found, BREAKER_COLUMNS, as_json=as_json, empty="no breakers")


@breakers.command(
    epilog="""\b
Examples:
  seawall breakers force redis open       nobody asks Redis, until you let it go
  seawall breakers force redis auto       let it go: it decides by itself again"""
)
@click.argument("name")
@click.argument("state", type=click.Choice(["open", "closed", "auto"]))
@click.option("--why", default="", metavar="TEXT", help="Why, for whoever reads the timeline later.")
@place_options
@json_option
def force(name: str, state: str, why: str, data: str | None, url: str | None, as_json: bool) -> int:
    """Hold a breaker open or closed in every role that has it, or let it go. A restarted role has forgotten it."""
    found = Client(find(data, url)).send("POST", f"/v1/breakers/{part(name)}", {"state": state, "why": why})
    if as_json:
        say_json(found)
    else:
        say(f"{name}: {state} in {', '.join(found['roles']) or 'no role'}")
    return unasked(found, as_json=as_json)


def said(found: dict[str, list[Any]], columns: tuple[str, ...], *, as_json: bool, empty: str) -> None:
    """Show what all roles told."""
    if as_json:
        say_json(found)
        return
    say_table(found["items"], columns, empty=empty)
    unasked(found, as_json=as_json)


def unasked(found: dict[str, list[Any]], *, as_json: bool) -> int:
    """Name the roles that didn't answer; the exit code."""
    if found["unasked"] and not as_json:
        say(f"seawall: no answer from {', '.join(map(str, found['unasked']))}", err=True)
    return FAILED if found["unasked"] else 0
