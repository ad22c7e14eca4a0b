"""``seawall lab drill``: what people mark while a drill goes on, and after it."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from seawall.cli.experiment import folder_option
from seawall.cli.parts import told
from seawall.cli.say import MISUSED, NOT_FOUND, Failed, say
from seawall.lab import drill as drills
from seawall.lab import history, record
from seawall.machine.person import person


@click.group()
def drill() -> None:
    """Mark what you see and do in a drill (`seawall lab run --drill`).

    \b
      seawall lab drill seen                      somebody has noticed it
      seawall lab drill acted 'redis restarted'   and has done something about it; as often as it happens
      seawall lab drill done                      that was it: the fault is undone, and all is told
      seawall lab drill right 2                   after it: the second act was the right one
    """


def _mark(word: str, text: tuple[str, ...], folder: str) -> int:
    drills.mark(Path(folder), word, text=" ".join(text), by=person())
    say(f"{word}: noted")
    return 0


@drill.command(
    epilog="Example: seawall lab drill seen 'replies are late'. Exit codes: 0 done; 3 no drill goes on in the folder."
)
@click.argument("text", nargs=-1)
@folder_option
@told
def seen(text: tuple[str, ...], folder: str) -> int:
    """You have noticed that something is wrong; TEXT says what."""
    return _mark(drills.SEEN, text, folder)


@drill.command(
    epilog="Example: seawall lab drill acted 'failed Redis over'. Exit codes: 0 done; 3 no drill goes on in the folder."
)
@click.argument("text", nargs=-1, required=True)
@folder_option
@told
def acted(text: tuple[str, ...], folder: str) -> int:
    """You have done something about it; TEXT says what."""
    return _mark(drills.ACTED, text, folder)


@drill.command(epilog="Example: seawall lab drill done. Exit codes: 0 noted; 3 no drill goes on in the folder.")
@folder_option
@told
def done(folder: str) -> int:
    """That was it: the fault is undone, and the terminal of the run tells what it was."""
    return _mark(drills.DONE, (), folder)


@drill.command(
    epilog="Example: seawall lab drill right 2. Exit codes: 0 done; 2 there was no such act; 3 there was no drill."
)
@click.argument("number", type=click.IntRange(0, 1000))
@click.argument("run", required=False, metavar="[RUN]")
@folder_option
@told
def right(number: int, run: str | None, folder: str) -> int:
    """Say which act (from 1; 0: none) was the right one. The first one counts until somebody says so.

    RUN is the folder's name of a drill's run. [default: the newest drill]
    """
    place = Path(folder)
    found = _newest(place, run)
    made = found.drill
    assert made is not None
    count = len(drills.acts(found))
    if number > count:
        raise Failed(MISUSED, f"{found.id} has {count} acts after its fault came; they are numbered where it is told")
    made.right = number
    drills.judge(found)
    found.save(place / "run" / found.id)
    history.keep(place, found)
    for line in drills.reveal(found):
        say(line)
    return 0


def _newest(place: Path, run: str | None) -> record.Record:
    for path in sorted((place / "run").glob(run or "*"), key=lambda each: each.name.rpartition(".")[2], reverse=True):
        try:
            found = record.load(path)
        except (OSError, msgspec.MsgspecError):
            continue
        if found.drill is not None and found.status is not record.Status.RUNNING:
            return found
    raise Failed(NOT_FOUND, f"{place} has no drill that has ended")
