"""``seawall events``."""

from __future__ import annotations

import sys
from typing import Any

import click

from seawall.cli import way as ways
from seawall.cli.client import Client, find, part
from seawall.cli.listing import page_options, place_options, say_count, say_page, where_option
from seawall.cli.say import json_option, say_fields, say_json, say_text

COUNT_COLUMNS = ("count", "source", "type", "day", "status", "cause")
COLUMNS = ("id", "received_at", "source", "type", "tenant", "status", "cause")


@click.group(epilog="Exit codes: 0 done, 1 failed, 2 misused, 3 no such event, 4 unreachable.")
def events() -> None:
    """Look at events that came in."""


@events.command(
    "list",
    epilog="""\b
Examples:
  seawall events list
  seawall events list --type github.push --status routed --limit 20
  seawall events list --where 'state=dead, cause=decode, since=7d'
  seawall events list --cursor "$(seawall events list --json | jq -r .next)" """,
)
@where_option
@click.option("--source", metavar="NAME", help="Only of this source.")
@click.option("--type", metavar="TYPE", help="Only of this type, such as github.push.")
@click.option("--status", metavar="STATUS", help="routed, held, conflict or dead.")
@click.option("--tenant", metavar="NAME", help="Only of this tenant.")
@page_options
@place_options
@json_option
def list_(data: str | None, url: str | None, as_json: bool, **query: Any) -> None:
    """List events, newest first."""
    found = Client(find(data, url)).get("/v1/events", **query)
    say_page(found, COLUMNS, as_json=as_json, empty="no events")


@events.command(epilog="Example: seawall events count --where 'state=dead, since=7d'")
@where_option
@place_options
@json_option
def count(where: str | None, data: str | None, url: str | None, as_json: bool) -> None:
    """Count events: by source, type, day, state and cause. Those of the last day, unless --where says since when."""
    found = Client(find(data, url)).get("/v1/events/count", where=where)
    if as_json:
        say_json(found)
    else:
        say_count(found, COUNT_COLUMNS, what="events")


@events.command(epilog="Example: seawall events show 0193f6a0-7c1e-7d3a-9b42-5f0e8c6d1a2b")
@click.argument("id")
@place_options
@json_option
def show(id: str, data: str | None, url: str | None, as_json: bool) -> None:
    """Show one event: its headers, where it lies in the journal, and its runs."""
    found = Client(find(data, url)).get(f"/v1/events/{part(id)}")
    if as_json:
        say_json(found)
        return
    say_fields(found)


@events.command(epilog="Example: seawall events raw 0193f6a0-7c1e-7d3a-9b42-5f0e8c6d1a2b > body.json")
@click.argument("id")
@click.option("--request", "whole", is_flag=True, help="Headers too, as `seawall send --file` takes them.")
@place_options
def raw(id: str, whole: bool, data: str | None, url: str | None) -> None:
    """Write an event's body, exactly the bytes that came, to standard output. A terminal is shown them with what it
    can't show spelt out."""
    client = Client(find(data, url))
    parts = []
    if whole:
        for name, value in client.get(f"/v1/events/{part(id)}")["headers"]:
            parts.append(f"{name}: {value}\r\n".encode("latin-1", "replace"))
        parts.append(b"\r\n")
    parts.append(client.raw(f"/v1/events/{part(id)}/raw"))
    if sys.stdout.isatty():
        say_text(b"".join(parts).decode("utf-8", "replace"))
    else:
        sys.stdout.buffer.writelines(parts)


@events.command(epilog="Example: seawall events way 0193f6a0-7c1e-7d3a-9b42-5f0e8c6d1a2b")
@click.argument("id")
@place_options
@json_option
def way(id: str, data: str | None, url: str | None, as_json: bool) -> None:
    """Show an event's way through the platform, stage by stage, with times."""
    found = ways.read(Client(find(data, url)), id)
    if as_json:
        say_json(found)
    else:
        ways.say(found)
