"""What must be so before anything is broken, and what a person is asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from seawall.kernel.error import SeawallError
from seawall.lab.experiment import At, Experiment
from seawall.lab.platform import loopback
from seawall.lab.record import Sample
from seawall.lab.run.faults import Faults
from seawall.lab.run.steady import Steady
from seawall.lab.seam import Rig

AGAIN_S = 0.25
CALLED_S = 15.0

GivenUp = Callable[[], bool]


def look(
    rig: Rig, experiment: Experiment, faults: Faults, steady: Steady, *, named: frozenset[str], given_up: GivenUp,
    samples: Callable[[], Sequence[Sample]],
) -> list[str]:  # fmt: skip
    """Why nothing may be broken; empty when all is well. What the rig has to show of itself is kept as proofs."""
    ours = experiment.ours
    if problems := strangers(rig, named):
        return problems
    if why := steady.wait(ours.seconds.warm, given_up=given_up):
        return [f"the steady state doesn't hold before the fault: {why}"]
    if problems := alerts(rig, ours.seconds.warm, given_up):
        return problems
    for name in ours.calls:
        count = _until(lambda name=name: rig.called(name), CALLED_S, given_up)  # type: ignore[misc]
        faults.prove(f"the traffic calls {name}", held=count > 0, said=f"{count} times")
    for each in ours.abort:
        # A name that nobody measures (misspelt, or of a room that isn't there) would guard nothing, and say nothing.
        count = _until(partial(_measured, each.name, samples), CALLED_S, given_up)
        said = f"{each.name} was measured {count} times"
        faults.prove(f"what aborts it is measured ({each.claim})", held=count > 0, said=said)
    faults.prove_whole("before anything was broken")
    return [f"{each.claim}: {each.said}" for each in faults.failed]


def _measured(name: str, samples: Callable[[], Sequence[Sample]]) -> int:
    return sum(name in sample.values for sample in samples())


def strangers(rig: Rig, named: frozenset[str]) -> list[str]:
    """Targets that are neither on this machine nor named by whoever runs it."""
    found = []
    for name, address in rig.targets().items():
        host = address.rpartition(":")[0].strip("[]") if address else ""
        if host and host not in named and not loopback(host):
            found.append(f"{name} is at {address}: only what is on this machine, or named, may be broken")
    return found


def alerts(rig: Rig, timeout_s: float, given_up: GivenUp) -> list[str]:
    """Those that are still open when the time is over."""
    latest = time.monotonic() + timeout_s
    while True:
        try:
            found = [f"an alert is open: {each}" for each in rig.alerts()]
        except SeawallError as error:
            found = [f"nobody can say which alerts are open: {error}"]
        if not found or given_up() or time.monotonic() > latest:
            return found
        time.sleep(AGAIN_S)


def _until(count: Callable[[], int], timeout_s: float, given_up: GivenUp) -> int:
    latest = time.monotonic() + timeout_s
    while not (found := count()) and not given_up() and time.monotonic() < latest:
        time.sleep(AGAIN_S)
    return found


def wait(seconds: float, *, given_up: GivenUp) -> None:
    """For so long, unless given up."""
    latest = time.monotonic() + seconds
    while time.monotonic() < latest and not given_up():
        time.sleep(min(AGAIN_S, max(0.0, latest - time.monotonic())))


def question(experiment: Experiment, *, on: bool, off: bool) -> list[str]:
    """What a person is told before typing the experiment's name."""
    ours = experiment.ours
    if experiment.at is not None:
        return _elsewhere(experiment, experiment.at)
    which = " and ".join([*(["with the protections"] if on else []),
                          *([f"without ({', '.join(ours.without)})"] if off else [])])  # fmt: skip
    parts = ", ".join(ours.needs) or "no parts"
    return [
        f"{experiment.name}: {experiment.title}",
        f"  runs {which}, on a platform of the lab's own on this machine, with {parts}",
        "  breaks, in this order:",
        *(f"    - {step}" for step in experiment.steps),
        f"  at worst: {ours.worst_case}",
        *([f"  comes after {ours.after}, which must be green"] if ours.after else []),
        f"  for {ours.seconds.max:g} s at most, {share(experiment)} of a day's traffic; then it is reverted by itself",
    ]


def _elsewhere(experiment: Experiment, at: At) -> list[str]:
    """The same about an installation that isn't the lab's."""
    ours = experiment.ours
    rate = sum(float(each.get("rate", 0)) for each in ours.traffic)
    return [
        f"{experiment.name} on {at.name}: {experiment.title}",
        f"  {at.name} is yours, not the lab's: {', '.join(sorted(at.hosts))}, as {at.file} says",
        f"  sends it {rate:g} events a second of the lab's own" if ours.traffic else "  sends it nothing",
        "  breaks, by the commands of that file:",
        *(f"    - {each}" for each in at.faults),
        *(["  not seen from outside, and so not judged:"] if at.unseen else []),
        *(f"    - {each}" for each in at.unseen),
        f"  at worst: {ours.worst_case}",
        *([f"  comes after {ours.after}, which must be green there"] if ours.after else []),
        f"  for {ours.seconds.max:g} s at most, {share(experiment)} of a day's traffic; then it is reverted by itself",
    ]


def share(experiment: Experiment) -> str:
    """Of a day's traffic, as people read it."""
    return f"{experiment.share_of_day * 100:.2g} %"
