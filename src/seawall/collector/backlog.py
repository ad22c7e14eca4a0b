"""What waits of a log that this machine's router reads: the rest that its positions in the store leave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from seawall.kernel.seam.backlog import Stretch
from seawall.kernel.seam.journal import Position
from seawall.store import position
from seawall.store.pool import Store
from seawall.store.position import Range


class Own(Protocol):
    """Our log."""

    @property
    def log_id(self) -> bytes: ...

    async def room_bytes(self) -> int:
        """As the seam says."""


class Routed:
    """Implements ``Backlog``. While the store is away nothing is routed, and nobody can say what was."""

    def __init__(self, own: Own, store: Store) -> None:
        self._own = own
        self._store = store

    @property
    def log_id(self) -> bytes:
        return self._own.log_id

    async def unread(self) -> Sequence[Stretch]:
        known = await position.ranges(self._store, self.log_id)
        return known or [Range(0, Position(self.log_id, 0, 0), None)]  # no router has seen it yet

    async def room_bytes(self) -> int:
        return await self._own.room_bytes()
