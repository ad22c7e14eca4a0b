"""``seawall flags``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from seawall.cli.client import Client, find, part
from seawall.cli.listing import page_options, place_options
from seawall.cli.say import FAILED, Failed, json_option, say_json, say_table

COLUMNS = ("name", "value", "now", "version", "changed_by", "why", "help")
FLIP_COLUMNS = ("flag", "role", "who", "before", "after", "held")
CHANGE_COLUMNS = ("at", "kind", "what", "before", "after", "by", "why")
VALUES = click.Choice(["on", "off", "default"])


@click.group(epilog="Exit codes: 0 done, 1 refused or not live yet, 2 misused, 3 no such flag, 4 unreachable.")
def flags() -> None:
    """What can be switched while the platform runs. A flag keeps its safe value until all that it needs is ready."""


@flags.command(
    "list",
    epilog="""\b
Examples:
  seawall flags list
  seawall flags list --json      also owner, safe value, needs, and how fresh each role's knowledge is

NOW is what each role makes of it; while a flag is held at its safe value, it says why.""",
)
@place_options
@json_option
def list_(data: str | None, url: str | None, as_json: bool) -> int:
    """List all flags. While the store is away: what the roles know of them."""
    found = Client(find(data, url)).get("/v1/flags")
    if as_json:
        say_json(found)
        return FAILED if found["trouble"] else 0
    say_table([{**item, "value": _set(item), "now": _now(item)} for item in found["items"]], COLUMNS, empty="no flags")
    return _say_gaps(found["unasked"], found["trouble"])


@flags.command(
    "set",
    epilog="""\b
Examples:
  seawall flags set geo off --why "wrong countries since the new file"
  seawall flags set held-requests off --tenant acme --why "they wait for nothing"
  seawall flags set held-requests default --tenant acme --why "mended"
  seawall flags set backlog-drain off --why "the store is slow" --expect-version 4

Without --tenant and --source it holds for all, and every rule goes. What flips is said before it is set. If somebody
else has set it meanwhile, nothing is done.""",
)
@click.argument("name")
@click.argument("value", type=VALUES)
@click.option("--why", required=True, metavar="TEXT", help="Why, for whoever reads the timeline later.")
@click.option("--tenant", metavar="NAME", help="Only for this tenant.")
@click.option("--source", metavar="NAME", help="Only for this source.")
@click.option("--expect-version", type=click.IntRange(0), metavar="N", help="Only if it is at this version still.")
@place_options
@json_option
def set_(
    name: str, value: str, why: str, tenant: str | None, source: str | None, expect_version: int | None,
    data: str | None, url: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Set a flag to on, off, or default. Returns when every role works with it."""
    client, wish = Client(find(data, url)), _wish(value, tenant, source)
    seen = client.send("POST", f"/v1/flags/{part(name)}/preview", wish)
    if not as_json:
        _say_preview(seen)
    version = seen["version"] if expect_version is None else expect_version
    found = client.send("POST", f"/v1/flags/{part(name)}", {**wish, "why": why, "version": version})
    if as_json:
        say_json({**found, "flips": seen["flips"]})
    else:
        click.echo(f"{name}: {found['before']} → {found['after']} (version {found['version']})")
    if not found["live"]:
        raise Failed(
            FAILED, f"set, but not live yet: {', '.join(found['missing'])}; it will be as soon as they are back"
        )


@flags.command(
    epilog="""\b
Examples:
  seawall flags preview geo off
  seawall flags preview held-requests on --source gh --json

What is set and doesn't flip, since something that it needs isn't ready, is shown with the reason (HELD)."""
)
@click.argument("name")
@click.argument("value", type=VALUES)
@click.option("--tenant", metavar="NAME", help="Only for this tenant.")
@click.option("--source", metavar="NAME", help="Only for this source.")
@place_options
@json_option
def preview(
    name: str, value: str, tenant: str | None, source: str | None, data: str | None, url: str | None, as_json: bool
) -> None:
    """Say what would flip, in which roles and for whom. Changes nothing."""
    wish = _wish(value, tenant, source)
    seen = Client(find(data, url)).send("POST", f"/v1/flags/{part(name)}/preview", wish)
    if as_json:
        say_json(seen)
    else:
        _say_preview(seen)


@flags.command(epilog="Example: seawall flags history geo --limit 10")
@click.argument("name")
@page_options
@place_options
@json_option
def history(name: str, data: str | None, url: str | None, as_json: bool, **query: Any) -> int:
    """Who set a flag, when, why, and from what to what; newest first."""
    found = Client(find(data, url)).get(f"/v1/flags/{part(name)}/history", **query)
    if as_json:
        say_json(found)
        return FAILED if found["trouble"] else 0
    say_table(found["items"], CHANGE_COLUMNS, empty="it was never set")
    if found["next"]:
        click.echo(f"more: --cursor {found['next']}", err=True)
    return _say_gaps((), found["trouble"])


def _wish(value: str, tenant: str | None, source: str | None) -> dict[str, Any]:
    return {"value": value, "tenant": tenant, "source": source}


def _set(item: dict[str, Any]) -> str:
    return ", ".join([item["value"], *(f"{r['value']} for {r['by']} {r['name']}" for r in item["rules"])])


def _now(item: dict[str, Any]) -> str:
    """What the roles make of it: ``on``, or with reason and role where it is held or the roles disagree."""
    said = [_of_role(role) for role in item["roles"]]
    return "; ".join(said) or "(no role answers)"


def _of_role(role: dict[str, Any]) -> str:
    notes = [role["role"], *([f"held: {role['held']}"] if role["held"] else [])]
    if role["origin"] != "store":
        notes.append("from its copy on disk" if role["origin"] == "copy" else "nothing known")
    elif role["age_s"] is not None and role["age_s"] > 5:
        notes.append(f"confirmed {role['age_s']:.0f} s ago")
    return f"{role['value']} ({', '.join(notes)})"


def _say_preview(seen: dict[str, Any]) -> None:
    click.echo(f"{seen['name']}: {seen['before']} → {seen['after']}")
    say_table(seen["flips"], FLIP_COLUMNS, empty="nothing flips")
    _say_gaps(seen["unasked"], "")


def _say_gaps(unasked: Sequence[str], trouble: str) -> int:
    """What isn't known; the exit status that this makes."""
    if unasked:
        click.echo(f"seawall: no answer from {', '.join(unasked)}", err=True)
    if trouble:
        click.echo(f"seawall: the store doesn't answer, so this may not be all: {trouble}", err=True)
    return FAILED if trouble else 0
