"""Trying again, within bounds: so often, after jittered pauses, and never so much that it makes an outage larger.

Retries multiply: three layers with three tries each are 27 calls to a store that is down. So a call is repeated only
for errors that its plan names, only while its deadline budget lasts, and only while its process' *allowance* does: each
first try earns a fraction of a retry, so that in the worst outage calls grow by that fraction and not by a factor.

Pauses have full jitter: what failed together must not come back together (Brooker, "Exponential Backoff And Jitter",
AWS 2015). The allowance is that of Finagle's retry budgets and gRPC's retry throttling.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from seawall.guard.budget import Budget
from seawall.kernel.error import Misconfigured, Overloaded, SeawallError
from seawall.kernel.metric import Metrics

T = TypeVar("T")


class Backoff:
    """Pauses that grow: each a random time of 0 to a ceiling, which doubles from ``first_s`` to ``most_s``.

    For loops that go on for ever it is all they need: one loop makes one call at a time. ``reset`` after a success.
    """

    __slots__ = ("_ceiling_s", "_first_s", "_most_s", "_rng")

    def __init__(self, first_s: float, most_s: float, rng: random.Random) -> None:
        assert 0 < first_s <= most_s, (first_s, most_s)
        self._first_s = self._ceiling_s = first_s
        self._most_s = most_s
        self._rng = rng

    def pause_s(self, *, most_s: float | None = None) -> float:
        """Seconds until the next try.

        Args:
            most_s: Another upper bound from now on: settings may change.
        """
        if most_s is not None:
            self._most_s = max(self._first_s, most_s)
        ceiling_s = min(self._ceiling_s, self._most_s)
        self._ceiling_s = min(self._most_s, ceiling_s * 2)
        return self._rng.uniform(0.0, ceiling_s)

    def reset(self) -> None:
        """It worked: the next failure is a first one."""
        self._ceiling_s = self._first_s


class Allowance:
    """Retries of one process towards one thing: ``burst`` at once, and ``ratio`` more for each first try."""

    __slots__ = ("_burst", "_ratio", "_tokens")

    def __init__(self, ratio: float, burst: float) -> None:
        self._ratio = ratio
        self._burst = burst
        self._tokens = burst

    def earn(self) -> None:
        """A first try was made."""
        self._tokens = min(self._burst, self._tokens + self._ratio)

    def spend(self) -> bool:
        """Whether one retry may be made; then it is counted."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPlan:
    """How one kind of call is repeated."""

    name: str  # of what is called, for metrics
    on: tuple[type[SeawallError], ...]  # errors after which the same call is safe to repeat and may succeed
    attempts: int = 3  # the first one included
    first_s: float = 0.05  # longest pause before the second
    most_s: float = 1.0  # longest pause at all
    ratio: float = 0.1  # retries for each first try, in the long run
    burst: float = 10.0  # and beyond that at once

    def problems(self) -> list[str]:
        """What is wrong with it; each names the plan."""
        found = []
        if not self.on:
            found.append(f"retries of {self.name}: name no error that is safe to repeat")
        if not 1 <= self.attempts <= 10:
            found.append(f"retries of {self.name}: attempts must be 1 to 10, not {self.attempts}")
        if not 0 < self.first_s <= self.most_s:
            found.append(f"retries of {self.name}: first_s must be over 0 and at most most_s")
        if not (0 <= self.ratio <= 1 and self.burst >= 1):
            found.append(f"retries of {self.name}: ratio must be 0 to 1, burst at least 1")
        return found


class Retries:
    """Repeats calls as its plan says. One for all callers of the same thing: they share the allowance.

    Raises:
        Misconfigured: The plan could never retry, or without end.
    """

    def __init__(self, plan: RetryPlan, *, rng: random.Random, metrics: Metrics) -> None:
        if problems := plan.problems():
            raise Misconfigured(problems)
        self.plan = plan
        self._rng = rng
        self._allowance = Allowance(plan.ratio, plan.burst)
        self._made = metrics.counter("seawall_retries_total", "Calls that were repeated.", to=plan.name)
        self._spared = metrics.counter(
            "seawall_retries_spared_total", "Repetitions left out so as not to enlarge an outage.", to=plan.name
        )

    async def call(self, work: Callable[[Budget], Awaitable[T]], budget: Budget) -> T:
        """The work's result, tried again where that is of use.

        Args:
            work: Called for each try with the budget, which it must keep.
            budget: For all tries and pauses together; no pause reaches beyond it.

        Raises:
            The last try's error, when it isn't one of the plan's, or tries, budget or allowance are spent.

        Cancelled: as ``work``; in a pause, nothing is under way.
        """
        turn = self.turn(budget)
        while True:
            try:
                return await work(budget)
            except SeawallError as error:
                pause_s = turn.after(error)
                if pause_s is None:
                    raise
            await asyncio.sleep(pause_s)

    def turn(self, budget: Budget) -> Turn:
        """The life of one call, for callers that wait by themselves."""
        self._allowance.earn()
        return Turn(self, Backoff(self.plan.first_s, self.plan.most_s, self._rng), budget)

    def spend(self) -> bool:
        """One retry off the allowance; False: there is none left."""
        allowed = self._allowance.spend()
        (self._made if allowed else self._spared).value += 1
        return allowed


class Turn:
    """One call and its repetitions. No I/O."""

    __slots__ = ("_backoff", "_budget", "_retries", "tries")

    def __init__(self, retries: Retries, backoff: Backoff, budget: Budget) -> None:
        self._retries = retries
        self._backoff = backoff
        self._budget = budget
        self.tries = 1  # made or under way

    def after(self, error: SeawallError) -> float | None:
        """How long to pause before the next try, in seconds; None: there is none. An ``Overloaded`` is given the time
        that it asks for."""
        plan = self._retries.plan
        if not isinstance(error, plan.on) or self.tries >= plan.attempts:
            return None
        pause_s = self._backoff.pause_s()
        if isinstance(error, Overloaded):
            pause_s = max(pause_s, error.retry_after_s)
        if pause_s >= self._budget.left_s or not self._retries.spend():
            return None
        self.tries += 1
        return pause_s
