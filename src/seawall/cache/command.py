"""The commands that may be sent to Redis at all. Each costs the same whatever the server holds: one KEYS of ours, or of
whoever shares it, stops every client of a server that does one thing at a time.

A script is allowed by its digest, and costs as much as the keys that it is given, of which there is a bounded number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Final

from seawall.kernel.seam.hint import PAYLOAD_BYTES_MAX

KEYS_MAX: Final = 256
"""Keys of one script's call: about half a millisecond of the server's time."""

HINTS: Final = b"seawall:hint:"
"""How names of our channels begin. A PUBLISH costs by subscriber: collectors, and whoever subscribed to patterns."""

SLOW_MAX: Final = 128
"""Entries of the slow log that are read at once."""

GCRA: Final = files("seawall.cache").joinpath("gcra.lua").read_bytes()
GCRA_SHA: Final = sha1(GCRA, usedforsecurity=False).hexdigest().encode()

SECTIONS: Final = frozenset({b"clients", b"memory", b"stats", b"replication", b"keyspace"})
PARAMETERS: Final = frozenset({b"slowlog-log-slower-than", b"maxmemory", b"maxmemory-policy"})

Word = bytes | str | int


def _number(word: bytes, most: int) -> bool:
    return word.isdigit() and len(word) < 10 and int(word) <= most


_ALLOWED: Final[Mapping[bytes, Callable[[Sequence[bytes]], bool]]] = {
    b"HELLO": lambda rest: rest[:1] == [b"2"] and len(rest) <= 6,
    b"SELECT": lambda rest: len(rest) == 1,
    b"PING": lambda rest: not rest,
    b"SCRIPT": lambda rest: rest == [b"LOAD", GCRA],
    b"EVALSHA": lambda rest: len(rest) > 1 and rest[0] == GCRA_SHA and _number(rest[1], KEYS_MAX),
    b"PUBLISH": lambda rest: len(rest) == 2 and rest[0].startswith(HINTS) and len(rest[1]) <= PAYLOAD_BYTES_MAX,
    b"SUBSCRIBE": lambda rest: len(rest) == 1 and rest[0].startswith(HINTS),
    b"INFO": lambda rest: len(rest) == 1 and rest[0] in SECTIONS,
    b"SLOWLOG": lambda rest: len(rest) == 2 and rest[0] == b"GET" and _number(rest[1], SLOW_MAX),
    b"CONFIG": lambda rest: len(rest) == 2 and rest[0] == b"GET" and rest[1] in PARAMETERS,
    b"RANDOMKEY": lambda rest: not rest,
    b"DBSIZE": lambda rest: not rest,
}


class NotAllowedError(AssertionError):
    """Our own code would send what must never be sent. A bug, and never the server's fault."""


def packed(*words: Word) -> bytes:
    """A command as it is sent.

    Raises:
        NotAllowedError: It isn't one of those above.
    """
    encoded = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    allowed = _ALLOWED.get(encoded[0]) if encoded else None
    if allowed is None or not allowed(encoded[1:]):
        raise NotAllowedError(
            f"{b' '.join(encoded[:1]).decode('ascii', 'replace')}: not in the list of cache/command.py"
        )
    return b"*%d\r\n" % len(encoded) + b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded])
