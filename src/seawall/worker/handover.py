"""Gives shards up to other workers, in order: nothing of it begins any more, what is in hand ends and is kept, and only
then is the lease given back. So nobody is suspected, no step is called twice, and the fence has nothing to do.

A shard whose runs don't end in time is kept, and tried again later: to cut steps off for the sake of balance would
repeat what they do to the world.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.store.lease import Shard
from seawall.worker.balance import Balance
from seawall.worker.shard import Held

log = logger("worker")


class Handover:
    """Which of this process's shards are being given up.

    Args:
        unwritten: Whether anything of a shard waits for the store.
        most: How many runs of a queue may be in hand when only these shards of it are left.
    """

    def __init__(
        self, balance: Balance, metrics: Metrics, *, unwritten: Callable[[Held], bool],
        most: Callable[[int, Sequence[Held]], float],
    ) -> None:  # fmt: skip
        self._balance = balance
        self._unwritten = unwritten
        self._most = most
        self._given = metrics.counter("seawall_shards_given_total", "Shards given up to other workers.")

    def due(self, shards: Iterable[Held], now: float) -> list[Held]:
        """Mark those to be given up, and return those of which nothing is left to end: their leases may go."""
        found = []
        for queue_id, mine in _by_queue(shards).items():
            self._mark(queue_id, mine, now)
            found += self._ended_of(mine)
        return found

    def ended(self, shards: Sequence[Held]) -> bool:
        """Whether nothing is left to end of one that is being given up."""
        leaving = [held for held in shards if held.leaving_until is not None]
        return bool(leaving) and any(map(self._ended_of, _by_queue(shards).values()))

    def _ended_of(self, mine: Sequence[Held]) -> list[Held]:
        """Those that may go. Who takes them begins that part of the queue's `max` at once: it has to be free here."""
        kept = [held for held in mine if held.leaving_until is None]
        if len(kept) == len(mine) or self._in_hand(mine) > self._most(mine[0].lease.queue_id, kept):
            return []
        return [held for held in mine if held.leaving_until is not None and self._ended(held)]

    def _mark(self, queue_id: int, mine: Sequence[Held], now: float) -> None:
        leaving = [held for held in mine if held.leaving_until is not None]
        late = [held for held in leaving if held.leaving_until is not None and held.leaving_until < now]
        if set(late) - set(self._ended_of(mine)):
            self._balance.failed(queue_id, now)
            log.debug("a shard is kept: its runs take long", extra=fields(queue=queue_id))
        count = self._balance.surplus(queue_id, len(mine), now)
        for held in leaving[count:]:
            held.leaving_until = None
        idlest = sorted((held for held in mine if held not in leaving), key=lambda held: len(held.inflight))
        for held in idlest[: max(0, count - len(leaving))]:
            held.leaving_until = now + self._balance.patience_s(queue_id)

    def _in_hand(self, shards: Iterable[Held]) -> int:
        return sum(len(held.inflight) for held in shards)

    def _ended(self, held: Held) -> bool:
        return not held.inflight and not held.reading and not self._unwritten(held)

    def gave(self, held: Held, now: float) -> None:
        """Its lease was given back."""
        held.lost = True
        self._balance.gave(Shard(held.lease.queue_id, held.lease.shard), now)
        self._given.value += 1
        log.info(
            "a shard was given up to another worker", extra=fields(queue=held.lease.queue_id, shard=held.lease.shard)
        )


def _by_queue(shards: Iterable[Held]) -> dict[int, list[Held]]:
    """Those that may be given up."""
    found: dict[int, list[Held]] = {}
    for held in shards:
        if held.lease.shard >= 0 and not held.lost:
            found.setdefault(held.lease.queue_id, []).append(held)
    return found


def shards_of(held: Mapping[Shard, Held], queue_id: int) -> int:
    """How many of a queue's shards are held."""
    return sum(1 for shard in held if shard.queue_id == queue_id)
