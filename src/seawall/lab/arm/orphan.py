"""Ends the record of a run whose runner is dead: it can't say itself what became of it."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from seawall.lab import record
from seawall.lab.record import Status


def close(folder: Path, *, by: str, said: str) -> None:
    """A run that is still said to go on was aborted; what it had broken ends now. Harmless for any other folder.

    Args:
        by: Who ends it.
        said: What became of what it had broken.
    """
    with contextlib.suppress(OSError, msgspec.MsgspecError, ValueError):
        found = record.load(folder)
        if found.status is not Status.RUNNING:
            return
        now_s = (datetime.now(UTC) - datetime.fromisoformat(found.began)).total_seconds()
        for fault in found.faults:
            if fault.ended_s is None:
                fault.ended_s, fault.ended_by = round(max(fault.began_s, now_s), 3), by
        found.seconds = round(max(found.seconds, now_s), 3)
        found.status, found.why = Status.ABORTED, [f"its runner was killed; {said}"]
        found.save(folder)


def close_all(runs: Path) -> None:
    """Each of a folder of runs, of which none goes on; before what they left armed is undone."""
    if runs.is_dir():
        for folder in sorted(runs.iterdir()):
            close(folder, by="the next run", said="what it had broken is undone before anything else is (the next run)")
