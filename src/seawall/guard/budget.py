"""What is left of one promise, passed down to every wait that is made under it.

A timeout for each wait is no promise: three waits of a second each are three seconds. So whoever promises makes one
budget, at the edge (a request's head, a round of a loop, the order to stop), and each wait below takes its time from
it. A call that takes a budget never waits longer than what is left, whatever it would like.
"""

from __future__ import annotations

import math

from seawall.kernel.clock import Clock, Deadline


class Budget:
    """So many seconds from now on. No I/O: ``asyncio.timeout(budget.grant_s(0.5))`` is the caller's.

    Args:
        seconds: At least 0; ``inf``: as long as it takes.
    """

    __slots__ = ("_clock", "_deadline")

    def __init__(self, seconds: float, clock: Clock) -> None:
        assert seconds >= 0, seconds
        self._clock = clock
        self._deadline = Deadline.after(seconds, clock)

    @property
    def left_s(self) -> float:
        """Seconds left, 0.0 when it is spent."""
        return self._deadline.left_s(self._clock)

    @property
    def spent(self) -> bool:
        """Whether nothing is left."""
        return self.left_s == 0.0

    def grant_s(self, most_s: float = math.inf, *, keep_s: float = 0.0) -> float:
        """How long the next wait may take, in seconds.

        Args:
            most_s: What the wait would take at the most, were there no budget.
            keep_s: Left for what must come after it; where less than that is left, the wait gets nothing.
        """
        return max(0.0, min(most_s, self.left_s - keep_s))

    def part(self, most_s: float = math.inf, *, keep_s: float = 0.0) -> Budget:
        """A nested call's own budget, beginning now; it ends with this one at the latest."""
        return Budget(self.grant_s(most_s, keep_s=keep_s), self._clock)
