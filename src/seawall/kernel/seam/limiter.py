"""The limiter seam: whether one more of something may pass now, and what to tell whoever may not.

A limiter is asked on the way of a request, so it answers at once and from memory: it never waits, never raises and
needs nobody. An implementation that shares its numbers with other processes exchanges them beside that way, in a loop
of its own, and goes on alone while it can't; what the others have let through meanwhile is then not counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

SECOND_US = 1_000_000


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
