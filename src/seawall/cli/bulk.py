"""``seawall bulk``, and the acts on many runs under ``seawall runs``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from seawall.cli.client import Client, find, part
from seawall.cli.listing import page_options, place_options, say_count, say_page
from seawall.cli.say import FAILED, json_option, say, say_fields, say_json

F = TypeVar("F", bound=Callable[..., Any])

COUNT_COLUMNS = ("count", "workflow", "version", "queue", "status", "cause")
COLUMNS = ("id", "act", "where", "state", "chosen", "done", "missed", "at", "by")


@click.command(
    epilog="""\b
Examples:
  seawall runs count                                       unfinished ones
  seawall runs count --where 'state=failed|dead, since=7d'
  seawall runs count --where 'queue=bulk' --act hold       what a hold would be done to"""
)
@click.option("--where", metavar="SELECTION", default="", help="Only these: 'state=dead, queue=…, since=2h, …'.")
@click.option("--act", metavar="ACT", help="Only those that this can be done to: hold, release, cancel, retry.")
@place_options
@json_option
def count(where: str, act: str | None, data: str | None, url: str | None, as_json: bool) -> None:
    """Count runs by workflow, queue, state and cause. Without a state, unfinished ones; ended ones, of the last day
    unless --where says since when."""
    found = Client(find(data, url)).get("/v1/runs/count", where=where, act=act)
    if as_json:
        say_json(found)
    else:
        say_count(found, COUNT_COLUMNS, what="runs")


def act_options(*, required: bool) -> Callable[[F], F]:
    """``--where`` and ``--expect-count``: which runs, and how many were seen."""

    def add(command: F) -> F:
        counted = click.option(
            "--expect-count", type=click.IntRange(0), metavar="N", help="So many, or nothing is done."
        )  # fmt: skip
        help = "Which: 'queue=bulk, tenant=acme, …'."
        return click.option("--where", metavar="SELECTION", required=required, help=help)(counted(command))

    return add


def _act(name: str, help: str, example: str) -> click.Command:
    """A command that does something to all runs of a selection."""

    @click.command(
        name, help=help,
        epilog=f"""\b
Examples:
  seawall runs {name} --where '{example}'                      counts, and does nothing
  seawall runs {name} --where '{example}' --expect-count 120

\b
It is done to exactly those runs that were there when the answer came, in the background: seawall bulk list.
Exit codes: 0 done, 1 only counted, or failed, 2 misused, 3 another number of runs: nothing done, 4 unreachable.""",
    )  # fmt: skip
    @act_options(required=True)
    @click.option("--why", default="", metavar="TEXT", help="For the timeline.")
    @place_options
    @json_option
    def act(
        where: str, expect_count: int | None, why: str, data: str | None, url: str | None, as_json: bool
    ) -> int:  # fmt: skip
        return ask(name, where, expect_count, why, Client(find(data, url)), as_json=as_json)

    return act


def ask(name: str, where: str, expect_count: int | None, why: str, client: Client, *, as_json: bool) -> int:
    """Have something done to all runs of a selection, or only count them; the exit code."""
    if expect_count is None:
        found = client.get("/v1/runs/count", where=where, act=name)
        if as_json:
            say_json(found)
        else:
            say_count(found, COUNT_COLUMNS, what="runs")
        say(f"nothing was done; to {name} them: --expect-count {found['total']}", err=True)
        return FAILED
    wish = {"act": name, "where": where, "expect_count": expect_count, "why": why}
    _say(client.send("POST", "/v1/bulk", wish), as_json=as_json)
    return 0


hold = _act(
    "hold", "Hold runs: none of them begins until it is released. One in hand goes on until it ends, fails or waits.",
    "queue=bulk, tenant=acme",
)  # fmt: skip
release = _act("release", "Release runs that are held.", "tenant=acme")
retry = _act(
    "retry",
    "Run failed, dead and cancelled runs again: the same runs; steps they did aren't repeated, attempts count anew.",
    "state=failed, cause=attempts, since=6h",
)


@click.group(epilog="Exit codes: 0 done, 1 failed, 2 misused, 3 no such bulk, 4 unreachable.")
def bulk() -> None:
    """Acts on many runs: seawall runs hold, release, cancel and retry with --where begin them."""


@bulk.command("list", epilog="Example: seawall bulk list")
@page_options
@place_options
@json_option
def list_(data: str | None, url: str | None, as_json: bool, **query: Any) -> None:
    """List them, newest first, and how far they have come."""
    found = Client(find(data, url)).get("/v1/bulk", **query)
    say_page(found, COLUMNS, as_json=as_json, empty="nothing was done to many runs")


@bulk.command(epilog="Example: seawall bulk show 12")
@click.argument("id")
@place_options
@json_option
def show(id: str, data: str | None, url: str | None, as_json: bool) -> None:
    """Show one: who asked for it, how far it has come, and until when it can be undone."""
    found = Client(find(data, url)).get(f"/v1/bulk/{part(id)}")
    if as_json:
        say_json(found)
    else:
        say_fields(found)


@bulk.command(epilog="Example: seawall bulk undo 12 --why 'the wrong tenant'")
@click.argument("id")
@click.option("--why", default="", metavar="TEXT", help="For the timeline.")
@place_options
@json_option
def undo(id: str, why: str, data: str | None, url: str | None, as_json: bool) -> None:
    """Undo what one has done, within a day of its end: a hold by a release, a release by a hold of what hasn't ended, a
    cancel by a retry. A retry can't be undone."""
    _say(Client(find(data, url)).send("POST", f"/v1/bulk/{part(id)}/undo", {"why": why}), as_json=as_json)


def _say(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        say_json(found)
    else:
        say(f"bulk {found['id']}: {found['act']} {found['chosen']} runs; see seawall bulk show {found['id']}")
