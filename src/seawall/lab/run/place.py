"""The lab's working folder.

::

    lock          held by the runner: one experiment at a time
    rig/          the rig's own: parts and a platform, made anew for each run
    run/ID/       a run's record (lab/record.py)
    armed/        what undoes faults (lab/arm)
    history.jsonl all runs that have ended (lab/history.py)
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from seawall.kernel.error import Misconfigured
from seawall.lab.arm import orphan

DEFAULT = Path("build/lab")
DATA_MARK = "FORMAT"
"""Every data folder of Seawall has this file (machine/folder.py)."""


@dataclass(frozen=True, slots=True)
class Folder:
    """One of them."""

    path: Path

    @property
    def rig(self) -> Path:
        return self.path / "rig"

    @property
    def armed(self) -> Path:
        return self.path / "armed"

    @property
    def runs(self) -> Path:
        return self.path / "run"

    def run(self, id: str) -> Path:
        """A run's own, made: named so, or ``ID-02`` where another run began within the same second. What is there
        already is another's, and never written over."""
        self.runs.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            made = self.runs / (id if number == 1 else f"{id}-{number:02}")
            with contextlib.suppress(FileExistsError):
                made.mkdir()
                break
        return made

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else runs an experiment here meanwhile.

        Raises:
            Misconfigured: Somebody does; or it is a platform's data folder, whose lock has the same name.
        """
        if (self.path / DATA_MARK).exists():
            raise Misconfigured([f"{self.path}: is a platform's data folder; the lab needs a --folder of its own"])
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                other = lock.read().strip() or "unknown"
                raise Misconfigured([
                    f"process {other} runs an experiment in {self.path}; wait for it, end it by "
                    f"`seawall lab panic`, or choose another --folder",
                ]) from None  # fmt: skip
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
            # Of a run whose watchdog was killed with it; what it left armed is undone before anything else is.
            orphan.close_all(self.runs)
            yield
