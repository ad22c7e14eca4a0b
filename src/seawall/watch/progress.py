"""Whether roles answer, and whether their loops make progress. Without I/O or a clock.

A listener that died without a word is what this is for (incident I1): "the server is running but nothing is working".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from seawall.watch.health import RoleHealth
from seawall.watch.verdict import Finding, Verdict

STALE_S = 10.0
"""Loops beat each second or so, and their owner ends one that doesn't within 3 s."""

FLAPS = 3
FLAPS_S = 300.0
"""A loop that was started again so often within so long makes no progress, however well it looks in between."""

NAMED_MAX = 5


class Restarts:
    """How often each role's loops were started again lately."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], deque[tuple[float, int]]] = {}

    def lately(self, role: str, loop: str, restarts: int, now: float) -> int:
        """Restarts within ``FLAPS_S``."""
        seen = self._seen.setdefault((role, loop), deque())
        if seen and restarts < seen[-1][1]:
            seen.clear()  # another process
        seen.append((now, restarts))
        while seen[0][0] < now - FLAPS_S:
            seen.popleft()
        return restarts - seen[0][1]


def silent(healths: Iterable[RoleHealth]) -> Mapping[str, Finding]:
    """Roles that don't answer, by name. One that answers has loops: the supervisor's own is always there."""
    return {
        health.role: Finding(verdict=Verdict.FINE) if health.loops else Finding(
            verdict=Verdict.BAD, summary=f"the {health.role} doesn't answer: {health.reason}",
            unaffected="" if health.role == "collector" else "events are accepted and kept",
            cure="look at its log; seawall up starts it again by itself",
        )
        for health in healths
    }  # fmt: skip


def stalled(healths: Iterable[RoleHealth], restarts: Restarts, now: float) -> Mapping[str, Finding]:
    """Roles with loops that make no progress, or can't do their work, by name."""
    found = {}
    for health in healths:
        if not health.loops:
            found[health.role] = Finding(verdict=Verdict.UNKNOWN)
            continue
        bad = []
        for loop in health.loops:
            flaps = restarts.lately(health.role, loop.name, loop.restarts, now)
            if flaps >= FLAPS:
                bad.append(f"{loop.name} (started again {flaps} times in {FLAPS_S / 60:.0f} minutes)")
            elif loop.last_progress_age_s > STALE_S:
                bad.append(f"{loop.name} (no progress for {loop.last_progress_age_s:.0f} s)")
            elif loop.essential and not loop.ready:
                bad.append(f"{loop.name} ({loop.reason})")
        more = f" and {len(bad) - NAMED_MAX} more" if len(bad) > NAMED_MAX else ""
        found[health.role] = Finding(verdict=Verdict.FINE) if not bad else Finding(
            verdict=Verdict.BAD, summary=f"loops of the {health.role} don't get on: {', '.join(bad[:NAMED_MAX])}{more}",
            unaffected="roles that aren't named", cure="/statusz of the admin address shows all loops; look at the log",
        )  # fmt: skip
    return found
