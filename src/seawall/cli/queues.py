"""``seawall queues``."""

from __future__ import annotations

from typing import Any

import click

from seawall.cli.client import Client, find, part
from seawall.cli.listing import place_options
from seawall.cli.say import MISUSED, Failed, json_option, say, say_json, say_table

COLUMNS = ("name", "reserved", "max", "paused", "ready", "limited", "held", "served", "workflows")
TOP_COLUMNS = ("slots", "share", "turns", "s/turn", "then", "slower")
OTHERS = "(others)"
DECLARED = "declared"


@click.group(epilog="Exit codes: 0 done, 1 failed, 2 misused, 3 no such queue, 4 unreachable.")
def queues() -> None:
    """Queues: how many runs of each may be in hand, and which are paused. A slot is a run in a worker's hands."""


@queues.command("list", epilog="Example: seawall queues list")
@place_options
@json_option
def list_(data: str | None, url: str | None, as_json: bool) -> None:
    """List queues: slots, ready runs, and how many of its shards are served."""
    found = Client(find(data, url)).get("/v1/queues")
    if as_json:
        say_json(found)
        return
    for line in found["items"]:
        line["max"] = "all" if line["max"] is None else line["max"]
        line["paused"] = "yes" if line["paused"] else "no"
        line["served"] = f"{line['served']} of {line['shards']}"
        line["workflows"] = " ".join(line["workflows"])
    say_table(found["items"], COLUMNS, empty="no queues")


@queues.command(
    epilog="""\b
Examples:
  seawall queues top
  seawall queues top --by tenant --since 1h --json

\b
SLOTS is how many were held on average; S/TURN, how long a run held one, and THEN the same an hour before (or in
the window before, where nothing is known of that hour). Runs in hand count while they run."""
)
@click.option("--since", default="15m", show_default=True, metavar="WHEN", help="Up to how long ago: 1m to 6h.")
@click.option("--by", type=click.Choice(["queue", "workflow", "tenant"]), default="queue", show_default=True,
              help="What is added up.")  # fmt: skip
@place_options
@json_option
def top(since: str, by: str, data: str | None, url: str | None, as_json: bool) -> None:
    """Who eats the capacity, the largest first; also when each piece only got slower."""
    found = Client(find(data, url)).get("/v1/slots", since=since, by=by)
    if as_json:
        say_json(found)
        return
    for line in found["items"]:
        line[by] = line["name"] or OTHERS
        line["share"] = f"{line['share']:.0%}"
        line["s/turn"], line["then"] = line["seconds_per_turn"], line["then_seconds_per_turn"]
        line["slower"] = None if line["slower"] is None else f"{line['slower']:g} x"
    say_table(found["items"], (by, *TOP_COLUMNS), empty="no run held a slot")


@queues.command(epilog="Example: seawall queues pause bulk --why 'their API is down'")
@click.argument("name")
@click.option("--why", default="", metavar="TEXT", help="For the timeline.")
@place_options
@json_option
def pause(name: str, why: str, data: str | None, url: str | None, as_json: bool) -> None:
    """Begin no more runs of a queue. What is in hand goes on; nothing expires."""
    _put(name, {"paused": True, "why": why}, data, url, as_json=as_json)


@queues.command(epilog="Example: seawall queues resume bulk")
@click.argument("name")
@click.option("--why", default="", metavar="TEXT", help="For the timeline.")
@place_options
@json_option
def resume(name: str, why: str, data: str | None, url: str | None, as_json: bool) -> None:
    """Let a paused queue go on."""
    _put(name, {"paused": False, "why": why}, data, url, as_json=as_json)


@queues.command(
    "set",
    epilog="""\b
Examples:
  seawall queues set runbooks --reserved 50
  seawall queues set bulk --max 20 --why 'it eats the database'
  seawall queues set bulk --max declared                      as the app says
  seawall queues set bulk --weight acme=4 --depth-max 100000""",
)
@click.argument("name")
@click.option("--reserved", metavar="N", help="Slots that no other queue's runs take; 'declared': as the app says.")
@click.option("--max", "most", metavar="N", help="Most runs in hand at once; 'declared': as the app says.")
@click.option("--depth-max", metavar="N",
              help="Unfinished runs from which on events are held; 0: no bound; 'declared'.")  # fmt: skip
@click.option("--weight", "weights", multiple=True, metavar="TENANT=N",
              help="Turns of a tenant for each of another's, 1 to 1000, or 'declared'; repeatable.")  # fmt: skip
@click.option("--why", default="", metavar="TEXT", help="For the timeline.")
@place_options
@json_option
def set_(
    name: str, reserved: str | None, most: str | None, depth_max: str | None, weights: tuple[str, ...], why: str,
    data: str | None, url: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Set a queue's slots, bound and weights by hand, in place of what its app declares."""
    if reserved is None and most is None and depth_max is None and not weights:
        raise Failed(MISUSED, "nothing to set: give --reserved, --max, --depth-max or --weight")
    wish: dict[str, Any] = {
        "reserved": _number("--reserved", reserved), "max": _number("--max", most),
        "depth_max": _number("--depth-max", depth_max), "why": why,
    }  # fmt: skip
    if weights:
        wish["weights"] = dict(_weight(text) for text in weights)
    _put(name, wish, data, url, as_json=as_json)


def _weight(text: str) -> tuple[str, int | str | None]:
    tenant, equals, weight = text.rpartition("=")
    if not (tenant and equals):
        raise Failed(MISUSED, f"--weight {text}: write it as TENANT=4")
    return tenant, _number(f"--weight {tenant}", weight)


def _number(option: str, text: str | None) -> int | str | None:
    if text is None or text == DECLARED:
        return text
    if not text.isascii() or not text.isdigit():
        raise Failed(MISUSED, f"{option} {text}: a whole number, or {DECLARED}")
    return int(text)


def _put(name: str, wish: dict[str, Any], data: str | None, url: str | None, *, as_json: bool) -> None:
    found = Client(find(data, url)).send("POST", f"/v1/queues/{part(name)}", wish)
    if as_json:
        say_json(found)
    else:
        say(f"{name}: {found['after']} (before: {found['before']})")
