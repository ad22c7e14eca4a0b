"""A storm as a Chaos Toolkit experiment: what runs it is what runs every other one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seawall.lab.experiment import Experiment, parse
from seawall.lab.record import STORM
from seawall.lab.rig.supply import KINDS
from seawall.lab.storm.row import NAMED, needs
from seawall.lab.storm.schedule import Blow, Storm

NAME = STORM
RATES = ({"kind": "events", "rate": 40}, {"kind": "held", "rate": 5})
SLACK_S = 300.0
"""A storm may take so much longer than planned: steps that take their time postpone what follows."""
GRAPH = ("lab.faults_count", "intake.ok_rate", "intake.p99_ms", "held.own_rate", "router.lag_s", "spool.lag_s")


def storm(made: Storm) -> Experiment:
    """The experiment.

    Raises:
        Misconfigured: Never, but for a mistake of ours.
    """
    return parse(document(made), Path(f"{NAME}.yaml"))


def document(made: Storm) -> dict[str, Any]:
    """As a file would hold it."""
    return {
        "version": "1.0.0",
        "title": title(made),
        "description": f"Faults of storm {made.version}.{made.seed}, at most {made.overlap} at once. All of them are "
        "mended; then nothing that was accepted may be lost, invented or corrupted.",
        "runtime": {"rollbacks": {"strategy": "always"}, "hypothesis": {"strategy": "continuously", "frequency": 0.5}},
        "controls": [{"name": "seawall", "provider": _python("seawall.lab.control")}],
        "steady-state-hypothesis": {
            "title": "Events are taken, and each held request gets its own answer",
            "probes": [
                _probe("events that are answered 2xx", "ok_share"),
                _probe("held requests that get their own answer", "own_share"),
            ],
        },
        "method": _method(made),
        "rollbacks": [
            {"name": "everything back", "type": "action", "provider": _python("seawall.lab.act", "all_back")}
        ],
        "extensions": [_ours(made)],
    }


def title(made: Storm) -> str:
    """For people."""
    return f"Storm {made.seed}: {len(made.blows)} faults in {made.seconds / 60:g} minutes, {made.overlap} at once"


def lines(made: Storm) -> list[str]:
    """A line for each blow."""
    return [f"{blow.at_s:7.1f} s  {_lasting(blow):>10}  {blow.fault:18} {blow.row.about} ({blow.row.code})"
            for blow in made.blows]  # fmt: skip


def _lasting(blow: Blow) -> str:
    return f"for {blow.for_s:.1f} s" if blow.for_s else "at once"


def _method(made: Storm) -> list[dict[str, Any]]:
    # Mending comes before breaking at the same moment: so there are never more at once than was promised.
    steps: list[tuple[float, int, int, str, str]] = []
    for number, blow in enumerate(made.blows):
        steps.append((blow.at_s, 1, number, "strike", blow.row.about))
        if blow.for_s:
            steps.append((blow.until_s, 0, number, "heal", f"{blow.row.about}, mended"))
    told = [
        _action(f"{at_s:g} s: {said}", func, at_s=at_s, fault=made.blows[number].fault)
        for at_s, _, number, func, said in sorted(steps)
    ]
    return [*told, _action(f"{made.seconds:g} s: the storm is over", "calm", at_s=made.seconds)]


def _ours(made: Storm) -> dict[str, Any]:
    parts = needs(NAMED[name] for name in made.faults)
    clustered = {"kafka3", "postgres"} & set(parts)
    return {
        "name": "seawall",
        "variant": made.variant,
        "needs": parts,
        "profile": "cluster" if clustered else "embedded",
        "traffic": list(RATES),
        "worst_case": "events are late, and requests are refused or cut off; nothing that was accepted is lost",
        "seconds": {"max": made.seconds + SLACK_S, "recover": 120, "warm": 120, "drain": 180},
        "calls": _calls(parts),
        "memory_mb": 4096,
        "graph": list(GRAPH),
        "expect": {
            "on": [
                {"claim": "nothing that was accepted is lost", "func": "verdict", "arguments": {"lost": 0}},
                {"claim": "nothing is invented, corrupted, or kept twice", "func": "verdict",
                 "arguments": {"invented": 0, "corrupted": 0, "duplicated": 0}},
                {"claim": "no answer is another's", "func": "verdict", "arguments": {"wrong": 0}},
                {"claim": "there was traffic", "func": "verdict", "arguments": {"accepted": [100, 10_000_000]}},
            ]
        },
    }  # fmt: skip


def _calls(parts: Sequence[str]) -> list[str]:
    return [KINDS[part] for part in parts]


def _python(module: str, func: str = "", arguments: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "python", "module": module, **({"func": func} if func else {}),
            **({"arguments": arguments} if arguments else {})}  # fmt: skip


def _action(name: str, func: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "type": "action", "provider": _python("seawall.lab.storm.play", func, arguments)}


def _probe(name: str, func: str) -> dict[str, Any]:
    return {"name": name, "type": "probe", "tolerance": {"type": "range", "range": [0.99, 1.0]},
            "provider": _python("seawall.lab.probe", func)}  # fmt: skip
