"""Whether an experiment may run here at all: what its rig asks of the machine, and the rung below it on a ladder."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection

import msgspec

from seawall.kernel.error import Misconfigured
from seawall.lab import record
from seawall.lab.experiment import Experiment
from seawall.lab.record import Status
from seawall.lab.run.place import Folder


def admit(experiment: Experiment, folder: Folder, *, force: bool = False, earlier: Collection[str] = ()) -> None:
    """Refuse what can't or shouldn't run.

    Args:
        force: The rung below needn't be green.
        earlier: Experiments that are run before it by the same command.

    Raises:
        Misconfigured: Each reason is a line.
    """
    check: Callable[[Experiment], None] | None
    try:
        check = getattr(importlib.import_module(experiment.ours.rig), "check", None)
    except ImportError as error:
        raise Misconfigured([f"{experiment.path}: rig {experiment.ours.rig}: {error}"]) from error
    if check is not None:
        check(experiment)
    below = experiment.ours.after
    at = experiment.at
    if below and not force and below not in earlier and not green(below, folder, target=at.name if at else ""):
        where = f" on {at.name}" if at else ""
        raise Misconfigured([
            f"{experiment.name}: {below} comes before it, and has no green run{where} in {folder.path}; "
            f"run `seawall lab run {below}`{where}, or say --force",
        ])  # fmt: skip


def green(name: str, folder: Folder, *, target: str = "") -> bool:
    """Whether an experiment's newest run with the protections came out as expected, there."""
    for path in sorted(folder.runs.glob(f"{name}.on.*"), reverse=True):
        try:
            found = record.load(path)
        except (OSError, msgspec.MsgspecError):
            continue
        if found.target == target and found.drill is None:
            return found.status is Status.AS_EXPECTED
    return False
