"""``seawall throttle``."""

from __future__ import annotations

from typing import Any

import click

from seawall.cli.client import Client, find, part
from seawall.cli.listing import place_options
from seawall.cli.say import MISUSED, Failed, json_option, say, say_json, say_table
from seawall.kernel.moment import per_second, span_s

COLUMNS = ("name", "rate", "floor", "goal", "set_by", "set_at")


@click.command(
    epilog="""\b
Examples:
  seawall throttle                                               what is throttled, and what the governor does
  seawall throttle runbooks --rate 5/s
  seawall throttle runbooks --rate 5/s --raise-to 50/s --over 30m --why "after the outage"
  seawall throttle runbooks --off

A rate that rises is held while the store is slow, executions fail or the reserve shrinks, and cut to a half when that
goes beyond the limits of the settings router.governor_* and router.reserve_*. What may not begin yet waits; nothing
expires. Exit codes: 0 done, 1 failed, 2 misused, 3 no such queue, 4 unreachable."""
)
@click.argument("queue", required=False)
@click.option("--rate", metavar="R", help="Runs begun a second, in all workers together: 5/s, 300/m, 20/h.")
@click.option("--raise-to", metavar="R", help="Let it rise to this.")
@click.option("--over", metavar="SPAN", help="How long the rise takes when nothing stands against it: 10m, 2h.")
@click.option("--floor", metavar="R", help="Never cut below this; otherwise a tenth of --rate.")
@click.option("--off", is_flag=True, help="No throttle any more.")
@click.option("--why", default="", metavar="TEXT", help="For the timeline.")
@place_options
@json_option
def throttle(
    queue: str | None, rate: str | None, raise_to: str | None, over: str | None, floor: str | None, off: bool, why: str,
    data: str | None, url: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Begin runs of a queue at a rate, which may rise by itself; without a queue: show all drains."""
    given = (rate, raise_to, over, floor)
    if queue is None:
        if any(given) or off:
            raise Failed(MISUSED, "name the queue: seawall throttle QUEUE --rate 5/s")
        _show(Client(find(data, url)).get("/v1/drains"), as_json=as_json)
        return
    if off == any(given):
        raise Failed(MISUSED, "give --rate (with --raise-to and --over), or --off")
    if not off and rate is None:
        raise Failed(MISUSED, "--raise-to, --over and --floor need --rate")
    wish = {
        "rate": _read(per_second, rate), "raise_to": _read(per_second, raise_to), "over_s": _read(_seconds, over),
        "floor": _read(per_second, floor), "why": why,
    }  # fmt: skip
    found = Client(find(data, url)).send("POST", f"/v1/queues/{part(queue)}/throttle", wish)
    if as_json:
        say_json(found)
    else:
        say(f"{queue}: {found['after']} (before: {found['before']})")


def _seconds(text: str) -> int:
    found = span_s(text)
    if found is None:
        raise ValueError(f"{text[:64]!r} is no span of time: write 90s, 30m, 2h or 7d")
    return found


def _read(parse: Any, text: str | None) -> Any:
    if text is None:
        return None
    try:
        return parse(text)
    except ValueError as error:
        raise Failed(MISUSED, str(error)) from None


def _show(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        say_json(found)
        return
    for line in found["items"]:
        for name in ("rate", "floor", "goal"):
            line[name] = f"{line[name]:.3g}/s" if line[name] < 100 else f"{line[name]:.0f}/s"
    say_table(found["items"], COLUMNS, empty="nothing is throttled")
    decided = found["governor"]
    if not decided["led"]:
        say("governor: nobody decides at this moment (no router, or it can't reach the store); rates stay as they are")
    else:
        say(f"governor: {decided['act']} ({decided['said'] or 'nothing measured yet'})")
