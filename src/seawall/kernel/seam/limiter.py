"""The limiter seam: whether one more of something may pass now, and what to tell whoever may not.

A limiter is asked on the way of a request. ``look`` and ``decide`` answer at once and from memory, and need nobody.
``ask`` may answer later, within ``ASK_S``: an implementation that shares its numbers with other processes asks there.
While it can't, it goes on alone and at once; what the others have let through meanwhile is then not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

SECOND_US = 1_000_000

ASK_S = 0.15
"""Longest time from a question to its answer, event loop permitting. Source: incident I4, where one second was too
long."""


@dataclass(frozen=True, slots=True)
class Rate:
    """``limit`` per ``per_s`` seconds on average, and all of them at once when nothing came before."""

    limit: int
    per_s: float = 1.0

    @property
    def interval_us(self) -> int:
        """Between two at the steady rate; at least 1."""
        return max(1, round(self.per_s * SECOND_US / self.limit))

    @property
    def window_us(self) -> int:
        return self.interval_us * self.limit


@dataclass(frozen=True, slots=True)
class Allowance:
    """A decision, with what the RateLimit fields and Retry-After say."""

    allowed: bool
    tat_us: int  # to be kept; unchanged when it wasn't allowed
    remaining: int  # that would be allowed at once now
    retry_after_us: int  # until one more is allowed; 0 when one is
    reset_us: int  # until all of them are


Decided = Callable[[Sequence[Allowance]], None]
"""Called exactly once, with an allowance per key of the question, in its order. Must not raise."""


class Limiter(Protocol):
    """Counts what passes under a key. Keys are short bytes, of which an implementation keeps a bounded number: one
    unused for long is forgotten, which is as good as never having been used.

    The rate comes with each question, so a changed setting holds from the next one on; a key is asked about with one
    rate at a time. Every implementation passes ``tests/seam/test_limiter.py``.
    """

    def look(self, key: bytes, rate: Rate) -> Allowance:
        """What ``decide`` would say; nothing is counted. ``tat_us`` is of no meaning to the caller."""

    def decide(self, key: bytes, rate: Rate) -> Allowance:
        """Whether one more may pass; it is counted when it may, and only then."""

    def ask(self, limits: Sequence[tuple[bytes, Rate]], decided: Decided) -> None:
        """Whether one more may pass under all of these keys. It is counted when all of them allow it, under all, and
        else under none. Never raises.

        Args:
            limits: At most ``KEYS_MAX``, each key once; none at all is allowed.
            decided: Called before this returns, or within ``ASK_S``, also when the limiter is closed meanwhile.
        """


KEYS_MAX = 4
"""Of one question."""
