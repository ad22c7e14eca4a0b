"""A circuit breaker without any I/O: it is told what happened and when, and says whether the next call may be made.

A dependency that hangs costs each caller its timeout, and a fleet of callers that all wait looks dead itself: short
timeouts alone got hosts evicted (incident I4). So after a few failures, or slow answers, nobody asks any more for a
while, and everybody gets the declared default at once.

    closed ──too many failures or slow calls──▶ open ──backoff──▶ half open ──trials succeed──▶ closed
                                                  ▲                   │
                                                  └────a trial fails──┘

Half open lets one trial at a time through, on a lease: a trial whose caller vanished doesn't keep the breaker half open
for ever. A cancelled call says nothing about the dependency, but gives its trial back.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from seawall.kernel.clock import Clock
from seawall.kernel.error import Misconfigured

BUCKETS: Final = 10
"""Parts of the window; one is forgotten at a time."""

LUMP_S: Final = 0.1
"""Failures within so little time are one in a row: fifty calls cut off by one reset are one outage, not fifty."""


class State(Enum):
    """What a breaker does with the next call."""

    CLOSED = "closed"  # lets it through
    OPEN = "open"  # doesn't
    HALF_OPEN = "half_open"  # lets one at a time through, to try
    FORCED_OPEN = "forced_open"  # by hand, until by hand
    FORCED_CLOSED = "forced_closed"  # by hand: counts, and lets everything through


class Cause(Enum):
    """Why a call had no use; each is counted apart, since a mean over all of them hid a cut zone (incident I4)."""

    TIMEOUT = "timeout"  # no answer in time
    REFUSED = "refused"  # nobody listens
    RESET = "reset"  # the connection broke
    ERROR = "error"  # an answer, and it says that the dependency can't
    REJECTED = "rejected"  # never sent: the breaker is open, or the bulkhead full


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a breaker opens, and for how long. Defaults: research on five breakers, docs/decisions/0008-breaker.md."""

    window_s: float = 10.0
    calls_min: int = 10  # in the window, before a rate means anything
    failure_rate: float = 0.5
    slow_rate: float = 0.5
    slow_s: float = 0.075  # a call that took longer is slow, even when it succeeded
    in_a_row: int = 5  # failures that open it whatever the rate is
    open_min_s: float = 1.0
    open_max_s: float = 30.0
    jitter: float = 0.2  # of the open time, up and down: a fleet must not try at the same moment
    trials: int = 3  # successes in a row that close it
    trial_s: float = 0.5  # a trial's lease

    def problems(self, name: str) -> list[str]:
        """What makes these limits useless; each names the breaker."""
        found = []
        for rate in ("failure_rate", "slow_rate"):
            if not 0 < getattr(self, rate) <= 1:
                found.append(f"breaker {name}: {rate} must be over 0 and at most 1, not {getattr(self, rate)}")
        if not 0 < self.open_min_s <= self.open_max_s:
            found.append(f"breaker {name}: open_min_s must be over 0 and at most open_max_s")
        if self.window_s < 2 * self.slow_s:
            found.append(f"breaker {name}: window_s must be at least twice slow_s, or slow calls fall out of it unseen")
        if min(self.calls_min, self.in_a_row, self.trials) < 1 or self.trial_s <= 0 or not 0 <= self.jitter < 1:
            found.append(f"breaker {name}: calls_min, in_a_row, trials and trial_s must be positive, jitter below 1")
        return found


@dataclass(slots=True)
class _Bucket:
    number: int
    calls: int = 0
    failures: int = 0
    slow: int = 0


@dataclass(slots=True)
class Permit:
    """One call that was let through. Exactly one of ``Breaker.succeeded|failed|abandoned`` ends it."""

    began: float
    trial: int = 0  # the lease's number; 0: an ordinary call


Changed = Callable[["Breaker", State, State], None]


class Breaker:
    """One dependency's breaker.

    Args:
        name: Of the dependency, as alerts and metrics say it.
        changed: Called with (breaker, from, to) at each change of state. Must not raise.

    Raises:
        Misconfigured: It could never open, or never close.
    """

    def __init__(
        self, name: str, limits: Limits, *, clock: Clock, rng: random.Random,
        changed: Changed = lambda breaker, before, after: None,
    ) -> None:  # fmt: skip
        if problems := limits.problems(name):
            raise Misconfigured(problems)
        self.name = name
        self.limits = limits
        self._clock = clock
        self._rng = rng
        self._changed = changed
        self._state = State.CLOSED
        self._buckets: deque[_Bucket] = deque(maxlen=BUCKETS)
        self._row = 0
        self._row_at = float("-inf")
        self._opened_in_a_row = 0
        self._open_until = 0.0
        self._trial = 0  # number of the lease; a stale one ends without effect
        self._trial_until: float | None = None
        self._passed = 0

    @property
    def state(self) -> State:
        """As it stands; an open one whose time has passed is half open from the next call on."""
        return self._state

    @property
    def admits(self) -> bool:
        """Whether ``admit`` would let a call through now."""
        now = self._clock.monotonic()
        if self._state is State.OPEN:
            return now >= self._open_until
        if self._state is State.HALF_OPEN:
            return self._trial_until is None or now >= self._trial_until
        return self._state is not State.FORCED_OPEN

    def admit(self) -> Permit | None:
        """Ask for one call; None: make none, use the default."""
        now = self._clock.monotonic()
        if self._state is State.OPEN and now >= self._open_until:
            self._passed, self._trial_until = 0, None
            self._become(State.HALF_OPEN)
        if self._state in (State.CLOSED, State.FORCED_CLOSED):
            return Permit(now)
        if self._state is State.HALF_OPEN and (self._trial_until is None or now >= self._trial_until):
            self._trial += 1
            self._trial_until = now + self.limits.trial_s
            return Permit(now, self._trial)
        return None

    def succeeded(self, permit: Permit) -> None:
        """The dependency answered, and could do what it was asked, or said that the question was wrong."""
        now = self._clock.monotonic()
        slow = now - permit.began > self.limits.slow_s
        if permit.trial:
            self._tried(permit, passed=not slow)
            return
        self._row = 0
        self._count(now, failed=False, slow=slow)

    def passed(self, calls: int, *, slow: int) -> None:
        """So many ordinary calls succeeded, some of them slowly: for callers with too many to tell of each."""
        self._row = 0
        self._count(self._clock.monotonic(), failed=False, slow=slow > 0, calls=calls, slow_calls=slow)

    def failed(self, permit: Permit) -> None:
        """It didn't."""
        now = self._clock.monotonic()
        if permit.trial:
            self._tried(permit, passed=False)
            return
        if now - self._row_at > LUMP_S:
            self._row += 1
            self._row_at = now
        self._count(now, failed=True, slow=now - permit.began > self.limits.slow_s)

    def abandoned(self, permit: Permit) -> None:
        """We stopped waiting for reasons of our own: nothing is learnt, and a trial is given back."""
        if permit.trial == self._trial and self._state is State.HALF_OPEN:
            self._trial_until = None

    def trip(self) -> None:
        """Open a closed one now: its owner knows more than single calls say, as that nothing comes back at all."""
        if self._state is State.CLOSED:
            self._open(self._clock.monotonic())

    def force(self, state: State | None) -> None:
        """By hand: FORCED_OPEN or FORCED_CLOSED until further notice; None: by itself again, beginning closed."""
        assert state in (None, State.FORCED_OPEN, State.FORCED_CLOSED), state
        self._forget()
        self._opened_in_a_row = 0
        self._become(state or State.CLOSED)

    def retry_after_s(self) -> float:
        """How long until the next trial, at the earliest; 0.0 when calls pass."""
        return max(0.0, self._open_until - self._clock.monotonic()) if self._state is State.OPEN else 0.0

    def _count(self, now: float, *, failed: bool, slow: bool, calls: int = 1, slow_calls: int = 1) -> None:
        number = int(now * BUCKETS / self.limits.window_s)
        if not self._buckets or self._buckets[-1].number != number:
            self._buckets.append(_Bucket(number))
        bucket = self._buckets[-1]
        bucket.calls += calls
        bucket.failures += failed
        bucket.slow += slow_calls if slow else 0
        if self._state is State.CLOSED and (failed or slow) and self._too_bad(number):
            self._open(now)

    def _too_bad(self, number: int) -> bool:
        if self._row >= self.limits.in_a_row:
            return True
        recent = [bucket for bucket in self._buckets if bucket.number > number - BUCKETS]
        calls = sum(bucket.calls for bucket in recent)
        return calls >= self.limits.calls_min and (
            sum(bucket.failures for bucket in recent) >= self.limits.failure_rate * calls
            or sum(bucket.slow for bucket in recent) >= self.limits.slow_rate * calls
        )

    def _tried(self, permit: Permit, *, passed: bool) -> None:
        if permit.trial != self._trial or self._state is not State.HALF_OPEN:
            return  # its lease ran out, or somebody's hand was faster
        self._trial_until = None
        if not passed:
            self._open(self._clock.monotonic())
            return
        self._passed += 1
        if self._passed >= self.limits.trials:
            self._forget()
            self._opened_in_a_row = 0
            self._become(State.CLOSED)

    def _open(self, now: float) -> None:
        open_s = min(self.limits.open_max_s, self.limits.open_min_s * 2.0 ** min(self._opened_in_a_row, 30))
        self._opened_in_a_row += 1
        self._open_until = now + open_s * self._rng.uniform(1 - self.limits.jitter, 1 + self.limits.jitter)
        self._forget()
        self._become(State.OPEN)

    def _forget(self) -> None:
        self._buckets.clear()
        self._row = 0
        self._row_at = float("-inf")
        self._trial_until = None

    def _become(self, state: State) -> None:
        before, self._state = self._state, state
        if before is not state:
            self._changed(self, before, state)
