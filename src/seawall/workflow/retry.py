"""How often something that failed is tried again, and how a step's failure looks to its workflow."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

RETRY_AFTER_MAX_S = 86_400.0
"""Longest wait that a ``Retry-After`` can ask for."""


class NonRetryable(Exception):
    """Raise it (or a subclass) in a step or a workflow when trying again can't help: it fails at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Exponential waits with full jitter: before try n + 1, a random time of 0 to ``first_s * factor ** (n - 1)``.

    Full jitter, not a fixed wait: what failed together must not come back together (Brooker, "Exponential Backoff And
    Jitter", AWS 2015). An exception's ``retry_after_s`` (or ``retry_after``) in seconds is a floor under the wait.

    Args:
        attempts: Tries altogether, 1 to 1000; 1 never tries again.
        first_s: Longest wait before the second try.
        factor: Growth of the longest wait, at least 1.
        max_s: The longest wait never exceeds this.
    """

    attempts: int = 5
    first_s: float = 1.0
    factor: float = 2.0
    max_s: float = 3600.0

    def __post_init__(self) -> None:
        if not (isinstance(self.attempts, int) and 1 <= self.attempts <= 1000):
            raise ValueError(f"Retry(attempts={self.attempts!r}): a whole number of 1 to 1000 is needed")
        if not (math.isfinite(self.factor) and self.factor >= 1):
            raise ValueError(f"Retry(factor={self.factor!r}): a number of at least 1 is needed")
        for name, value in (("first_s", self.first_s), ("max_s", self.max_s)):
            if not (math.isfinite(value) and 0 <= value <= RETRY_AFTER_MAX_S):
                raise ValueError(f"Retry({name}={value!r}): seconds of 0 to {RETRY_AFTER_MAX_S:g} are needed")

    def delay_s(self, failures: int, error: BaseException, chance: random.Random) -> float:
        """Seconds to wait after the ``failures``-th failure in a row (from 1)."""
        # The exponent is bounded so that a large count can't overflow the float before min() sees it.
        ceiling = min(self.max_s, self.first_s * self.factor ** min(failures - 1, 64))
        return max(chance.uniform(0, ceiling), retry_after_s(error))


NEVER = Retry(attempts=1)


def retry_after_s(error: BaseException) -> float:
    """The floor that an exception asks for, in seconds; 0.0 when it asks for none or for nonsense. Never raises."""
    try:
        asked = getattr(error, "retry_after_s", None)
        if asked is None:
            asked = getattr(error, "retry_after", None)
        if asked is None:
            return 0.0
        seconds = float(asked)
    except BaseException:  # noqa: BLE001
        # User code: a property or a __float__ of its exception may raise anything, and would end the run's own task.
        return 0.0
    return min(max(seconds, 0.0), RETRY_AFTER_MAX_S) if math.isfinite(seconds) else 0.0


class StepFailed(Exception):
    """A step ended without a value. Uncaught, it fails this attempt of the run, and the next attempt tries the step
    again; caught, the workflow goes on, and the failure is remembered like a value: a replay takes the same way.

    Always this type, whatever the step raised: a replay after a crash can't bring the original object back. In the
    first execution it is the ``__cause__``.

    Args:
        step: The step's name.
        type: Name of the exception's class.
        message: Its text.
        attempts: Tries that were made.
        retryable: False: NonRetryable, or a result that can't be kept; the run isn't tried again either.
        retry_after_s: A floor under the wait before the run's next attempt.
    """

    def __init__(
        self, *, step: str, type: str, message: str, attempts: int, retryable: bool = True, retry_after_s: float = 0.0
    ) -> None:
        self.step = step
        self.type = type
        self.message = message
        self.attempts = attempts
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        tries = "once" if attempts == 1 else f"{attempts} times"
        super().__init__(f"step {step} failed, tried {tries}: {type}: {message}")


def may_retry(error: BaseException) -> bool:
    """Whether trying again could help."""
    # By type: isinstance() asks the object too, whose __class__ may be a property that raises.
    if issubclass(type(error), StepFailed):
        return bool(getattr(error, "retryable", True))
    return not issubclass(type(error), NonRetryable)
