"""How far each shard has been read, and when reading goes back: on a hint, and at each sweep from the beginning."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from seawall.kernel.made import Made
from seawall.store.run import BEGIN, Ready
from seawall.worker.shard import Held
from seawall.worker.slot import Claims

BACK_S = 0.01
"""A cursor goes back at most so often: reading over what is in hand costs about a millisecond for a thousand runs."""

NEXT_S = 0.002
"""Runs that are next are looked for at most so often, where no slot but the last ones is free."""

STRANGE_S = 0.05
"""What reads nothing but runs that can't be begun here goes on after so long: of another version there may be millions,
and reading over them without a pause takes a core of the store, and one of ours."""


class Cursors:
    """What hints say of shards that were read further already."""

    def __init__(self) -> None:
        self.behind: dict[int, Made] = {}  # by queue, what was hinted and isn't read yet
        self._back_at = 0.0  # monotonic; cursors may go back again
        self._next_at = 0.0  # monotonic; what is before them may be read again
        self._sweep_now = False
        self._on_at = 0.0  # monotonic; a sweep that takes long goes on

    def hint(self, queue_id: int, made: Made) -> None:
        """A queue has new runs."""
        self.behind[queue_id] = made.and_(self.behind.get(queue_id))

    def sweep(self) -> None:
        """Have every shard read from its beginning."""
        self._sweep_now = True

    def due(self, shards: Sequence[Held], now: float) -> None:
        """All that are in hand: see which are to be read from their beginning."""
        if self._sweep_now:
            self._sweep_now = False
            for held in shards:
                held.sweep_at = held.anew_at = now

    def look_anew(self, shards: Sequence[Held], now: float, sweep_s: float) -> None:
        """Of queues without room: what a sweep would find of these, whose time it is, is read with what is next. Nobody
        hinted at it, or the hint was lost."""
        for held in shards:
            if now >= held.sweep_at:
                held.sweep_at = now + sweep_s
                self.hint(held.lease.queue_id, Made.of(0, held.lease.shard)._replace(last=max(0, held.reached[0])))

    def go_back(self, shards: Sequence[Held], now: float) -> None:
        """Act on hints of these shards' queues, which have room: a cursor that is beyond what was hinted returns there.
        Those of other queues are kept."""
        behind = [held for held in shards if self._passed(held)]
        if behind and now < self._back_at:
            return
        for held in behind:
            held.back_to(self.behind[held.lease.queue_id])
        if behind:
            self._back_at = now + BACK_S
        for held in shards:
            held.whole = held.whole and not self._beyond(held)
        for held in shards:
            self.behind.pop(held.lease.queue_id, None)

    def named(self, shards: Sequence[Held], claims: Claims) -> list[Held]:
        """Those for which a hint tells of runs that are next: they go before some in hand, or nothing is before them in
        their queue, which has less than its part. Hints that tell nothing of the kind for any of the shards go: reading
        on finds those runs in their order.
        """
        found = []
        for held in shards:
            is_next = held.whole and held.lease.queue_id in claims.poor and self._made(held) is not None
            if is_next or self._passed(held):
                found.append(held)
            held.whole = is_next or (held.whole and not self._beyond(held))
        ours = {held.lease.queue_id for held in found}
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

    def again(self, held: Held, made: Made, rows: Sequence[Ready], now: float) -> None:
        """More of what is next is there than was read."""
        if rows:
            held.met = (rows[-1].vt, rows[-1].id)
            made = made._replace(first=rows[-1].vt)
            if not any(row.known for row in rows):
                self._next_at = now + STRANGE_S
        self.hint(held.lease.queue_id, made)

    def wait_s(self, now: float) -> float | None:
        """Until hints that are left may be acted on, or a sweep goes on; None: there are none, or only room is what
        they wait for."""
        waits = [self._on_at, *((self._back_at, self._next_at) if self.behind else ())]
        at = min((at for at in waits if at > now), default=None)
        return at - now if at is not None else None

    def swept(self, shards: Iterable[Held]) -> None:
        """These were read by a sweep."""
        self._on_at = min((held.sweep_at for held in shards if held.sweep > BEGIN), default=0.0)

    def _passed(self, held: Held) -> bool:
        made = self._made(held)
        return made is not None and held.reached > (made.first, -1)

    def _beyond(self, held: Held) -> bool:
        made = self._made(held)
        return made is not None and made.last > held.reached[0]

    def _made(self, held: Held) -> Made | None:
        made = self.behind.get(held.lease.queue_id)
        return made if made is not None and made.has(held.lease.shard) else None


def advance(held: Held, rows: Sequence[Ready], *, sweep_s: float | None, whole: bool, now: float) -> bool:
    """Move the shard's cursors behind what was read; True when it has more to be read at once.

    Args:
        sweep_s: How long after a sweep that ends now the next one begins; None: this wasn't a sweep.
        whole: All that is ready was read.
    """
    last = (rows[-1].vt, rows[-1].id) if rows else None
    if sweep_s is None and held.far > BEGIN:
        if last is not None:
            held.read_to(last)
        if whole:
            held.come_back()
        elif held.far == BEGIN:
            held.whole = False
        return held.unread
    if sweep_s is None:
        held.whole = whole
        if last is not None:
            held.read_to(last)
        elif whole:
            held.read_to(held.top)
        return not whole
    ended = whole or last is None or last >= held.reached
    if held.after >= held.sweep:  # else it went back, behind what this sweep has read so far
        held.whole = whole if ended else held.whole
        if last is not None:
            held.read_to(last)
    strange = not any(row.known for row in rows)
    held.sweep, held.deep = BEGIN if ended or last is None else max(last, held.deep), BEGIN
    held.sweep_at = now + (sweep_s if ended else STRANGE_S if strange else 0.0)
    return (not whole and (ended or not strange)) or held.unread
