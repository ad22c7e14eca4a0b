"""All runs that a folder has seen, also those whose own folders are gone; and what of them has got worse.

``history.jsonl`` holds a `Record` a line, without moments and proofs, written when a run has ended. A run of which only
the folder tells (its runner was killed) is read from there.

A run is *worse* when one with its name, target and protections before it was better. The rule:

- as expected at some time before, and now not, until it is again;
- of runs with the protections that were as expected: a time (detect, mitigate, recover) that is more than ``TIMES``
  the median of those before, and more than ``MORE_S`` longer; of the last ``LAST_MAX``, and of ``LAST_MIN`` at least;
- a time that each of those had, and that there is none of now.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import msgspec

from seawall.lab.record import RUN, Record, Status

FILE = "history.jsonl"
FILE_BYTES_MAX = 64 * 1024 * 1024
"""A longer one is set aside; one older one is kept, and not read."""
TIMES, MORE_S = 1.5, 2.0
LAST_MIN, LAST_MAX = 2, 5
SHOWN = (Status.AS_EXPECTED, Status.NOT_AS_EXPECTED)
"""The others have shown nothing, for or against."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One run, and what has got worse with it."""

    record: Record
    worse: Sequence[str] = ()


def keep(folder: Path, record: Record) -> None:
    """Add one that has ended.

    Durability: one write of a file that is opened to append; a run's own folder has it, too.

    Raises:
        OSError: It can't be written.
    """
    path = folder / FILE
    if path.exists() and path.stat().st_size > FILE_BYTES_MAX:
        path.replace(folder / (FILE + ".1"))
    line = msgspec.json.encode(replace(record, moments=[], proofs=[])) + b"\n"
    # After a line that a crash or a full disk tore: this one would be lost with it.
    line = b"\n" + line if _torn(path) else line
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def _torn(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:  # there is none, or it is empty
        return False


def read(folder: Path) -> list[Entry]:
    """All of them, the oldest first, each with what has got worse since those before it."""
    found = {record.id: record for record in _folders(folder)} | {record.id: record for record in _lines(folder)}
    return judge(found.values())


def judge(records: Iterable[Record]) -> list[Entry]:
    """Pure: each with what has got worse, by time."""
    before: dict[tuple[str, ...], list[Record]] = {}
    made = []
    for record in sorted(records, key=lambda each: (each.began, each.id)):
        earlier = before.setdefault(_kind(record), [])
        made.append(Entry(record, tuple(worse(record, earlier))))
        if record.status in SHOWN:
            earlier.append(record)
    return made


def _kind(record: Record) -> tuple[str, ...]:
    # In a drill faults last as long as people take: its times are theirs.
    return (record.name, record.target, record.protections, record.drawn, "drill" if record.drill is not None else "")


def worse(record: Record, earlier: Sequence[Record]) -> list[str]:
    """What of a run is worse than those before it, that showed anything, the oldest first."""
    if not earlier or record.status not in SHOWN:
        return []
    good = [each for each in earlier if each.status is Status.AS_EXPECTED]
    if record.status is Status.NOT_AS_EXPECTED:
        if not good:
            return []
        missed = [each.claim for each in record.expectations if not each.held]
        since = len(earlier) - 1 - earlier.index(good[-1])
        also = f", nor in {since} before it" if since else ""
        return [f"as expected in {good[-1].id}, and now not{also}: {'; '.join(missed or record.why)}"]
    if record.protections != "on":
        return []
    good = good[-LAST_MAX:]
    if len(good) < LAST_MIN:
        return []
    return [why for word, now, then in _times(record, good) if (why := _slower(word, now, then))]


def _times(record: Record, good: Sequence[Record]) -> Iterable[tuple[str, float | None, list[float]]]:
    """(word, now, all of before; none when one of them had none)."""
    for word in ("detect", "mitigate", "recover"):
        then = [value for each in good if (value := getattr(each, f"{word}_s")) is not None]
        yield word, getattr(record, f"{word}_s"), then if len(then) == len(good) else []


def _slower(word: str, now: float | None, then: Sequence[float]) -> str:
    if not then:
        return ""
    usual = median(then)
    if now is None:
        return f"{word}: never, and after {usual:.1f} s before (median of {len(then)})"
    if now > usual * TIMES and now > usual + MORE_S:
        return f"{word}: after {now:.1f} s, and after {usual:.1f} s before (median of {len(then)})"
    return ""


def newest(entries: Iterable[Entry]) -> list[Entry]:
    """Of each kind of run the last one that has shown anything."""
    found = {_kind(each.record): each for each in entries if each.record.status in SHOWN}
    return list(found.values())


def _lines(folder: Path) -> Iterable[Record]:
    """A line that a crash tore, or that a later version wrote, is left out: the run's own folder tells it, too."""
    try:
        lines = (folder / FILE).read_bytes().splitlines()
    except OSError:
        return
    for line in lines:
        try:
            yield msgspec.json.decode(line, type=Record)
        except msgspec.MsgspecError:
            continue


def _folders(folder: Path) -> Iterable[Record]:
    for path in sorted((folder / "run").glob(f"*/{RUN}")):
        try:
            record = msgspec.json.decode(path.read_bytes(), type=Record)
        except (OSError, msgspec.MsgspecError):
            continue
        if record.status is not Status.RUNNING:
            yield record
