"""Which of what was measured is drawn together, and how it is called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from seawall.lab.record import Moment
from seawall.lab.report.figure import GAP_S, Point, line
from seawall.lab.report.plot import Band, Line, Mark, Shade, Strip
from seawall.lab.report.shelf import Run


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot: names that share a unit."""

    title: str
    unit: str
    names: Mapping[str, str]  # of a sample, and what it is called
    log: bool = False
    full: float | None = None
    usual: bool = True  # else it is shown in a fold


PANELS = (
    Panel("Answers to senders", "a second", {
        "intake.ok_rate": "2xx", "intake.refused_rate": "4xx", "intake.failed_rate": "5xx",
        "intake.none_rate": "no answer",
    }),
    Panel("Held requests", "a second", {
        "held.own_rate": "own answer", "held.ticket_rate": "a ticket", "held.wrong_rate": "somebody else's answer",
        "held.refused_rate": "4xx", "held.failed_rate": "5xx", "held.none_rate": "no answer",
    }),
    Panel("Time to answer", "ms", {
        "intake.p50_ms": "senders, median", "intake.p99_ms": "senders, p99", "held.p50_ms": "held, median",
        "held.p99_ms": "held, p99", "balancer.check_ms": "the balancer's check",
    }, log=True),
    Panel("Work done", "a second", {
        "router.events_total": "events routed", "runs.ended_total": "runs ended", "kafka.acks_total": "acks of Kafka",
        "spool.spooled_total": "events to the spool",
    }),
    Panel("Depth", "count", {
        "runs.inflight_count": "runs in flight", "held.waiting_count": "held requests waiting",
        "intake.open_count": "requests open", "queue.depth_count": "runs queued",
    }),
    Panel("Age of what waits", "s", {
        "router.lag_s": "events not routed", "spool.lag_s": "events in the spool",
        "listener.redis_age_s": "last echo of Redis", "listener.notify_age_s": "last echo of LISTEN",
    }),
    Panel("Spool and journal", "bytes", {"spool.bytes": "spool", "journal.unrouted_bytes": "journal, not routed"}),
    Panel("Drain and reserve", "share", {
        "governor.share_ratio": "the governor's worst signal, of what is allowed", "reserve.left_ratio": "reserve left",
    }, full=1.0),
)  # fmt: skip

BREAKERS = {0: ("closed", "#00795a"), 1: ("half open", "#7a5200"), 2: ("open", "#b5432a"),
            3: ("forced closed", "#0068a8"), 4: ("forced open", "#7b3294")}  # fmt: skip
"""Of ``seawall_breaker_state_code``."""
CODE = "_code"
STEADY = {0: ("doesn't hold", "#b5432a"), 1: ("holds", "#00795a")}
READY = {0: ("not ready", "#b5432a"), 1: ("ready", "#00795a")}
IN = {0: ("taken out", "#b5432a"), 1: ("in", "#00795a")}
STRIPS = {"lab.steady": ("steady state", STEADY), "intake.ready_ratio": ("collector", READY),
          "balancer.in_ratio": ("at the balancer", IN)}  # fmt: skip
"""What is in one state at a time, beside breakers."""
FLAGS = ("alert", "act", "balancer")
"""Kinds of moments that get a flag; all stand in the timeline."""
UNITS = {"ms": "ms", "s": "s", "bytes": "bytes", "count": "count", "ratio": "share", "total": "a second",
         "rate": "a second", "mb": "MiB"}  # fmt: skip
LINES_MAX = 6
ROOMS = {"begun": "Beginning of work", "took": "Length of work", "api": "The API", "credit": "Burst credits"}
"""What only some experiments measure, and shows what they are about; names differ by their workflows."""


def names(runs: Iterable[Run]) -> set[str]:
    """Everything that was measured in them."""
    found: set[str] = set()
    for run in runs:
        for sample in run.samples:
            found |= sample.values.keys()
    return found


def others(measured: Iterable[str]) -> list[Panel]:
    """Panels for what stands in none, by unit and room."""
    known = {name for panel in PANELS for name in panel.names} | STRIPS.keys()
    groups: dict[tuple[str, str], list[str]] = {}
    for name in sorted(set(measured) - known):
        room, _, what = name.partition(".")
        if not name.endswith(CODE) and what:
            groups.setdefault((room, unit(name)), []).append(name)
    return [
        Panel(
            ROOMS.get(room, f"{room}: {said}"),
            said,
            usual=room in ROOMS,
            log=said in ("s", "ms") and room in ROOMS,
            names={name: _plain(name) for name in found[first : first + LINES_MAX]},
        )
        for (room, said), found in groups.items()
        for first in range(0, len(found), LINES_MAX)
    ]


def unit(name: str) -> str:
    """As the name ends."""
    if name.endswith("_bytes_s"):
        return "bytes a second"
    last = name.rpartition("_")[2]
    return UNITS.get(last, last if "." not in last else last.rpartition(".")[2])


def _plain(name: str) -> str:
    """Its name without room and unit."""
    what = name.partition(".")[2]
    body = (
        what.removesuffix("_bytes_s").rpartition("_")[0] if not what.endswith("_bytes_s") else what[: -len("_bytes_s")]
    )
    return (body or what).replace("_", " ")


def lines(panel: Panel, run: Run) -> dict[str, Line]:
    """By the sample's name; those that were measured at all."""
    found = {name: Line(label, line(run.samples, name, run.zero_s)) for name, label in panel.names.items()}
    return {name: each for name, each in found.items() if each.points}


def strips(run: Run) -> list[Strip]:
    """The steady state, readiness, and every breaker."""
    known = dict(STRIPS)
    for name in sorted(names([run])):
        if name.startswith("breaker.") and name.endswith(CODE):
            known[name] = (f"breaker to {_plain(name)}", BREAKERS)
    return [
        Strip(label, bands(line(run.samples, name, run.zero_s), states))
        for name, (label, states) in known.items()
        if any(name in sample.values for sample in run.samples)
    ]


def bands(points: Sequence[Point], states: Mapping[int, tuple[str, str]]) -> list[Band]:
    """One for each time that it stayed in one state; none where it couldn't be seen."""
    found: list[Band] = []
    for at_s, value in points:
        text, colour = states.get(round(value), (f"state {value:g}", "#4d4d4d"))
        last = found[-1] if found else None
        if last is not None and at_s - last.ended_s <= GAP_S:
            found[-1] = Band(last.began_s, at_s, last.text, last.colour)
            if last.text == text:
                continue
        found.append(Band(at_s, at_s, text, colour))
    return found


def shades(run: Run) -> list[Shade]:
    """What was broken, numbered as in the timeline."""
    end = _end(run)
    return [
        Shade(n, fault.name, fault.began_s - run.zero_s, (end if fault.ended_s is None else fault.ended_s) - run.zero_s)
        for n, fault in enumerate(run.record.faults, 1)
    ]


def marks(run: Run) -> list[Mark]:
    return [
        Mark(moment.at_s - run.zero_s, _said(moment), moment.kind == "alert")
        for moment in run.record.moments
        if moment.kind in FLAGS
    ]


def _said(moment: Moment) -> str:
    return f"{moment.kind}: {moment.text}"


def span(runs: Sequence[Run]) -> tuple[float, float]:
    """From when to when any of them is seen: a rig takes a while before there is anything to measure."""
    starts = [(run.samples[0].at_s if run.samples else 0.0) - run.zero_s for run in runs]
    ends = [_end(run) - run.zero_s for run in runs]
    return min(starts, default=0.0), max([1.0, *ends])


def _end(run: Run) -> float:
    last_s = run.samples[-1].at_s if run.samples else run.record.seconds
    faults = [fault.ended_s if fault.ended_s is not None else fault.began_s for fault in run.record.faults]
    return max([last_s, *faults])
