"""Folders as runs of experiments leave them, made by hand: what the report is tried on without running anything.

``python tests/lab/made_runs.py FOLDER`` makes some to look at.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from seawall.lab.record import SERIES, Expectation, Fault, Moment, Proof, Record, Sample, Status

FAULT_S = (20.0, 50.0)
WELL = {"sent": 2670, "accepted": 2670, "finished": 2670, "recovered": 0, "held": 640, "own": 640, "late": 0,
        "ticket": 0, "silent": 0, "wrong": 0, "duplicated": 0, "unknown": 0, "corrupted": 0, "invented": 0,
        "lost": 0}  # fmt: skip

Values = Callable[[float], Mapping[str, float]]


def record(name: str = "redis-listener-dies", *, on: bool = True, at: str = "061500", **more: Any) -> Record:
    """One that came out as expected; ``more`` says what is different."""
    word = "on" if on else "off"
    known: dict[str, Any] = {
        "id": f"{name}.{word}.20261123T{at}", "name": name, "title": "The listener of replies loses Redis",
        "incident": "I1", "protections": word, "weak": [] if on else ["deaf-listener"],
        "command": f"seawall lab run {name}{'' if on else ' --without'} --seed 0",
        "began": f"2026-11-23T{at[:2]}:{at[2:4]}:{at[4:]}+00:00", "seconds": 80.0, "status": Status.AS_EXPECTED,
        "faults": [Fault(name="redis a black hole", target="redis", began_s=FAULT_S[0], ended_s=FAULT_S[1],
                         ended_by="rollback")],
        "moments": [Moment(at_s=FAULT_S[0] - 0.1, kind="step", text="cut every line to Redis")],
        "proofs": [Proof(claim="the path to redis is dead", at_s=21.0, held=True, said="no answer within 1 s")],
        "expectations": [Expectation(claim="held requests are answered", held=True, said="640 of 640")],
        "verdict": WELL, "detect_s": 4.2, "mitigate_s": 2.1, "recover_s": 1.5,
    }  # fmt: skip
    return Record(**{**known, **more})


def leave(folder: Path, made: Record, values: Values | None = None) -> Path:
    """Write it into a lab's folder, with a sample twice a second when ``values`` says them."""
    path = folder / "run" / made.id
    path.mkdir(parents=True)
    made.save(path)
    if values is not None:
        samples = (Sample(n / 2, values(n / 2)) for n in range(int(made.seconds * 2)))
        (path / SERIES).write_text("".join(sample.line() + "\n" for sample in samples if sample.values))
    return path


def shape(*, on: bool, seed: int = 1) -> Values:
    """What an outage of Redis looks like from outside: with the protections a dent, without them a hole."""
    rng = random.Random(seed)

    def values(at_s: float) -> Mapping[str, float]:
        broken = FAULT_S[0] <= at_s < FAULT_S[1]
        hurt = broken and (not on or at_s < FAULT_S[0] + 2)
        late = (8000.0 if not on else 900.0) if hurt else 30 + 10 * rng.random()
        return {
            "intake.ok_rate": 80 + rng.randint(-6, 6), "intake.failed_rate": 0.0, "intake.refused_rate": 0.0,
            "held.own_rate": 0.0 if hurt else 20 + rng.randint(-3, 3),
            "held.none_rate": (19.0 if not on else 3.0) if hurt else 0.0,
            "intake.p50_ms": 3 + rng.random(), "intake.p99_ms": 12 + 5 * rng.random(),
            "held.p50_ms": late / 2, "held.p99_ms": late,
            "runs.ended_total": 100 * at_s, "router.events_total": 100 * at_s - rng.random(),
            "runs.inflight_count": 8 + rng.randint(0, 5), "held.waiting_count": 180.0 if hurt else 4.0,
            "listener.redis_age_s": (at_s - FAULT_S[0]) if broken or (not on and at_s > FAULT_S[0]) else rng.random(),
            "listener.notify_age_s": rng.random(), "journal.unrouted_bytes": 2000 + 500 * math.sin(at_s),
            "breaker.redis_code": 2.0 if broken and at_s > 23 and on else 0.0, "intake.ready_ratio": 1.0,
            "lab.steady": 0.0 if hurt else 1.0, "lab.memory_mb": 600 + at_s, "collector.rss_mb": 80 + at_s / 10,
            "begun.held_p99_s": late / 4000, "line.redis_bytes_s": 0.0 if broken else 9000 + 900 * rng.random(),
        }  # fmt: skip

    return values


def pair(folder: Path) -> None:
    """One incident, without the protections and with them."""
    leave(folder, record(), shape(on=True))
    off = record(
        on=False, at="061200", detect_s=None, mitigate_s=None, recover_s=22.5,
        verdict={**WELL, "own": 41, "silent": 599},
        expectations=[Expectation(claim="held requests hang", held=True, said="599 of 640 weren't answered")],
        moments=[
            Moment(at_s=FAULT_S[0] - 0.1, kind="step", text="cut every line to Redis"),
            Moment(at_s=41.0, kind="alert", text="replies_stuck (redis): 180 held requests wait for a listener"),
        ],
    )  # fmt: skip
    leave(folder, off, shape(on=False))


def several(folder: Path) -> None:
    """What a folder looks like after a while: incidents, a storm, something invalid, a runner that was killed."""
    pair(folder)
    leave(folder, record(at="051500", status=Status.NOT_AS_EXPECTED, why=["held requests are answered: 3 of 640"]))
    two = [Fault(name="redis a black hole", target="redis", began_s=10, ended_s=30, ended_by="method"),
           Fault(name="kafka.b1 stopped", target="kafka.b1", began_s=22, ended_s=44, ended_by="watchdog"),
           Fault(name="collector: SIGKILL", target="collector", began_s=35, ended_s=35)]  # fmt: skip
    storm = record("storm", incident="", title="Random faults, two at once", seed=7, at="070000", faults=two)
    leave(folder, storm, shape(on=True, seed=7))
    losing = record("restart-in-outage", on=False, incident="I4", title="A collector restarted in mid-outage",
                    at="071000", weak=["memory-ack"], verdict={**WELL, "lost": 212, "finished": 2458},
                    recover_s=3.0)  # fmt: skip
    leave(folder, losing, shape(on=False, seed=3))
    invalid = record("redis-slow", incident="I4", title="Redis answers after 2 s", at="072000", status=Status.INVALID,
                     why=["traffic called redis: 0 calls"], verdict={}, expectations=[],
                     proofs=[Proof(claim="traffic called redis", at_s=19, held=False, said="0 calls")])  # fmt: skip
    leave(folder, invalid)
    killed = record("zone-gone", incident="I4", title="Zone B is gone", at="073000", status=Status.RUNNING, verdict={},
                    detect_s=None, mitigate_s=None, recover_s=None,
                    faults=[Fault(name="zone b cut off", target="b", began_s=5.0)])  # fmt: skip
    leave(folder, killed, shape(on=True))


if __name__ == "__main__":
    several(Path(sys.argv[1]))
