"""Who is connected, and from where: no address may take all connections."""

from __future__ import annotations

from collections.abc import Iterator

from seawall.collector.parser import Connection


class Crowd:
    """Open connections. Iterating is safe against connections that end meanwhile."""

    def __init__(self) -> None:
        self._all: set[Connection] = set()
        self._each: dict[bytes, int] = {}  # by address

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._all))

    def enter(self, connection: Connection, *, all_max: int, each_max: int) -> bool:
        """False: there are too many already, in all or of its address."""
        count = self._each.get(connection.peer, 0)
        if len(self._all) >= all_max or count >= each_max:
            return False
        self._all.add(connection)
        self._each[connection.peer] = count + 1
        return True

    def leave(self, connection: Connection) -> None:
        """Harmless for one that never entered."""
        if connection not in self._all:
            return
        self._all.discard(connection)
        left = self._each.pop(connection.peer) - 1
        if left:
            self._each[connection.peer] = left
