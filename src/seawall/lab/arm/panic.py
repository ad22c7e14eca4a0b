"""Everything that is broken is mended, now: for a person who wants nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from seawall.lab.arm import file, leftover
from seawall.lab.arm.undoing import Undone, undo_all

QUIET_S = 1.0
"""So long nothing must have been armed: a runner that was just about to arm sees the stop file first."""
POLL_S = 0.1
LONGEST_S = 120.0


@dataclass(slots=True)
class Panic:
    """What was found and done."""

    undone: list[Undone] = field(default_factory=list)
    left: list[str] = field(default_factory=list)  # what couldn't be undone, and why
    runner: int = 0  # the run that was told to stop; 0: none was going on

    @property
    def ok(self) -> bool:
        return not self.left


def panic(folder: Path, *, rig: Path, by: str, say: Callable[[str], None]) -> Panic:
    """Stop the run that is going on, undo everything that is armed, and end what a dead run left running."""
    found = Panic()
    if not folder.is_dir():
        return found
    holder = file.holder(folder)
    runner = holder.runner if holder is not None else None
    found.runner = runner.pid if runner is not None else 0
    file.log(folder, "panic", by=by, runner=found.runner)
    if runner is not None:
        (folder / file.STOP).write_text(f"{by}\n", "utf-8")
        say(f"the run of process {runner.pid} is told to stop")
    began = quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < QUIET_S and time.monotonic() - began < LONGEST_S:
        armed, unreadable = file.read_all(folder)
        done = undo_all(folder, armed, by=by, told=lambda each: say(each.text))
        found.undone += [each for each in done if each.ok]
        found.left = [each.text for each in done if not each.ok] + [
            f"{name} can't be understood" for name in unreadable
        ]
        if armed:
            quiet_since = time.monotonic()
        time.sleep(POLL_S)
    if runner is None:
        leftover.end(rig, say)
    return found
