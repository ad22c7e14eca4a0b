"""What all commands say alike: failures, tables and JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import click

from seawall.kernel.log import printable, seen

FAILED, MISUSED, NOT_FOUND, UNREACHABLE, TIMED_OUT = 1, 2, 3, 4, 5

F = TypeVar("F", bound=Callable[..., Any])


class Failed(Exception):
    """A command failed; ``code`` is its exit code."""

    def __init__(self, code: int, what: str) -> None:
        self.code = code
        self.what = what
        super().__init__(what)


def say_failure(code: int, *lines: str) -> int:
    """Each line on standard error; returns the code, for ``sys.exit``."""
    for line in lines:
        say(f"seawall: {line}", err=True)
    return code


class Number(click.FloatRange):
    """A number in a range. NaN is in none, though it compares as if it were in each."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        if found != found:
            self.fail(f"{value!r} is not a number in the range {self._describe_range()}.", param, ctx)
        return found


def data_option(command: F) -> F:
    """``--data DIR``, as every command that needs the platform's folder takes it."""
    return click.option(
        "--data", metavar="DIR", help="Data folder of the platform. [default: SEAWALL_DATA, else a folder of yours]"
    )(command)


def json_option(command: F) -> F:
    """``--json``: one JSON document on standard output, for programs."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)


def say(line: str, *, err: bool = False) -> None:
    """One line. Values in it may come from senders: what isn't seen is spelt out, so that no event moves the cursor."""
    click.echo(printable(line), err=err)


def say_text(text: str) -> None:
    """Text of several lines, each said as one."""
    for line in text.split("\n"):
        say(line.removesuffix("\r"))


def say_fields(found: Mapping[str, Any]) -> None:
    """Names and values, one a line."""
    for name, value in found.items():
        say(f"{name:14} {value if isinstance(value, str) else json_text(value)}")


def json_text(value: object, *, indent: int | None = None) -> str:
    """JSON of which every character is seen: the others are escaped, which changes nothing for who parses it."""
    # A terminal that isn't UTF-8 must not end a command over one event's name.
    ascii_only = not (sys.stdout.encoding or "").lower().startswith("utf")
    text = json.dumps(value, indent=indent, default=str, ensure_ascii=ascii_only)
    if text.replace("\n", "").isprintable():
        return text
    return "".join(c if c == "\n" or seen(c) else json.dumps(c)[1:-1] for c in text)


def say_json(value: object) -> None:
    """One JSON document."""
    sys.stdout.write(json_text(value, indent=2) + "\n")


def say_table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, empty: str) -> None:
    """Rows as columns of text; ``empty`` when there are none. Values come from senders: control characters are spelt
    out, so that an event can't move the cursor."""
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    if not cells:
        say(empty)
        return
    widths = [max(len(line[i]) for line in [list(columns), *cells]) for i in range(len(columns))]
    for line in [[c.upper() for c in columns], *cells]:
        say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: object) -> str:
    said = ",".join(map(str, value)) if isinstance(value, tuple) else value  # a setting's, as a variable has it
    text = "-" if said is None or said == "" else str(said)
    return printable(text if len(text) <= 80 else text[:79] + "…")
