"""``seawall lab history``: all runs of experiments, and what has got worse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from seawall.cli.experiment import folder_option
from seawall.cli.say import FAILED, NOT_FOUND, Failed, json_option, say, say_json, say_table
from seawall.lab import history as histories
from seawall.lab.history import Entry

COLUMNS = ("began", "experiment", "target", "protections", "came out", "detect", "mitigate", "recover", "worse")
LIMIT = 50


@click.command(
    epilog="""\b
Examples:
  seawall lab history
  seawall lab history redis-slow --json

\b
A run is worse than those before it with the same experiment, target and protections: when it was as expected before,
and now isn't; or when detecting, mitigating or recovering takes more than 1.5 times, and 2 s more than, the
median of the last five good ones (two at least), or doesn't come any more. Runs that were invalid or aborted show
nothing.
Exit codes: 0 the newest of each is no worse; 1 one is; 3 there is no such run."""
)
@click.argument("name", required=False, metavar="[NAME]")
@click.option("--limit", type=click.IntRange(1, 10_000), default=LIMIT, show_default=True, help="So many, the newest.")
@folder_option
@json_option
def history(name: str | None, limit: int, folder: str, as_json: bool) -> int:
    """Show all runs that were kept, and mark what has got worse."""
    found = [each for each in histories.read(Path(folder)) if name in (None, each.record.name)]
    if not found:
        raise Failed(NOT_FOUND, f"{folder} has no run{f' of {name}' if name else ''}; seawall lab run makes them")
    now = histories.newest(found)
    if as_json:
        say_json({"runs": [_row(each) for each in found[-limit:]], "worse": [_row(each) for each in now if each.worse]})
    else:
        say_table([_shown(each) for each in found[-limit:]], COLUMNS, empty="no runs")
        for each in now:
            for why in each.worse:
                say(f"WORSE {each.record.id}: {why}")
    return FAILED if any(each.worse for each in now) else 0


def _row(entry: Entry) -> dict[str, Any]:
    record = entry.record
    names = ("id", "name", "target", "protections", "seed", "began", "seconds", "detect_s", "mitigate_s", "recover_s",
             "verdict", "why")  # fmt: skip
    return {
        **{name: getattr(record, name) for name in names}, "status": str(record.status), "worse": list(entry.worse),
        "drill": {"seen_s": record.drill.seen_s, "acted_s": record.drill.acted_s} if record.drill is not None else None,
    }  # fmt: skip


def _shown(entry: Entry) -> dict[str, Any]:
    record = entry.record
    times = {word: getattr(record, f"{word}_s") for word in ("detect", "mitigate", "recover")}
    return {
        "began": record.began.removesuffix("+00:00"), "experiment": record.name, "target": record.target,
        "protections": "drill" if record.drill is not None else record.protections,
        "came out": str(record.status).replace("_", " "), "worse": "WORSE" if entry.worse else "",
        **{word: f"{value:.1f} s" if value is not None else "" for word, value in times.items()},
    }  # fmt: skip
