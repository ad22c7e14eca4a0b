"""What ``seawall lab run --target FILE`` asks before anything of the user's own is broken."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from seawall.cli.say import MISUSED, Failed

if TYPE_CHECKING:
    from seawall.lab.experiment import Experiment


def fitted(found: Sequence[Experiment], file: str, *, all_of_them: bool = True) -> list[Experiment]:
    """Experiments, each for the target that a file names.

    Args:
        all_of_them: Else those that it can do, if there are any.

    Raises:
        Misconfigured: The file isn't right, or doesn't name what one of them breaks; each problem is a line.
    """
    from seawall.kernel.error import Misconfigured
    from seawall.lab.target import file as files
    from seawall.lab.target import plan

    target, made, problems = files.load(Path(file)), list["Experiment"](), list[str]()
    for each in found:
        try:
            made.append(plan.fit(each, target, file=file))
        except Misconfigured as error:
            problems += error.problems
    if problems and (all_of_them or not made):
        raise Misconfigured([*problems, f"nothing was done; the tables are those of {file}: docs/gameday.md"])
    return made


def asks(experiment: Experiment, *, yes: bool, really: str | None) -> bool:
    """Whether a person must still confirm.

    Raises:
        Failed: 2, what was said isn't enough, or names something else.
    """
    at = experiment.at
    if at is None:
        if really is not None:
            raise Failed(MISUSED, "--yes-really goes with --target")
        return not yes
    if really is not None and really != at.name:
        raise Failed(MISUSED, f"--yes-really {really}: {at.file} names {at.name}; nothing was done")
    if yes and really is None and not at.here:
        raise Failed(MISUSED, f"{at.name} isn't on this machine, so --yes isn't enough: --yes-really {at.name} says "
                     "that you know what it does, and where")  # fmt: skip
    return not yes and really is None


def unasked(experiment: Experiment) -> str:
    """The option that says it without anybody to type."""
    at = experiment.at
    return f"--yes-really {at.name}" if at is not None and not at.here else "--yes"


def typed(experiment: Experiment) -> str:
    """What a person types to confirm."""
    return f"{experiment.name} on {experiment.at.name}" if experiment.at is not None else experiment.name
