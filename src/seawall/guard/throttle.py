"""The generic cell rate algorithm: a rate with a burst, in one number per key and no timer.

The number is the theoretical arrival time, *tat*: when the key's bucket would be full again. The same arithmetic runs
here and in Redis (``cache/gcra.lua``), in whole microseconds, so that falling back from the shared limiter to
the local one and returning changes nobody's allowance by more than what the other side couldn't see.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from seawall.kernel.seam.limiter import SECOND_US, Allowance, Rate

__all__ = ["SECOND_US", "Allowance", "Rate", "Throttle", "decide"]


def decide(tat_us: int, now_us: int, rate: Rate, *, cost: int = 1) -> Allowance:
    """Whether ``cost`` more may pass now.

    Args:
        tat_us: As kept; 0 for a key that is new. Of the same clock as ``now_us``. One that lies further ahead than the
            rate allows (a clock that went back) counts as the furthest possible.
    """
    interval, window = rate.interval_us, rate.window_us
    tat = min(max(tat_us, now_us), now_us + window)
    after = tat + interval * cost
    if after - now_us > window:
        return Allowance(False, tat_us, (window - (tat - now_us)) // interval, after - now_us - window, tat - now_us)
    left = window - (after - now_us)
    return Allowance(True, after, left // interval, max(0, interval - left), after - now_us)


class Throttle:
    """Allowances of many keys, in memory, at most ``keys_max``: the one unused for longest is forgotten first, which
    is as good as never having been, unless more keys than that are over their rate at once."""

    def __init__(self, keys_max: int) -> None:
        assert keys_max > 0, keys_max
        self._keys_max = keys_max
        self._tat_us: OrderedDict[Hashable, int] = OrderedDict()

    def take(self, key: Hashable, now_us: int, rate: Rate, *, cost: int = 1) -> Allowance:
        """Decide, and remember."""
        found = decide(self._tat_us.get(key, 0), now_us, rate, cost=cost)
        if found.allowed:
            self.note(key, found.tat_us)
        elif key in self._tat_us:
            self._tat_us.move_to_end(key)  # in use, and the last to be forgotten
        return found

    def note(self, key: Hashable, tat_us: int) -> None:
        """Somebody else decided: keep the later of the two."""
        kept = self._tat_us
        kept[key] = max(tat_us, kept.get(key, 0))
        kept.move_to_end(key)
        if len(kept) > self._keys_max:
            kept.popitem(last=False)

    def tat_us(self, key: Hashable) -> int:
        """As kept; 0 for a key that isn't."""
        return self._tat_us.get(key, 0)

    def __len__(self) -> int:
        return len(self._tat_us)
