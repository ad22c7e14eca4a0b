"""A drill: a fault that those who are to find it don't know, and a clock that runs until they say that it is over.

What is drawn, and how long after the start it comes, is a function of the seed. People's marks are lines of a file in
the lab's folder, so that they may be made at any terminal: ``seawall lab drill seen``, ``acted``, ``done``.

``drill.json`` names the runner while a drill goes on; ``drill.marks`` holds the marks of the newest one.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from seawall.kernel.error import Rejected
from seawall.lab.arm import living
from seawall.lab.arm.file import since_boot
from seawall.lab.experiment import RIG, Claim, Experiment
from seawall.lab.part.node import whole
from seawall.lab.part.process import Identity, identity
from seawall.lab.record import Drill, Mark, Record

FILE, MARKS = "drill.json", "drill.marks"
NAME = "drill"
"""What a drill's run is called while it goes on, in place of its experiment."""
SEEN, ACTED, DONE = "seen", "acted", "done"
DELAY_S = (10.0, 60.0)
"""The fault comes so long after all is ready: nobody is to know when."""
SPARE_S = 5.0
"""So long before the longest time that is allowed it is over, whatever people have said."""
TEXT_MAX = 200
UNDO = ("back", "all_back")
KEPT = Claim(claim="nothing is lost", func="verdict", arguments={"lost": 0, "invented": 0, "corrupted": 0})


def draw(candidates: Sequence[Experiment], seed: int) -> tuple[Experiment, Drill]:
    """One of several, as a drill, and what its record tells of that. A function of the seed.

    Raises:
        Rejected: There is none.
    """
    if not candidates:
        raise Rejected(404, "no drill", "no experiment can be drawn; name some")
    rng = random.Random(f"{seed}.drill")
    ordered = sorted(candidates, key=lambda each: each.name)
    chosen, delay_s = rng.choice(ordered), round(rng.uniform(*DELAY_S), 1)
    return adapt(chosen), Drill(candidates=[each.name for each in ordered], delay_s=delay_s)


def fit(experiment: Experiment) -> bool:
    """Whether it may be drawn when nobody has named any: on a rig of the usual kind, and no upper rung of a ladder."""
    return not experiment.ours.after and (experiment.ours.rig == RIG or experiment.at is not None)


def adapt(experiment: Experiment) -> Experiment:
    """Up to where its file would undo what it has done: in a drill it stays until people are done. What its file
    expects of its own times says nothing then; that nothing is lost is still expected."""
    document = dict(experiment.document)
    method = list(document["method"])
    first = next((number for number, each in enumerate(method) if _undoes(each)), len(method))
    document["method"] = [*method[: max(0, first - 1)], *map(_unpaused, method[max(0, first - 1) : first])]
    ours, replace = experiment.ours, msgspec.structs.replace
    kept = [claim for claim in ours.expect.on if claim.func == "verdict"] or [KEPT]
    changed = replace(
        ours, seconds=replace(ours.seconds, min=0.0), expect=replace(ours.expect, on=kept, off=[]), without=[],
        graph=[],
    )  # fmt: skip
    return Experiment(name=experiment.name, path=experiment.path, document=document, ours=changed, at=experiment.at)


def _unpaused(step: Mapping[str, Any]) -> Mapping[str, Any]:
    """The last one: how long it stays, people say."""
    return {name: value for name, value in step.items() if name != "pauses"}


def _undoes(step: Mapping[str, Any]) -> bool:
    return (step.get("provider") or {}).get("func") in UNDO


class Desk:
    """Where marks of the drill that goes on are made, and read. From ``open`` to ``close``.

    Args:
        folder: The lab's.
        clock: Seconds since the run began.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._clock = clock
        self._read = 0

    def open(self) -> None:
        """From here on marks are taken. What an earlier drill left is gone."""
        me = identity(os.getpid())
        assert me is not None
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / MARKS).write_bytes(b"")
        whole(self._folder / FILE, json.dumps({"pid": me.pid, "start": me.started}))

    def look(self) -> list[Mark]:
        """Those that are new."""
        try:
            with (self._folder / MARKS).open("rb") as file:
                file.seek(self._read)
                data = file.read()
        except OSError:
            return []
        lines = data[: data.rfind(b"\n") + 1]
        self._read += len(lines)
        began = since_boot() - self._clock()
        found = []
        for line in lines.splitlines():
            with suppress(ValueError, KeyError, TypeError):
                said = json.loads(line)
                found.append(Mark(at_s=round(float(said["at"]) - began, 3), word=str(said["word"]),
                                  text=str(said["text"]), by=str(said["by"])))  # fmt: skip
        return found

    def close(self) -> None:
        """Harmless when called twice, or never opened."""
        (self._folder / FILE).unlink(missing_ok=True)


def mark(folder: Path, word: str, *, text: str, by: str) -> None:
    """Say that it was seen, what was done about it, or that people are done; now.

    Raises:
        Rejected: No drill goes on in this folder.
    """
    if not _goes_on(folder):
        others = [f"; one goes on in {each}: --folder says it" for each in living.labs(folder) if _goes_on(each)]
        raise Rejected(404, "no drill", f"none goes on in {folder}{''.join(others)}")
    line = json.dumps({"at": since_boot(), "word": word, "text": text[:TEXT_MAX], "by": by}) + "\n"
    descriptor = os.open(folder / MARKS, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def _goes_on(folder: Path) -> bool:
    try:
        said = json.loads((folder / FILE).read_text("utf-8"))
        return identity(int(said["pid"])) == Identity(int(said["pid"]), str(said["start"]))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def judge(record: Record) -> None:
    """How long people took, from the first fault: to the first time that they saw it, and to their right act (the first
    one, until somebody says otherwise)."""
    made = record.drill
    if made is None or not record.faults:
        return
    first = min(fault.began_s for fault in record.faults)
    made.seen_s, made.acted_s = None, None
    # Who acts has seen.
    if after := _since(record, SEEN, ACTED):
        made.seen_s = round(after[0].at_s - first, 3)
    if 0 < made.right <= len(found := acts(record)):
        made.acted_s = round(found[made.right - 1].at_s - first, 3)


def acts(record: Record) -> list[Mark]:
    """What people did about it, in order of time: what they did before it came was about something else. Counted from
    1 wherever one is named."""
    return _since(record, ACTED)


def _since(record: Record, *words: str) -> list[Mark]:
    if record.drill is None or not record.faults:
        return []
    first = min(fault.began_s for fault in record.faults)
    found = [each for each in record.drill.marks if each.at_s >= first and each.word in words]
    return sorted(found, key=lambda each: each.at_s)


def reveal(record: Record) -> list[str]:
    """What it was, for those who didn't know."""
    made = record.drill
    if made is None:
        return []
    if not record.faults:
        return [f"  the drill was {record.name}; nothing was broken"]
    first = min(fault.began_s for fault in record.faults)
    lines = [f"  the drill was {record.name}: {record.title}", f"  drawn of {', '.join(made.candidates)}"]
    lines += [f"  {fault.began_s - first:+7.1f} s  broken: {fault.name} ({fault.target})" for fault in record.faults]
    number = {id(each): f" {count}" for count, each in enumerate(acts(record), 1)}
    lines += [f"  {mark.at_s - first:+7.1f} s  {mark.word}{number.get(id(mark), '')}: {mark.text or '-'} ({mark.by})"
              for mark in made.marks]  # fmt: skip
    for word, value in (("seen", made.seen_s), ("first right act", made.acted_s)):
        lines.append(f"  {word}: " + (f"after {value:.1f} s" if value is not None else "never"))
    alert = record.detect_s
    lines.append("  first alert of the platform: " + (f"after {alert:.1f} s" if alert is not None else "none"))
    return lines


def over(record: Record) -> bool:
    """Whether people have said that they are done."""
    return record.drill is not None and any(each.word == DONE for each in record.drill.marks)


def question(candidates: Sequence[Experiment]) -> list[str]:
    """What a person is told before typing ``drill``: all that may come, and not what does."""
    at = candidates[0].at
    worst = max(candidates, key=lambda each: each.ours.seconds.max)
    where = f"on {at.name}" if at is not None else "on a platform of the lab's own, on this machine"
    lines = [f"a drill {where}"]
    lines += ["  draws one of these, hides which, and when it comes; at worst"]
    lines += [f"    - {each.name}: {each.ours.worst_case}" for each in candidates]
    lines += [f"      by {said}" for each in candidates if each.at is not None for said in each.at.faults]
    return [
        *lines,
        f"  for {worst.ours.seconds.max:g} s at most, {worst.share_of_day * 100:.2g} % of a day's traffic; then it is "
        "reverted by itself; Ctrl-C or `seawall lab panic` ends it at once",
    ]
