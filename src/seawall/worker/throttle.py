"""Throttled queues: runs begin at a rate, and what may not begin yet stays where it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from seawall.kernel.clock import Clock
from seawall.store.queue import Rule
from seawall.worker.shard import Held

BURST_S = 1.0
"""What a queue didn't begin in so long it may begin at once; a run at least."""

ROUNDING = 1e-6
WORTH_S = 0.1
"""Runs of less time than this aren't worth a statement."""


class Room(NamedTuple):
    """What a queue may begin now."""

    kept: int  # runs in slots that nobody else may take
    most: int  # runs altogether, when nobody else wants what is shared


class Throttles:
    """One process's part of each queue's rate: by its shards, so that nothing is counted between processes.

    Args:
        rules: Of queues, by id.
    """

    def __init__(self, rules: Callable[[], Mapping[int, Rule]], clock: Clock) -> None:
        self._rules = rules
        self._clock = clock
        self._tokens: dict[int, float] = {}  # runs that may begin, by queue
        self._at_rate: dict[int, float] = {}  # this process's part of each throttled queue's rate
        self._at = clock.monotonic()
        self.wait_s: float | None = None  # until a queue that had to wait may begin some; None: none had to

    def capped(self, rooms: Mapping[int, Room], shards: Iterable[Held]) -> Mapping[int, Room]:
        """The same, with no more of each queue than its rate lets begin now."""
        self.look(shards)
        return self.cap(rooms)

    def look(self, shards: Iterable[Held]) -> None:
        """See what may begin by now."""
        self._at_rate = rates = self._rates(shards)
        now = self._clock.monotonic()
        passed_s, self._at = now - self._at, now
        self.wait_s = None
        self._tokens = {
            id: min(max(1.0, rate * BURST_S), self._tokens.get(id, 1.0) + passed_s * rate) for id, rate in rates.items()
        }

    def waits(self, id: int) -> bool:
        """Whether a queue has to wait, as it was at the last look."""
        rate = self._at_rate.get(id)
        return rate is not None and self._lacks(id, rate) > ROUNDING

    def cap(self, rooms: Mapping[int, Room]) -> Mapping[int, Room]:
        """As ``capped``, by the last look."""
        if not self._at_rate:
            return rooms
        found = {}
        for id, room in rooms.items():
            rate = self._at_rate.get(id)
            if rate is None:
                found[id] = room
                continue
            lacks = self._lacks(id, rate)
            if lacks > ROUNDING:
                self.wait_s = min(lacks / rate, self.wait_s or lacks / rate)
                continue
            most = min(room.most, int(self._tokens[id] + ROUNDING))
            found[id] = Room(min(room.kept, most), most)
        return found

    def _lacks(self, id: int, rate: float) -> float:
        return max(1.0, rate * WORTH_S) - self._tokens[id]

    def began(self, counts: Mapping[int, int]) -> None:
        """Runs have begun, by queue."""
        for id in self._tokens:
            self._tokens[id] -= counts.get(id, 0)

    def _rates(self, shards: Iterable[Held]) -> dict[int, float]:
        """This process's part of the rate of each throttled queue."""
        rules = self._rules()
        held = Counter(shard.lease.queue_id for shard in shards)
        return {
            id: rule.rate * min(1.0, count / rule.shards)
            for id, count in held.items()
            if (rule := rules.get(id)) is not None and rule.rate is not None
        }
