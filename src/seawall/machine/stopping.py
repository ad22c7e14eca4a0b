"""An orderly stop, stage by stage, with the time that each took, and what was done with the events at its end.

A supervisor that kills before the shutdown handler is done lost a spool once (incident I4). So each stage says how long
it had and how long it took; what doesn't fit is seen in the log of an ordinary stop, before it matters.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from seawall.kernel.log import fields, logger

log = logger("machine")

Report = Callable[[], Mapping[str, int]]
"""Counts of this process' life; ``lost`` among them is an error when it isn't 0."""


class Stopping:
    """Times the stages of one stop.

    Args:
        budget_s: For all stages together.
        clock: Seconds, monotonic.
    """

    def __init__(self, budget_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._budget_s = budget_s
        self._clock = clock
        self._began: float | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Around one stage; says what it took, also when it raised."""
        began = self._clock()
        if self._began is None:
            self._began = began
        try:
            yield
        finally:
            now = self._clock()
            left_s = self._budget_s - (now - self._began)
            said = fields(stage=name, took_s=round(now - began, 3), left_s=round(left_s, 3))
            if left_s < 0:
                log.warning("a stage of stopping ended beyond the budget", extra=said)
            else:
                log.debug("a stage of stopping ended", extra=said)

    def report(self, counts: Mapping[str, int]) -> None:
        """The last word on the events of this process."""
        took_s = round(self._clock() - self._began, 3) if self._began is not None else 0.0
        said = fields(**counts, took_s=took_s)
        if counts.get("lost"):
            log.critical("exit report", extra=said)
        else:
            log.info("exit report", extra=said)
