"""How many shards of a queue this process should have: as many as any other that serves it, and none where a process of
the queue's own does. Without I/O or a clock; what it decides never fences, leases do.

Who has two more than somebody else gives half of the difference up, after that was so for a while: a process that died
is seen here for a moment longer than its leases are. What is given up is left to others for a while, and what nobody
wants is taken by anybody, so that no shard waits for a process that isn't there. A hand-over that fails is tried ever
more seldom: nothing goes back and forth.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from seawall.store.lease import Peer, Shard

PAUSE_MIN_S: Final = 10.0
PAUSE_MAX_S: Final = 300.0
PATIENCE_MAX_S: Final = 60.0


class Balance:
    """One process's view of all that serve its queues.

    Args:
        own: It is a process of just these queues, and others leave them to it.
        settle_s: How long something must be so before it is acted upon. More than a renewal may be late.
    """

    def __init__(self, *, own: bool, settle_s: float) -> None:
        self._own = own
        self._settle_s = settle_s
        self._peers: dict[int, list[Peer]] = {}
        self._surplus_since: dict[int, float] = {}
        self._offered_at: dict[Shard, float] = {}
        self._gave_at: dict[Shard, float] = {}
        self._not_before: dict[int, float] = {}
        self._pause_s: dict[int, float] = {}

    def saw(self, peers: Iterable[Peer]) -> None:
        """Which other processes are alive, and serve which queues."""
        self._peers = {}
        for peer in peers:
            self._peers.setdefault(peer.queue_id, []).append(peer)

    def wanted(self, queue_id: int, shards: int) -> int:
        """How many of a queue's shards this process may have now."""
        rivals, ours = self._rivals(queue_id)
        if not ours:
            return 0
        return math.ceil(shards / (1 + len(rivals)))

    def surplus(self, queue_id: int, mine: int, now: float) -> int:
        """How many of its shards to give up now; 0 until that has been so for a while."""
        rivals, ours = self._rivals(queue_id)
        given = sum(1 for shard in self._gave_at if shard.queue_id == queue_id)  # and not taken yet
        least = min((peer.held for peer in rivals), default=mine) + given
        count = mine if not ours else (mine - least) // 2
        if count <= 0:
            self._surplus_since.pop(queue_id, None)
            return 0
        since = self._surplus_since.setdefault(queue_id, now)
        if now - since < self._settle_s or now < self._not_before.get(queue_id, 0.0):
            return 0
        return count

    def may_take(self, shard: Shard, *, mine: int, shards: int, orphan: bool, now: float) -> bool:
        """Whether to take a free shard now.

        Args:
            mine: Shards of its queue that this process has.
            shards: All of its queue.
            orphan: Somebody had it until its lease ran out: whoever that was, it is gone.
        """
        offered_at = self._offered_at.setdefault(shard, now)
        if orphan or now - offered_at >= 2 * self._settle_s:
            return True
        return mine < self.wanted(shard.queue_id, shards) and shard not in self._gave_at

    def offered(self, free: Iterable[Shard], now: float) -> None:
        """All that is free now; what isn't was taken by somebody."""
        there = set(free)
        self._offered_at = {shard: at for shard, at in self._offered_at.items() if shard in there}
        for shard in [shard for shard in self._gave_at if shard not in there]:
            del self._gave_at[shard]
            self._pause_s.pop(shard.queue_id, None)

    def gave(self, shard: Shard, now: float) -> None:
        """It was given up."""
        self._gave_at[shard] = now

    def took(self, shard: Shard, now: float) -> None:
        """It was taken. One that this process had given up itself: nobody wanted it."""
        self._offered_at.pop(shard, None)
        if self._gave_at.pop(shard, None) is not None:
            self.failed(shard.queue_id, now)

    def failed(self, queue_id: int, now: float) -> None:
        """A hand-over came to nothing: the next one is tried later."""
        pause_s = self._pause_s.get(queue_id, PAUSE_MIN_S)
        self._not_before[queue_id] = now + pause_s
        self._pause_s[queue_id] = min(PAUSE_MAX_S, 2 * pause_s)

    def patience_s(self, queue_id: int) -> float:
        """How long the runs in hand of a shard that is given up may take to end."""
        return min(PATIENCE_MAX_S, self._pause_s.get(queue_id, PAUSE_MIN_S))

    def _rivals(self, queue_id: int) -> tuple[list[Peer], bool]:
        """The others that should have a queue's shards, and whether this process should at all."""
        peers = self._peers.get(queue_id, [])
        own = [peer for peer in peers if peer.own]
        return (own, self._own) if own or self._own else (peers, True)
