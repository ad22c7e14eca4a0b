"""An orderly stop, stage by stage, with the time that each took, and what was done with the events at its end.

A supervisor that kills before the shutdown handler is done lost a spool once (incident I4). So each stage says how long
it had and how long it took; what doesn't fit is seen in the log of an ordinary stop, before it matters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from seawall.guard.budget import Budget
from seawall.kernel.clock import Clock
from seawall.kernel.log import fields, logger
from seawall.machine.diary import WRITE_S
from seawall.settings import Program

log = logger("machine")

POSTGRES = "postgres"

LEAVE_S = 1.0
"""How long `up` waits in the end for threads that hang on a disk."""

BESIDE_S = 2 * WRITE_S + LEAVE_S + 1.0
"""What `up` takes beside its stages at the most: two writes of its diary on a disk that hangs, their threads, and what
it says."""

Report = Callable[[], Mapping[str, int]]
"""Counts of this process' life; ``lost`` among them is an error when it isn't 0."""


def stages(program: Program, *, embedded: bool) -> dict[str, float]:
    """Seconds of each stage of `up`'s stop, in order, one after the other. None takes longer (machine/process.py; of
    PostgreSQL, store/postmaster.py); beside them all, there is ``BESIDE_S``.

    Args:
        embedded: PostgreSQL is ours to stop.
    """
    return {
        "collector": program.stop_collector_s,
        "router": program.stop_router_s,
        **({"worker": program.stop_worker_s} if program.app else {}),
        "console": program.stop_console_s,
        **({POSTGRES: program.stop_postgres_s} if embedded else {}),
    }


class Stopping:
    """Times the stages of one stop, and gives each its time.

    Args:
        budget_s: For all stages together, from the first one's beginning on.
    """

    def __init__(self, budget_s: float, *, clock: Clock) -> None:
        self._budget_s = budget_s
        self._clock = clock
        self._began: float | None = None

    @contextmanager
    def stage(self, name: str, *, keep_share: float = 0.0) -> Iterator[Budget]:
        """Around one stage, with what it may spend; says what it took, also when it raised.

        Args:
            keep_share: Part of the whole budget that is left for the stages after it.
        """
        began = self._clock.monotonic()
        if self._began is None:
            self._began = began
        left_s = self._budget_s * (1 - keep_share) - (began - self._began)
        try:
            yield Budget(max(0.0, left_s), self._clock)
        finally:
            now = self._clock.monotonic()
            left_s = self._budget_s - (now - self._began)
            said = fields(stage=name, took_s=round(now - began, 3), left_s=round(left_s, 3))
            if left_s < 0:
                log.warning("a stage of stopping ended beyond the budget", extra=said)
            else:
                log.debug("a stage of stopping ended", extra=said)

    def report(self, counts: Mapping[str, int]) -> None:
        """The last word on the events of this process."""
        took_s = round(self._clock.monotonic() - self._began, 3) if self._began is not None else 0.0
        said = fields(**counts, took_s=took_s)
        if counts.get("lost"):
            log.critical("exit report", extra=said)
        else:
            log.info("exit report", extra=said)
