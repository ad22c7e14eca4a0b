"""``seawall replay`` and ``seawall replays``."""

from __future__ import annotations

from typing import Any

import click

from seawall.cli.client import Client, find, part
from seawall.cli.listing import page_options, place_options, say_count, say_page
from seawall.cli.say import MISUSED, Failed, json_option, say, say_fields, say_json, say_table
from seawall.kernel.moment import per_second, span_s

GROUP_COLUMNS = ("count", "source", "type", "day", "status", "cause")
START_COLUMNS = ("workflow", "version", "queue", "runs")
COLUMNS = ("id", "where", "state", "total", "seen", "runs", "rate", "rate_now", "eta", "at")


@click.command(
    epilog="""\b
Examples:
  seawall replay --where 'source=gh, since=6h' --dry-run
  seawall replay --where 'source=gh, type=github.push, since=6h' --rate 50/s --ramp 10m --why 'after the outage'
  seawall replay --where 'state=conflict, since=2d' --workflow deploy@3 --rate 5/s

\b
Its runs wait in a queue beside that of their workflow (replay.QUEUE), so that fresh work never waits behind them. The
governor slows it down while the store is slow or executions fail; seawall replays list shows how far it is.
Exit codes: 0 done, 1 failed, 2 misused, 4 unreachable."""
)
@click.option("--where", metavar="SELECTION", required=True, help="Which events: 'source=gh, type=github.*, since=6h'.")
@click.option("--since", metavar="WHEN", help="Only those accepted since then; else the last day.")
@click.option("--rate", default="50/s", show_default=True, metavar="R", help="Events a second: 50/s, 300/m.")
@click.option(
    "--ramp", default="10m", show_default=True, metavar="SPAN", help="How long it rises to that; 0s: not at all."
)
@click.option("--workflow", metavar="NAME[@VERSION]", help="Only this one; else all that take new events of the type.")
@click.option("--dry-run", is_flag=True, help="Say what would come of it, and do nothing.")
@click.option("--why", default="", metavar="TEXT", help="For the timeline.")
@place_options
@json_option
def replay(
    where: str, since: str | None, rate: str, ramp: str, workflow: str | None, dry_run: bool, why: str,
    data: str | None, url: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Run stored events once more, as new runs."""
    if since is not None:
        where = f"{where}, since={since}" if where.strip() else f"since={since}"
    wish = {"where": where, "rate": _rate(rate), "ramp_s": _span(ramp), "workflow": workflow, "why": why}
    client = Client(find(data, url))
    found = client.send("POST", "/v1/replays/plan" if dry_run else "/v1/replays", wish)
    if as_json:
        say_json(found)
    elif dry_run:
        say_count(found, GROUP_COLUMNS, what="events")
        say_table(found["starts"], START_COLUMNS, empty="no workflow would begin")
        say(f"in about {_lasting(found['eta_s'])}, when nothing stands against it; nothing was done")
    else:
        say(f"replay {found['id']}: {found['total']} events; see seawall replays show {found['id']}")


@click.group(epilog="Exit codes: 0 done, 1 failed, 2 misused, 3 no such replay, 4 unreachable.")
def replays() -> None:
    """Replays: seawall replay begins one."""


@replays.command("list", epilog="Example: seawall replays list")
@page_options
@place_options
@json_option
def list_(data: str | None, url: str | None, as_json: bool, **query: Any) -> None:
    """List them, newest first, and how far they have come."""
    found = Client(find(data, url)).get("/v1/replays", **query)
    if not as_json:
        for line in found["items"]:
            line["eta"] = None if line["eta_s"] is None else _lasting(line["eta_s"])
    say_page(found, COLUMNS, as_json=as_json, empty="no replays")


@replays.command(epilog="Example: seawall replays show 3")
@click.argument("id")
@place_options
@json_option
def show(id: str, data: str | None, url: str | None, as_json: bool) -> None:
    """Show one."""
    found = Client(find(data, url)).get(f"/v1/replays/{part(id)}")
    if as_json:
        say_json(found)
    else:
        say_fields(found)


@replays.command(epilog="Example: seawall replays pause 3 --why 'their API is slow'")
@click.argument("id")
@click.option("--why", default="", metavar="TEXT", help="For the timeline.")
@place_options
@json_option
def pause(id: str, why: str, data: str | None, url: str | None, as_json: bool) -> None:
    """Begin no more of its events; runs that it began go on."""
    _put(id, {"state": "paused", "why": why}, data, url, as_json=as_json)


@replays.command(epilog="Example: seawall replays resume 3 --rate 20/s")
@click.argument("id")
@click.option("--rate", metavar="R", help="Another rate than before: 20/s.")
@click.option("--why", default="", metavar="TEXT", help="For the timeline.")
@place_options
@json_option
def resume(id: str, rate: str | None, why: str, data: str | None, url: str | None, as_json: bool) -> None:
    """Let it go on, from where it was, and slowly at first."""
    wish = {"state": "running", "why": why, "rate": None if rate is None else _rate(rate)}
    _put(id, wish, data, url, as_json=as_json)


@replays.command(epilog="Example: seawall replays cancel 3")
@click.argument("id")
@click.option("--why", default="", metavar="TEXT", help="For the timeline.")
@place_options
@json_option
def cancel(id: str, why: str, data: str | None, url: str | None, as_json: bool) -> None:
    """End it. Runs that it began go on: seawall runs cancel --where 'queue=replay.QUEUE' ends those."""
    _put(id, {"state": "cancelled", "why": why}, data, url, as_json=as_json)


def _put(id: str, wish: dict[str, Any], data: str | None, url: str | None, *, as_json: bool) -> None:
    found = Client(find(data, url)).send("POST", f"/v1/replays/{part(id)}", wish)
    if as_json:
        say_json(found)
    else:
        say(f"replay {found['id']}: {found['state']}, {found['seen']} of {found['total']} events")


def _rate(text: str) -> float:
    try:
        return per_second(text)
    except ValueError as error:
        raise Failed(MISUSED, f"--rate: {error}") from None


def _span(text: str) -> int:
    found = span_s(text)
    if found is None:
        raise Failed(MISUSED, f"--ramp: {text[:64]!r} is no span of time: write 90s, 30m or 2h")
    return found


def _lasting(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole} s" if whole < 120 else f"{whole // 60} min" if whole < 7200 else f"{whole // 3600} h"
