"""Recent dedupe keys, so that most repeats are told so at once. Only a hint: the store's dedupe table is the authority.

An entry is made only after its event is durable, and matches only with the same body under the same secret, and only
within the shortest window that the store's table may have: a wrong match would drop an event that nobody has.
Forgetting one costs nothing but a 202 in place of the 200: the router collapses the copy.
"""

from __future__ import annotations

from hashlib import blake2b

WINDOW_US = 60 * 1_000_000
"""The least that ``dedupe_window_s`` of the router may be set to: after that the same key may be a new event."""

Known = tuple[bytes, bytes, int]
"""(text id of the first event, digest of its body, when it was received by the wall clock)."""


class Duplicates:
    """At most ``size_max`` keys, in two generations: when the young one is half of that, the old one goes."""

    def __init__(self, size_max: int) -> None:
        self._half = max(1, size_max // 2) if size_max else 0
        self._young: dict[tuple[bytes, str], Known] = {}
        self._old: dict[tuple[bytes, str], Known] = {}

    def find(self, source_id: bytes, key: str, digest: bytes, now_us: int) -> bytes | None:
        """Text id of the event that was accepted under this key with this body, when its window covers ``now_us``."""
        at = (source_id, key)
        known = self._young.get(at) or self._old.get(at)
        if known is None or known[1] != digest or not 0 <= now_us - known[2] < WINDOW_US:
            return None
        return known[0]

    def add(self, source_id: bytes, key: str, digest: bytes, id: bytes, received_us: int) -> None:
        """Remember an event that is durable. While its window lasts the first one stays: a later body under its key is
        a conflict, which the router finds."""
        at = (source_id, key)
        known = self._young.get(at) or self._old.get(at)
        if not self._half or (known is not None and 0 <= received_us - known[2] < WINDOW_US):
            return
        self._young[at] = (id, digest, received_us)
        if len(self._young) >= self._half:
            self._old, self._young = self._young, {}


def digest_of(body: bytes, key_id: int) -> bytes:
    """16 bytes that tell bodies apart, also those that somebody made to collide, and the secret that signed them: an
    event whose secret had been revoked is held, and must not stand for one that will run."""
    return blake2b(body, digest_size=16, salt=key_id.to_bytes(8, "little")).digest()
