"""``seawall lab list|show|run|panic``: incidents that happen on command."""

from __future__ import annotations

import secrets
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from seawall.cli import target as targets
from seawall.cli.parts import told
from seawall.cli.say import FAILED, MISUSED, Failed, json_option, say, say_json, say_table
from seawall.kernel.error import Misconfigured

if TYPE_CHECKING:
    from seawall.lab.experiment import Experiment
    from seawall.lab.record import Record
    from seawall.lab.run.runner import Run

FOLDER = "build/lab"
COLUMNS = ("name", "incident", "runs", "needs", "seconds", "title")


def folder_option(command: Any) -> Any:
    return click.option(
        "--folder", metavar="DIR", default=FOLDER, show_default=True,
        help="Where the rig, the records of runs and what undoes faults lie.",
    )(command)  # fmt: skip


def needs_extra() -> None:
    """
    Raises:
        Misconfigured: Chaos Toolkit isn't installed; names the cure.
    """
    try:
        import chaoslib  # noqa: F401
    except ModuleNotFoundError as error:
        raise Misconfigured([f"{error.name} is missing; cure: pip install 'seawall[lab]'"]) from error


def _find(name: str) -> Experiment:
    from seawall.lab import experiment

    return experiment.find(name)


@click.command(
    "list",
    epilog="""\b
Examples:
  seawall lab list
  seawall lab list --json

\b
Exit codes: 0 done; 2 a file of the catalogue isn't right.""",
)
@json_option
@told
def list_(as_json: bool) -> int:
    """Experiments of the catalogue, and those that have only a name there yet."""
    needs_extra()
    from seawall.lab import experiment
    from seawall.lab.later import later

    found = [experiment.find(name) for name in experiment.names()]
    rows = [_row(each) for each in found]
    if as_json:
        say_json({"experiments": rows, "later": msgspec.to_builtins(later())})
    else:
        shown = [{**row, "runs": ", ".join(row["runs"]), "needs": ", ".join(row["needs"])} for row in rows]
        say_table(shown, COLUMNS, empty="the catalogue is empty")
        for each in later():
            say(each.text)
    return 0


def _row(found: Experiment) -> dict[str, Any]:
    ours = found.ours
    return {
        "name": found.name, "title": found.title, "incident": ours.incident,
        "runs": ["on", "off"] if ours.without else ["on"], "without": ours.without, "needs": ours.needs,
        "seconds": ours.seconds.max, "worst_case": ours.worst_case, "share_of_day": found.share_of_day,
    }  # fmt: skip


@click.command(
    epilog="""\b
Examples:
  seawall lab show redis-slow
  seawall lab show ./mine.yaml --json

\b
Exit codes: 0 done; 2 the file isn't right, and why; 3 no such experiment."""
)
@click.argument("name", metavar="NAME|FILE")
@json_option
@told
def show(name: str, as_json: bool) -> int:
    """What an experiment breaks, what it expects, and what it costs at worst."""
    needs_extra()
    from seawall.lab.run import preflight, toolkit

    found = _find(name)
    toolkit.check(found.document)
    if as_json:
        say_json({**_row(found), "description": found.description, "steps": found.steps, "path": str(found.path),
                  "extension": msgspec.to_builtins(found.ours)})  # fmt: skip
        return 0
    for line in preflight.question(found, on=True, off=bool(found.ours.without)):
        say(line)
    say(f"  file: {found.path}")
    for line in found.description.splitlines():
        say(f"    {line.strip()}")
    for word, claims in (("with the protections", found.ours.expect.on), ("without", found.ours.expect.off)):
        if claims:
            say(f"  expected {word}:")
        for claim in claims:
            say(f"    - {claim.claim}")
    if (original := found.ours.original) is not None:
        say(f"  the original: {original.source}")
        for word, told in (("detected", original.detect), ("mitigated", original.mitigate),
                           ("recovered", original.recover)):  # fmt: skip
            say(f"    - {word}: {told}")
    return 0


@click.command(
    epilog="""\b
Examples:
  seawall lab run redis-slow
  seawall lab run redis-listener-dies --twice --yes     with the protections, then without
  seawall lab run ./mine.yaml --seed 7
  seawall lab run redis-slow --target staging.toml      on an installation of yours (docs/gameday.md)
  seawall lab run --drill redis-slow redis-gone         one of them; nobody is told which

\b
Without --target everything runs on loopback, in a folder of its own. What was broken is reverted whatever happens,
also when this command is killed. Ctrl-C reverts and ends it; a second one doesn't wait for recovery.
Exit codes: 0 all came out as expected; 1 not; 2 misused, nothing was done; 3 no such experiment; 6 invalid: the rig
didn't prove itself, nothing was shown; 7 aborted, and reverted."""
)
@click.argument("names", nargs=-1, metavar="NAME|FILE...")
@click.option("--drill", is_flag=True, help="Draw one of them (none named: of all), and hide which.")
@click.option("--yes", is_flag=True, help="Don't ask. For programs.")
@click.option("--target", metavar="FILE", help="An installation of yours, and how each fault is done there.")
@click.option("--yes-really", "really", metavar="NAME", help="Don't ask, of a target elsewhere: its name, typed out.")
@click.option("--twice", is_flag=True, help="With the protections, then without: the incident happens.")
@click.option("--without", is_flag=True, help="Only without the protections.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Of the traffic. [default: a new one]")
@click.option("--force", is_flag=True, help="Also where the experiment that comes before isn't green.")
@folder_option
@json_option
@told
def run(
    names: tuple[str, ...], drill: bool, yes: bool, target: str | None, really: str | None, twice: bool, without: bool,
    seed: int | None, force: bool, folder: str, as_json: bool,
) -> int:  # fmt: skip
    """Run experiments, one after the other."""
    needs_extra()
    if twice and without:
        raise Failed(MISUSED, "--twice or --without, not both")
    from seawall.lab.run import judge, ladder, runner
    from seawall.lab.run.place import Folder

    if target and (twice or without):
        raise Failed(MISUSED, "a run without the protections is on a platform of the lab's own; --target has none")
    if drill:
        return _drill(names, yes=yes, target=target, really=really, seed=seed, folder=Path(folder), as_json=as_json)
    if not names:
        raise Failed(MISUSED, "name an experiment; seawall lab list shows them")
    found = [_find(name) for name in names]
    if target:
        found = targets.fitted(found, target)
    wanted = [each for one in found for each in _runs(one, twice=twice, without=without)]
    for number, each in enumerate(wanted):
        earlier = {one.experiment.name for one in wanted[:number]}
        ladder.admit(each.experiment, Folder(Path(folder)), force=force, earlier=earlier)
    _confirm([each for each in wanted if targets.asks(each.experiment, yes=yes, really=really)])
    records = runner.run_all(
        wanted, folder=Path(folder), seed=seed if seed is not None else secrets.randbits(31),
        told=lambda record: say_record(record, Path(folder), err=as_json), force=force,
    )  # fmt: skip
    if as_json:
        say_json({"runs": [told_record(record) for record in records]})
    return judge.EXIT[judge.worst(record.status for record in records)]


def _drill(
    names: tuple[str, ...], *, yes: bool, target: str | None, really: str | None, seed: int | None, folder: Path,
    as_json: bool,
) -> int:  # fmt: skip
    """One that is drawn, and hidden until it is over."""
    from seawall.lab import drill as drills
    from seawall.lab import experiment
    from seawall.lab.run import judge, runner
    from seawall.lab.run.runner import Run

    found = [_find(name) for name in names or experiment.names()]
    if target:
        found = targets.fitted(found, target, all_of_them=bool(names))
    found = [each for each in found if names or drills.fit(each)]
    seed = seed if seed is not None else secrets.randbits(31)
    chosen, made = drills.draw(found, seed)
    if targets.asks(chosen, yes=yes, really=really):
        word = f"drill on {chosen.at.name}" if chosen.at is not None else "drill"
        _typed(drills.question(found), word, unasked=targets.unasked(chosen))
    records = runner.run_all(
        [Run(chosen, True)], folder=folder, seed=seed, told=lambda record: say_record(record, folder, err=as_json),
        force=True, drill=made,
    )  # fmt: skip
    if as_json:
        say_json({"runs": [told_record(record) for record in records]})
    return judge.EXIT[judge.worst(record.status for record in records)]


def _runs(found: Experiment, *, twice: bool, without: bool) -> list[Run]:
    from seawall.lab.run.runner import Run

    if (twice or without) and not found.ours.without:
        raise Failed(MISUSED, f"{found.name} has no run without the protections: its file names no weak part")
    modes = [True, False] if twice else [not without]
    return [Run(found, on) for on in modes]


def _confirm(wanted: list[Run]) -> None:
    """Each experiment's name must be typed."""
    from seawall.lab.run import preflight

    for found in dict.fromkeys(each.experiment.path for each in wanted):
        mine = [each for each in wanted if each.experiment.path == found]
        experiment = mine[0].experiment
        lines = preflight.question(experiment, on=any(m.on for m in mine), off=any(not m.on for m in mine))
        _typed(lines, targets.typed(experiment), unasked=targets.unasked(experiment))


def _typed(lines: list[str], word: str, *, unasked: str) -> None:
    """A person reads the lines, and types the word."""
    for line in lines:
        say(line, err=True)
    if not interactive():
        raise Failed(MISUSED, f"nobody is there to confirm it; {unasked} says that you know what it does")
    try:
        typed = click.prompt(f"Type {word} to go on", err=True, default="", show_default=False)
    except click.Abort:
        typed = ""
    if typed.strip() != word:
        raise Failed(MISUSED, "not confirmed; nothing was done")


def interactive() -> bool:
    """Whether somebody can type."""
    return sys.stdin.isatty()


def say_record(record: Record, folder: Path, *, err: bool) -> None:
    """One run, as people read it."""
    status = str(record.status).replace("_", " ")
    where = f"on {record.target}" if record.target else f"protections {record.protections}"
    say(f"{record.name}, {where}: {status.upper()}", err=err)
    from seawall.lab import drill
    from seawall.lab.run import judge

    for line in (*(f"  {why}" for why in record.why), *drill.reveal(record)):
        say(line, err=err)
    if any(why.startswith(judge.STILL) for why in record.why):
        say("  it is tried again and again as long as this machine runs. By hand: do what stands after `run`; then "
            f"seawall lab panic --folder {shlex.quote(str(folder.absolute()))}", err=err)  # fmt: skip
    for each in record.expectations:
        say(f"  {'ok ' if each.held else 'NOT'} {each.claim}: {each.said}", err=err)
    for each_unseen in record.unseen:
        say(f"  not seen, not judged: {each_unseen}", err=err)
    times = (("detected", record.detect_s), ("mitigated", record.mitigate_s), ("recovered", record.recover_s))
    said = ", ".join(f"{word} after {value:.1f} s" for word, value in times if value is not None)
    if said:
        say(f"  {said}", err=err)
    if record.verdict:
        say("  ledger: " + ", ".join(f"{word} {count}" for word, count in record.verdict.items()), err=err)
    say(f"  record: {folder / 'run' / record.id}; again: {record.command}", err=err)


def told_record(record: Record) -> dict[str, Any]:
    """One run, for programs."""
    return {**asdict(record), "status": str(record.status), "as_expected": record.as_expected}


@click.command(
    epilog="""\b
Example: seawall lab panic

\b
A run that is going on is told to stop, and what a dead one left running is ended.
Exit codes: 0 nothing is broken any more; 1 something couldn't be undone, and why; or, where no --folder was said, or
one in which no lab ever was, a run goes on in another."""
)
@folder_option
@json_option
@click.pass_context
@told
def panic(context: click.Context, folder: str, as_json: bool) -> int:
    """Mend everything that an experiment has broken, at once."""
    from seawall.lab.arm import living
    from seawall.lab.arm import panic as panics

    path = Path(folder).absolute()
    never = not (path / "armed").is_dir()  # a typing mistake, maybe: calm would be the worst answer
    found = panics.panic(path / "armed", rig=path / "rig", by="panic", say=lambda line: say(line, err=as_json))
    if as_json:
        say_json({
            "undone": [each.text for each in found.undone], "left": found.left, "run": found.runner or None,
        })  # fmt: skip
    elif not found.undone and not found.left:
        say(f"nothing was broken: no lab ever was in {path}" if never else "nothing was broken")
    said = context.get_parameter_source("folder") is not click.core.ParameterSource.DEFAULT
    if found.undone or found.left or (said and not never):
        return 0 if found.ok else FAILED
    others = living.labs(path)
    for other in others:
        say(
            f"in {path}, that is; a run goes on elsewhere: seawall lab panic --folder {shlex.quote(str(other))}",
            err=True,
        )
    return FAILED if others else 0


COMMANDS = (list_, show, run, panic)
