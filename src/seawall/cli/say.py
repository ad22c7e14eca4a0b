"""What all commands say alike: failures, tables and JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import click

from seawall.kernel.log import printable

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
        click.echo(f"seawall: {printable(line)}", err=True)
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


def say_json(value: object) -> None:
    """One JSON document."""
    json.dump(value, sys.stdout, indent=2, default=str, ensure_ascii=False)
    sys.stdout.write("\n")


def say_table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, empty: str) -> None:
    """Rows as columns of text; ``empty`` when there are none. Values come from senders: control characters are spelt
    out, so that an event can't move the cursor."""
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    if not cells:
        click.echo(empty)
        return
    widths = [max(len(line[i]) for line in [list(columns), *cells]) for i in range(len(columns))]
    for line in [[c.upper() for c in columns], *cells]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: object) -> str:
    text = "-" if value is None or value == "" else str(value)
    return printable(text if len(text) <= 80 else text[:79] + "…")
