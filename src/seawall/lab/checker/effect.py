"""What steps have done to the world: a line for each, in a file of the rig's app, which the product never reads.

Text, one JSON array a line::

    ["effect", key, step, idempotency, at_us]

``key`` is that of the event as its sender gave it (the ledger's), ``idempotency`` what the step would give a service so
that a copy is refused. A line is one write of a file that is opened to append: whole also when many processes write,
and there also when the writer is killed just after.

A step that is repeated after a crash comes again under the same idempotency key: that is promised, and only counted.
Under another key it is a second effect, and the event is duplicated. An event whose like have an effect of a step, and
that is finished without it, is lost.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from seawall.lab.checker.ledger import Run
from seawall.lab.checker.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Effect:
    """One."""

    key: str
    step: str
    idempotency: str
    at_us: int


def read(path: Path) -> Iterator[Effect]:
    """All of a file; none when it isn't there. A line that a crash tore is left out: it was never done."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            word, key, step, idempotency, at_us = json.loads(line)
        except (ValueError, TypeError):
            continue
        if word == "effect":
            yield Effect(str(key), str(step), str(idempotency), int(at_us))


def judge(verdict: Verdict, runs: Sequence[Run], effects: Iterable[Effect], *, must: bool = False) -> None:
    """Add to a verdict what the effects say.

    A missing effect is a finding only of events that have ended: the others are red already.

    Args:
        must: Every event has an effect, so where none of a run's has one all of them are missing.
    """
    done: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for each in effects:
        verdict.effects += 1
        verdict.repeated += each.idempotency in done[each.key][each.step]
        done[each.key][each.step].add(each.idempotency)
    known: set[str] = set()
    for run in runs:
        keys = {attempt.key for attempt in run.attempts}
        known |= keys
        wanted = {step for key in keys & done.keys() for step in done[key]}
        if must and not wanted:
            wanted = {"any"}
        for key in keys & (done.keys() | verdict.ended):
            _judge_key(verdict, key, done.get(key, {}), wanted if key in verdict.ended else set())
    for key in done.keys() - known:
        verdict.add("invented", key, "a step had an effect for it, and it was never sent")


def _judge_key(verdict: Verdict, key: str, done: Mapping[str, set[str]], wanted: set[str]) -> None:
    for step, keys in done.items():
        if len(keys) > 1:
            verdict.add("duplicated", key, f"step {step} had {len(keys)} effects under different idempotency keys")
    missing = wanted - done.keys()
    if missing:
        verdict.add("lost", key, f"no effect of step {', '.join(sorted(missing))}")
