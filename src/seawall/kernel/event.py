"""An event id, and the record of one accepted event as the journal keeps it.

A record is what must survive: it says everything that routing needs, so that an event can be routed even when its
source has been removed or the store was restored to an older state. Layout of version 1, little endian::

    B   version = 1
    B   flags            bit 0: the key is covered by the signature
    H   kind length      I  headers length
    H   tenant length    I  body length
    H   source length    I  wait_ms (0: the sender doesn't wait)
    H   key length       I  key_id (which secret verified it; 0: none)
    H   target length    Q  config_version (of the snapshot that judged it)
    H   peer length      Q  received_us (wall clock, microseconds)
    16s event id         16s source id
    then kind, tenant, source, key, target, peer (UTF-8), headers, body, one after another

Headers are name, NUL, value, NUL, name… exactly as they came, in order, without those that carry credentials
(``authorization`` and ``cookie`` never reach the disk). A NUL can't be part of either (RFC 9110 §5.5), so it divides.
The body is kept byte for byte.
"""

from __future__ import annotations

import os
import struct
from binascii import hexlify
from dataclasses import dataclass
from hashlib import sha256

from seawall.kernel.clock import Clock
from seawall.kernel.error import Corrupt

VERSION = 1
_FIXED = struct.Struct("<BBHHHHHHIIIIQQ16s16s")
_SOURCE = slice(_FIXED.size - 16, _FIXED.size)
_EVENT = slice(_FIXED.size - 32, _FIXED.size - 16)
_KEY_SIGNED = 1
_RANDOM, _ID = struct.Struct(">HQ"), struct.Struct(">QQ")
_GROUPS = struct.Struct("8s4s4s4s12s")

DAY_MS = 86_400_000


class EventIds:
    """Makes event ids: UUID version 7 (RFC 9562), so they sort by time of acceptance and carry their day.

    74 bits are random from the operating system: the id is the right to read an event's status and reply. Ids of one
    process never go back in time, also when the wall clock does.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last_ms = 0
        self._pool = b""
        self._used = 0

    @property
    def latest_ms(self) -> int:
        """The time in the newest one, milliseconds since 1970; 0: none was made."""
        return self._last_ms

    def next(self) -> bytes:
        """A new id, 16 bytes."""
        ms = self._clock.wall_us() // 1000
        if ms < self._last_ms:
            ms = self._last_ms
        self._last_ms = ms
        used = self._used
        if used >= len(self._pool):
            self._pool, used = os.urandom(4000), 0
        self._used = used + 10
        first, second = _RANDOM.unpack_from(self._pool, used)
        return _ID.pack((ms << 16) | 0x7000 | (first & 0xFFF), 0x8000_0000_0000_0000 | (second & 0x3FFF_FFFF_FFFF_FFFF))


def id_text(id: bytes) -> str:
    """``0193…-….``: the canonical form of a 16-byte id."""
    return id_ascii(id).decode("ascii")


def id_ascii(id: bytes) -> bytes:
    """``id_text`` as the bytes that an answer needs."""
    return b"-".join(_GROUPS.unpack(hexlify(id)))


def derived_id(parent: bytes, *names: str) -> bytes:
    """An id (UUID version 7) of the parent's moment that is always the same for the same names."""
    text = "\0".join(names).encode("utf-8", "surrogatepass")
    tail = int.from_bytes(sha256(parent + text).digest()[:10], "big")
    high = int.from_bytes(parent[:6], "big") << 16 | 0x7000 | (tail >> 68)
    return ((high << 64) | 0x8000_0000_0000_0000 | (tail & 0x3FFF_FFFF_FFFF_FFFF)).to_bytes(16, "big")


def id_day(id: bytes) -> int:
    """Days since 1970 at which the event was accepted: the partition that keeps it."""
    return int.from_bytes(id[:6], "big") // DAY_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One accepted event, immutable."""

    id: bytes  # 16 bytes, see EventIds
    source_id: bytes  # 16 bytes
    kind: str  # of the source: standard, github, …
    tenant: str
    source: str  # the source's name when it was accepted
    received_us: int
    key: str = ""  # the sender's dedupe key; "": none was given in the headers
    key_signed: bool = False  # False: the key is the sender's unproven claim
    target: str = ""  # what came after the token in the request target: path and query, without the secret
    peer: str = ""  # address of the client
    key_id: int = 0
    config_version: int = 0
    wait_ms: int = 0
    headers: bytes = b""  # name NUL value NUL …
    body: bytes = b""


def encode(r: Record) -> bytes:
    """A record's bytes. Asserts nothing about sizes: the collector's limits hold before."""
    kind, tenant, source = r.kind.encode(), r.tenant.encode(), r.source.encode()
    key, target, peer = r.key.encode("utf-8", "surrogateescape"), r.target.encode("latin-1"), r.peer.encode()
    fixed = _FIXED.pack(
        VERSION, _KEY_SIGNED if r.key_signed else 0, len(kind), len(tenant), len(source), len(key), len(target),
        len(peer), len(r.headers), len(r.body), r.wait_ms, r.key_id, r.config_version, r.received_us, r.id, r.source_id,
    )  # fmt: skip
    return b"".join((fixed, kind, tenant, source, key, target, peer, r.headers, r.body))


class Encoder:
    """``encode`` for one source, without a Record in between: what never changes is prepared once.

    It gives the very bytes that ``encode`` gives; a test holds that.
    """

    def __init__(self, *, source_id: bytes, kind: str, tenant: str, source: str) -> None:
        self._source_id = source_id
        names = (kind.encode(), tenant.encode(), source.encode())
        self._lengths = [len(name) for name in names]
        self._names = b"".join(names)

    def encode(
        self, id: bytes, received_us: int, *, key: bytes, key_signed: bool, target: bytes, peer: bytes, key_id: int,
        config_version: int, wait_ms: int, headers: bytes, body: bytes,
    ) -> bytes:  # fmt: skip
        """A record's bytes; text fields are given encoded."""
        n_kind, n_tenant, n_source = self._lengths
        fixed = _FIXED.pack(
            VERSION, _KEY_SIGNED if key_signed else 0, n_kind, n_tenant, n_source, len(key), len(target), len(peer),
            len(headers), len(body), wait_ms, key_id, config_version, received_us, id, self._source_id,
        )  # fmt: skip
        return b"".join((fixed, self._names, key, target, peer, headers, body))


def decode(payload: bytes) -> Record:
    """The record that ``encode`` was given.

    Raises:
        Corrupt: An unknown version, lengths that don't add up, or a name that isn't UTF-8. The frame's checksum was
            right, so this is a record of a newer Seawall or a bug; the router makes it a dead letter with its bytes.
    """
    if len(payload) < _FIXED.size or payload[0] != VERSION:
        raise Corrupt("record", f"version {payload[0] if payload else '-'} of {len(payload)} bytes is unknown here")
    (_, flags, n_kind, n_tenant, n_source, n_key, n_target, n_peer, n_headers, n_body, wait_ms, key_id, config_version,
     received_us, id, source_id) = _FIXED.unpack_from(payload)  # fmt: skip
    parts: list[bytes] = []
    at = _FIXED.size
    for length in (n_kind, n_tenant, n_source, n_key, n_target, n_peer, n_headers, n_body):
        parts.append(payload[at : at + length])
        at += length
    if at != len(payload):
        raise Corrupt("record", f"fields add up to {at} bytes of {len(payload)}")
    try:
        kind, tenant, source, peer = (parts[i].decode() for i in (0, 1, 2, 5))
    except UnicodeDecodeError as error:
        raise Corrupt("record", f"a name isn't UTF-8: {error}") from error
    return Record(
        id=id, source_id=source_id, kind=kind, tenant=tenant, source=source,
        received_us=received_us, key=parts[3].decode("utf-8", "surrogateescape"), key_signed=bool(flags & _KEY_SIGNED),
        target=parts[4].decode("latin-1"), peer=peer, key_id=key_id, config_version=config_version,
        wait_ms=wait_ms, headers=parts[6], body=parts[7],
    )  # fmt: skip


def event_id_of(payload: bytes) -> bytes:
    """The event's id out of an encoded record, without reading the rest; shorter than 16 bytes when it is none."""
    return payload[_EVENT]


def source_id_of(payload: bytes) -> bytes:
    """The source's id out of an encoded record, without reading the rest; shorter than 16 bytes when it is none."""
    return payload[_SOURCE]


def headers_of(flat: bytes) -> list[tuple[str, str]]:
    """Header names and values in order, as latin-1 text, out of a record's ``headers``."""
    if not flat:
        return []
    parts = flat.decode("latin-1").split("\0")
    return list(zip(parts[0::2], parts[1::2], strict=False))
