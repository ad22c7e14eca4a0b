"""How far each shard has been read, and when reading goes back: on a hint, and at each sweep from the beginning."""

from __future__ import annotations

from collections.abc import Sequence

from seawall.store.run import BEGIN, Ready
from seawall.worker.shard import Held

BACK_S = 0.01
"""A cursor goes back at most so often: reading over what is in hand costs about a millisecond for a thousand runs."""


class Cursors:
    """What hints say of shards that were read further already."""

    def __init__(self) -> None:
        self.behind: dict[int, int] = {}  # by queue, the smallest virtual time that was hinted and isn't behind us
        self._back_at = 0.0  # monotonic; cursors may go back again
        self._sweep_now = False

    def hint(self, queue_id: int, vt: int) -> None:
        """A queue has new runs, of this virtual time or later."""
        self.behind[queue_id] = min(vt, self.behind.get(queue_id, vt))

    def sweep(self) -> None:
        """Have every shard read from its beginning."""
        self._sweep_now = True

    def go_back(self, shards: Sequence[Held], now: float) -> None:
        """Act on hints: a cursor that is beyond what was hinted returns there."""
        if self._sweep_now:
            self._sweep_now = False
            for held in shards:
                held.sweep_at = now
        if not self.behind:
            return
        behind = [held for held in shards if held.after > (self.behind.get(held.lease.queue_id, held.after[0] + 1), -1)]
        if behind and now < self._back_at:
            return
        for held in behind:
            held.back_to(self.behind[held.lease.queue_id])
        if behind:
            self._back_at = now + BACK_S
        self.behind.clear()


def advance(held: Held, rows: Sequence[Ready], *, sweep_at: float | None, whole: bool, now: float) -> bool:
    """Move the shard's cursors behind what was read; True when it has more.

    Args:
        sweep_at: When a sweep that ends now begins again; None: this wasn't a sweep.
        whole: All that is ready was read.
    """
    last = (rows[-1].vt, rows[-1].id) if rows else None
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
