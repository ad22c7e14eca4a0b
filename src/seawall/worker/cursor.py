"""How far each shard has been read, and when reading goes back: on a hint, and at each sweep from the beginning."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from seawall.kernel.made import Made
from seawall.store.run import BEGIN, Ready
from seawall.worker.shard import Held
from seawall.worker.slot import Claims

BACK_S = 0.01
"""A cursor goes back at most so often: reading over what is in hand costs about a millisecond for a thousand runs."""

NEXT_S = 0.002
"""Runs that are next are looked for at most so often, where no slot but the last ones is free."""


class Cursors:
    """What hints say of shards that were read further already."""

    def __init__(self) -> None:
        self.behind: dict[int, Made] = {}  # by queue, what was hinted and isn't read yet
        self._back_at = 0.0  # monotonic; cursors may go back again
        self._next_at = 0.0  # monotonic; what is before them may be read again
        self._sweep_now = False

    def hint(self, queue_id: int, made: Made) -> None:
        """A queue has new runs."""
        self.behind[queue_id] = made.and_(self.behind.get(queue_id))

    def sweep(self) -> None:
        """Have every shard read from its beginning."""
        self._sweep_now = True

    def go_back(self, shards: Sequence[Held], now: float) -> None:
        """Act on hints of these shards' queues, which have room: a cursor that is beyond what was hinted returns there.
        Those of other queues are kept."""
        if self._sweep_now:
            self._sweep_now = False
            for held in shards:
                held.sweep_at = now
        behind = [held for held in shards if self._passed(held)]
        if behind and now < self._back_at:
            return
        for held in behind:
            held.back_to(self.behind[held.lease.queue_id].first)
        if behind:
            self._back_at = now + BACK_S
        for held in shards:
            self.behind.pop(held.lease.queue_id, None)

    def named(self, shards: Sequence[Held], claims: Claims) -> list[Held]:
        """Those for which a hint tells of runs that are next: they go before some in hand, or nothing is before them in
        their queue, which has less than its part. Hints that tell nothing of the kind for any of the shards go: reading
        on finds those runs in their order.
        """
        found = [held for held in shards if self._passed(held) or self._is_next(held, claims.poor)]
        ours = {held.lease.queue_id for held in found}
        for held in shards:
            held.whole = held.whole and (held.lease.queue_id in ours or self._made(held) is None)
        self.behind = {id: made for id, made in self.behind.items() if id in ours}
        return [held for held in found if held.lease.queue_id in claims.express]

    def next(self, shards: Sequence[Held], now: float) -> list[Made] | None:
        """What is to be read of each, while its cursor stays; the hints go. None: not yet."""
        if now < self._next_at:
            return None
        self._next_at = now + NEXT_S
        made = [self.behind[held.lease.queue_id] for held in shards]
        for held in shards:
            self.behind.pop(held.lease.queue_id, None)
        return made

    def wait_s(self, now: float) -> float | None:
        """Until hints that are left may be acted on; None: there are none, or only room is what they wait for."""
        at = min((at for at in (self._back_at, self._next_at) if at > now), default=None)
        return at - now if self.behind and at is not None else None

    def _passed(self, held: Held) -> bool:
        made = self._made(held)
        return made is not None and held.after > (made.first, -1)

    def _is_next(self, held: Held, poor: Collection[int]) -> bool:
        return held.whole and held.lease.queue_id in poor and self._made(held) is not None

    def _made(self, held: Held) -> Made | None:
        made = self.behind.get(held.lease.queue_id)
        return made if made is not None and made.has(held.lease.shard) else None


def advance(held: Held, rows: Sequence[Ready], *, sweep_at: float | None, whole: bool, now: float) -> bool:
    """Move the shard's cursors behind what was read; True when it has more.

    Args:
        sweep_at: When a sweep that ends now begins again; None: this wasn't a sweep.
        whole: All that is ready was read.
    """
    last = (rows[-1].vt, rows[-1].id) if rows else None
    held.whole = whole
    if sweep_at is None:
        if last is not None:
            held.read_to(last)
        elif whole:
            held.read_to(held.top)
        return not whole
    ended = whole or last is None or last >= held.after
    if last is not None:
        held.read_to(last)
    held.sweep = BEGIN if ended or last is None else last
    held.sweep_at = sweep_at if ended else now
    return not whole
