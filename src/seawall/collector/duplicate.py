"""Recent dedupe keys, so that most repeats are told so at once. Only a hint: the store's dedupe table is the authority.

An entry is made only after its event is durable, and matches only with the same body: a wrong match would drop an event
that nobody has. Forgetting one costs nothing but a 202 in place of the 200: the router collapses the copy.
"""

from __future__ import annotations

from hashlib import blake2b

Known = tuple[bytes, bytes]
"""(text id of the first event, digest of its body)."""


class Duplicates:
    """At most ``size_max`` keys, in two generations: when the young one is half of that, the old one goes."""

    def __init__(self, size_max: int) -> None:
        self._half = max(1, size_max // 2) if size_max else 0
        self._young: dict[tuple[bytes, str], Known] = {}
        self._old: dict[tuple[bytes, str], Known] = {}

    def find(self, source_id: bytes, key: str, digest: bytes) -> bytes | None:
        """Text id of the event that was accepted under this key with this body."""
        at = (source_id, key)
        known = self._young.get(at) or self._old.get(at)
        return known[0] if known is not None and known[1] == digest else None

    def add(self, source_id: bytes, key: str, digest: bytes, id: bytes) -> None:
        """Remember an event that is durable. The first one stays: a later body under its key is a conflict, which
        the router finds."""
        at = (source_id, key)
        if not self._half or at in self._young or at in self._old:
            return
        self._young[at] = (id, digest)
        if len(self._young) >= self._half:
            self._old, self._young = self._young, {}


def digest_of(body: bytes) -> bytes:
    """16 bytes that tell bodies apart, also those that somebody made to collide."""
    return blake2b(body, digest_size=16).digest()
