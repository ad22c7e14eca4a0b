"""Measures twice a second, into the run's series: what the rig says, and what the machine has left."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from seawall.kernel.error import SeawallError
from seawall.kernel.error import said as spelt
from seawall.lab.part.process import identity, memory_mb
from seawall.lab.record import SAMPLE_S, SERIES, Sample
from seawall.lab.seam import Rig

MEMORY_EVERY_S = 2.0
STOP_S = 30.0
MIB = 1024 * 1024
DISK, MEMORY = "lab.disk_free_mb", "lab.memory_mb"
BLIND = "lab.unread_count"
"""In a sample for which the rig couldn't be asked."""


class Sampler:
    """A thread. ``samples`` grows while it runs.

    Args:
        folder: Of the run.
        clock: Seconds since the run began.
        more: Further values of ours.
        moment: Told (kind, text) of what happened.
        died: Told why it can't go on.
    """

    def __init__(
        self,
        rig: Rig,
        folder: Path,
        *,
        clock: Callable[[], float],
        more: Callable[[], Mapping[str, float]],
        moment: Callable[[str, str], None],
        died: Callable[[str], None],
    ) -> None:
        self.samples: list[Sample] = []
        self._rig = rig
        self._folder = folder
        self._clock, self._more, self._moment, self._died = clock, more, moment, died
        self._stopping = threading.Event()
        self._memory = (float("-inf"), 0.0)
        self._thread = threading.Thread(target=self._run, name="lab.sampler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """On return nothing is written any more, or the rig has been silent for ``STOP_S``. Harmless when called twice,
        or before it began."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    def _run(self) -> None:
        try:
            with (self._folder / SERIES).open("a", encoding="utf-8", buffering=1) as file:
                due = time.monotonic()
                while not self._stopping.wait(max(0.0, due - time.monotonic())):
                    due = max(due + SAMPLE_S, time.monotonic())
                    sample = Sample(self._clock(), self._look())
                    self.samples.append(sample)
                    file.write(sample.line() + "\n")
                    for kind, text in self._rig.moments():
                        self._moment(kind, text)
        except Exception as error:  # noqa: BLE001 - whatever ended it, the run must hear of it: unmeasured is unseen
            self._died(f"measuring has ended: {spelt(error)}")

    def _look(self) -> dict[str, float]:
        found: dict[str, float] = {}
        try:
            found.update(self._rig.sample())
        except (SeawallError, OSError) as error:
            # What can't be read now is missing in this sample; that the rig is broken, it says itself.
            found[BLIND] = 1.0
            del error
        found.update(self._more())
        found[DISK] = shutil.disk_usage(self._folder).free / MIB
        found[MEMORY] = self._memory_mb()
        return found

    def _memory_mb(self) -> float:
        at, known = self._memory
        if time.monotonic() - at > MEMORY_EVERY_S:
            whos = [who for pid in self._rig.processes() if (who := identity(pid)) is not None]
            known = sum(memory_mb(who) for who in whos)
            self._memory = (time.monotonic(), known)
        return known
