"""What experiments look at: probes for Chaos Toolkit files, over the rig of this process.

Those of the traffic are about answers that came in the last seconds; those of the platform are about its last sample.
"""

from __future__ import annotations

from seawall.lab.rig import current

LATELY_S = 5.0


def ok_share(kind: str = "events", seconds: float = LATELY_S) -> float:
    """Share of answers that were 2xx; 0.0 when there were none. Of held requests: those with an answer of any kind."""
    window = current().flow.recent[kind].window(seconds)
    return window.count("ok") / window.all if window.all else 0.0


def own_share(seconds: float = LATELY_S) -> float:
    """Share of held requests that were answered with their own reply; 0.0 when none was answered."""
    window = current().flow.recent["held"].window(seconds)
    return window.count("own") / window.all if window.all else 0.0


def p99_ms(kind: str = "events", seconds: float = LATELY_S) -> float:
    """Of 100 answers, 99 came within this, since they were due. A day when none came."""
    found = current().flow.recent[kind].window(seconds).quantile_s(0.99)
    return round(found * 1000, 3) if found is not None else 86_400_000.0


def wrong_count() -> int:
    """Held requests that got another's answer, since the rig was opened."""
    return current().flow.recent["held"].total["wrong"]


def figure(name: str, missing: float = -1.0) -> float:
    """A value of the last sample, such as ``router.lag_s``."""
    return current().sampled().get(name, missing)


def listener_age_s(channel: str = "redis") -> float:
    """Seconds since the responder last heard its own echo through a channel. -1.0: nobody says."""
    return figure(f"listener.{channel}_age_s")


def open_alerts() -> int:
    """How many are open."""
    return len(current().alerts())


def intake_ready() -> bool:
    """Whether the collector calls itself ready, as a balancer would ask it."""
    return current().ready()


def alive(path: str) -> bool:
    """Whether a question over a line (``redis.r1``) is answered, or over all lines of a target (``redis``)."""
    rig = current()
    return all(rig.alive(line.name) for line in rig.lines_of(path))


def primary() -> str:
    """Which Redis the sentinels call primary."""
    found = current().parts["redis"]
    return str(getattr(found, "primary")())  # noqa: B009 - only some parts have one


def settled(target: str) -> bool:
    """Whether a part is as healthy as it can be: every replica has everything."""
    return current().parts[target].unsettled() == ""
