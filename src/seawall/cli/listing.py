"""What commands that list things have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from seawall.cli.say import data_option, say, say_json, say_table

F = TypeVar("F", bound=Callable[..., Any])


def place_options(command: F) -> F:
    """``--data`` and ``--url``: which platform."""
    named = click.option("--url", metavar="URL", help="Admin address of a platform elsewhere (SEAWALL_TOKEN_FILE).")
    return data_option(named(command))


def where_option(command: F) -> F:
    """``--where``: a selection."""
    help = "Only these: 'source=gh, type=github.*, state=failed|dead, cause=…, tenant=…, since=2h, …'."
    return click.option("--where", metavar="SELECTION", help=help)(command)


def page_options(command: F) -> F:
    """``--limit`` and ``--cursor``: which page of a list."""
    limited = click.option("--limit", type=click.IntRange(1), metavar="N", help="Rows of this page. [default: 50]")
    return limited(click.option("--cursor", metavar="CURSOR", help="Go on where a page ended: its `next`.")(command))


def say_page(found: dict[str, Any], columns: Sequence[str], *, as_json: bool, empty: str) -> None:
    """One page, and how to get the next one."""
    if as_json:
        say_json(found)
        return
    say_table(found["items"], columns, empty=empty)
    if found.get("next"):
        say(f"more: --cursor {found['next']}", err=True)


def say_count(found: dict[str, Any], columns: Sequence[str], *, what: str) -> None:
    """How many there are, and of which kinds."""
    say_table(found["groups"], columns, empty=f"no {what}")
    if found["truncated"]:
        say("there are smaller groups, too", err=True)
    since = f", accepted since {found['since']}" if found["since"] else ""
    say(f"{found['total']} {what}{since}")
