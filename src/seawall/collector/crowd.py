"""Who is connected, and from where: no address may take all connections.

A connection counts for the address of its client. Those of a trusted forwarder count for nobody at first, and then for
the client whose request they carried last.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from seawall.collector.parser import Connection


class Crowd:
    """Open connections, and places of those that aren't in yet. Iterating is safe against connections that end
    meanwhile."""

    def __init__(self) -> None:
        self._all: dict[Connection, bytes | None] = {}  # and the address for which it counts
        self._each: dict[bytes, int] = {}  # by address
        self._reserved = 0

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._all))

    def reserve(self, address: bytes | None, *, all_max: int, each_max: int) -> Place | None:
        """A place for who isn't in yet; None: there are too many already, in all or of its address."""
        if not self._has_room(address, all_max, each_max):
            return None
        self._reserved += 1
        self._count(address, 1)
        return Place(self, address)

    def enter(self, connection: Connection, address: bytes | None, *, all_max: int, each_max: int) -> bool:
        """False: there are too many already, in all or of its address (None: that isn't counted)."""
        if connection.place is not None:
            connection.place.leave()
        if not self._has_room(address, all_max, each_max):
            return False
        self._all[connection] = address
        self._count(address, 1)
        return True

    def carries(self, connection: Connection, address: bytes, *, each_max: int) -> bool:
        """A connection now carries a request of this client. False: the client has too many; nothing changes."""
        before = self._all.get(connection)
        if before == address:
            return True
        if self._each.get(address, 0) >= each_max:
            return False
        if connection in self._all:
            self._count(before, -1)
            self._all[connection] = address
            self._count(address, 1)
        return True

    def leave(self, connection: Connection) -> None:
        """Harmless for one that never entered."""
        if connection in self._all:
            self._count(self._all.pop(connection), -1)

    def vacate(self, address: bytes | None) -> None:
        """A reserved place is free again: ``Place.leave`` tells, once."""
        self._reserved -= 1
        self._count(address, -1)

    def _has_room(self, address: bytes | None, all_max: int, each_max: int) -> bool:
        count = 0 if address is None else self._each.get(address, 0)
        return len(self._all) + self._reserved < all_max and count < each_max

    def _count(self, address: bytes | None, change: int) -> None:
        if address is None:
            return
        count = self._each.get(address, 0) + change
        if count:
            self._each[address] = count
        else:
            del self._each[address]


@dataclass(slots=True)
class Place:
    """A place of somebody who isn't in yet."""

    crowd: Crowd
    address: bytes | None
    taken: bool = True

    def leave(self) -> None:
        """Give it back. Harmless when called twice."""
        if self.taken:
            self.taken = False
            self.crowd.vacate(self.address)
