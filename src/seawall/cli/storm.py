"""``seawall lab storm``: many faults drawn from a seed, and the ledger's verdict after them."""

from __future__ import annotations

import secrets
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seawall.cli.experiment import FOLDER, folder_option, needs_extra, say_record, told_record
from seawall.cli.parts import told
from seawall.cli.say import Number, json_option, say, say_json

if TYPE_CHECKING:
    from seawall.lab.record import Record
    from seawall.lab.storm import Storm

SEED_MAX = 2**31 - 1
SEEDS_MAX = 1000


@click.command(
    epilog="""\b
Examples:
  seawall lab storm --seed 7 --minutes 5
  seawall lab storm --seed 7 --minutes 5 --print            what it would do
  seawall lab storm --seed 7 --minutes 2 --faults redis --faults collector-kill
  seawall lab storm --seed 1 --seeds 50 --minutes 0.5       fifty storms, one after the other

\b
The same seed, minutes, faults and overlap give the same storm. Everything is on loopback and the lab's own, so nothing
is asked. All that was broken is mended, what was accepted drains, and the ledger is compared with what is there.
Exit codes: 0 nothing was lost, invented, corrupted or kept twice, and all came to its end; 1 not so; 2 misused;
3 no such fault; 6 invalid: the rig didn't prove itself; 7 aborted, and reverted. Of several storms the worst."""
)
@click.option(
    "--seed", type=click.IntRange(0, SEED_MAX), help="Faults and traffic are drawn from it. [default: a new one]"
)
@click.option("--minutes", type=Number(0.25, 60), default=2.0, show_default=True, help="For how long things break.")
@click.option("--faults", multiple=True, metavar="NAME", help="Only this fault, or part; repeatable. [default: all]")
@click.option("--overlap", type=click.IntRange(1, 4), default=2, show_default=True, help="Faults at once, at most.")
@click.option(
    "--seeds",
    type=click.IntRange(1, SEEDS_MAX),
    default=1,
    show_default=True,
    help="So many storms: this seed and the next ones.",
)
@click.option("--print", "only_print", is_flag=True, help="Only say what it would do.")
@folder_option
@json_option
@told
def storm(
    seed: int | None, minutes: float, faults: tuple[str, ...], overlap: int, seeds: int, only_print: bool, folder: str,
    as_json: bool,
) -> int:  # fmt: skip
    """Break many things, two at a time, as a seed says; mend them; and look whether anything was lost."""
    needs_extra()
    from seawall.lab.run import judge
    from seawall.lab.storm import schedule

    first = seed if seed is not None else secrets.randbits(31) - seeds + 1
    made = [
        schedule(first + number, round(minutes * 60, 1), faults=faults, overlap=overlap) for number in range(seeds)
    ]  # fmt: skip
    if only_print:
        _print(made, as_json=as_json)
        return 0
    records = _run(made, Path(folder), again=_again(minutes, faults, overlap, folder), err=as_json)
    if as_json:
        say_json({"runs": [told_record(record) for record in records]})
    elif len(records) > 1:
        say(_sum(records))
    return judge.EXIT[judge.worst(record.status for record in records)]


def _print(made: list[Storm], *, as_json: bool) -> None:
    from seawall.lab.storm.document import lines, title

    if as_json:
        say_json({"storms": [asdict(each) for each in made]})
        return
    for each in made:
        say(title(each))
        for line in lines(each):
            say(line)


def _run(made: list[Storm], folder: Path, *, again: list[str], err: bool) -> list[Record]:
    from seawall.lab.part.node import FETCHED
    from seawall.lab.record import Status
    from seawall.lab.run import runner
    from seawall.lab.run.place import Folder
    from seawall.lab.run.session import Options
    from seawall.lab.storm import storm as experiment

    place, found = Folder(folder), list[Any]()
    with place.held():
        for each in made:
            command = shlex.join(["seawall", "lab", "storm", "--seed", str(each.seed), *again])
            options = Options(folder=place, seed=each.seed, fetched=FETCHED, command=command)
            record = runner.run(experiment(each), options)
            say_record(record, folder, err=err)
            found.append(record)
            if record.status is Status.ABORTED:
                break
    return found


def _again(minutes: float, faults: tuple[str, ...], overlap: int, folder: str) -> list[str]:
    """The rest of what runs a storm again."""
    words = ["--minutes", f"{minutes:g}"]
    for name in faults:
        words += ["--faults", name]
    words += ["--overlap", str(overlap)] if overlap != 2 else []
    return words + (["--folder", folder] if folder != FOLDER else [])


def _sum(records: list[Record]) -> str:
    count = {word: sum(record.verdict.get(word, 0) for record in records) for word in ("accepted", "recovered", "lost")}
    faults = sum(len(record.faults) for record in records)
    good = sum(record.as_expected for record in records)
    said = ", ".join(f"{word} {value}" for word, value in count.items())
    return f"{good} of {len(records)} storms as expected; {faults} faults; {said}"
