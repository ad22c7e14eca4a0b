"""Recent dedupe keys, so that most repeats are told so at once. Only a hint: the store's dedupe table is the authority.

An entry is made only after its event is durable, and matches only with the same body under the same secret, and only
within the shortest window that the store's table may have: a wrong match would drop an event that nobody has.
Forgetting one costs nothing but a 202 in place of the 200: the router collapses the copy.
"""

from __future__ import annotations

import struct
from hashlib import sha256
from typing import NamedTuple

from seawall.kernel.limit import DEDUPE_WINDOW_S_MIN

WINDOW_US = DEDUPE_WINDOW_S_MIN * 1_000_000
"""The least that ``dedupe_window_s`` of the router may be set to: after that the same key may be a new event."""

_KNOWN = struct.Struct("<Q36s16s?")
"""When the first event was received by the wall clock, the digest of its body, its id, whether it is replicated."""


class First(NamedTuple):
    """The event that was accepted under a key."""

    id: bytes
    replicated: bool  # how it was made durable


class Duplicates:
    """At most ``size_max`` keys, in two generations: when the young one is half of that, the old one goes.

    A key here is the source's id, which has one length, and the sender's key.

    A key and what is known of it are two flat byte strings: tuples of values in their place were six objects that the
    cache never held and the garbage collector walked, and cost 2 to 3 µs of each event.
    """

    def __init__(self, size_max: int) -> None:
        self._half = max(1, size_max // 2) if size_max else 0
        self._young: dict[bytes, bytes] = {}
        self._old: dict[bytes, bytes] = {}

    def find(self, key: bytes, digest: bytes, now_us: int) -> First | None:
        """The event that was accepted under this key with this body (``digest_of``), when its window
        covers ``now_us``."""
        if key not in self._young and key not in self._old:
            return None
        received_us, first, id, replicated = self._first(key)
        return First(id, replicated) if first == digest and 0 <= now_us - received_us < WINDOW_US else None

    def add(self, key: bytes, digest: bytes, id: bytes, received_us: int, *, replicated: bool = False) -> None:
        """Remember an event that is durable. While its window lasts the first one stays: a later body under its key is
        a conflict, which the router finds."""
        young, old = self._young, self._old
        if not self._half or ((key in young or key in old) and 0 <= received_us - self._first(key)[0] < WINDOW_US):
            return
        young[key] = _KNOWN.pack(received_us, digest, id, replicated)
        if len(young) >= self._half:
            self._old, self._young = young, {}

    def _first(self, key: bytes) -> tuple[int, bytes, bytes, bool]:
        """What ``_KNOWN`` says of a known key."""
        received_us, digest, id, replicated = _KNOWN.unpack(self._young.get(key) or self._old[key])
        return received_us, digest, id, replicated


def digest_of(body: bytes, key_id: int) -> bytes:
    """36 bytes that tell bodies apart, also those that somebody made to collide, and the secret that signed them: an
    event whose secret had been revoked is held, and must not stand for one that will run."""
    return key_id.to_bytes(4, "little") + sha256(body).digest()
