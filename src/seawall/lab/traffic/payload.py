"""Bodies that can be made again from (seed, n): the verdict recomputes what was sent instead of trusting a copy.

Sizes are spread evenly over the logarithm, from 0 bytes to the limit, so that small ones are common and large ones
occur. One in a hundred is odd: what parsers, databases and JSON libraries are known to stumble over.
"""

from __future__ import annotations

import hashlib
import json
import math
import random

ODD_SHARE = 0.01

_ODD: tuple[bytes, ...] = (
    b"",
    b"\0",
    b"{",
    b"null",
    b'"just text"',
    b"[" * 2000 + b"]" * 2000,  # deeper than parsers go
    b'{"a":"\\u0000"}',  # jsonb refuses it
    b'{"a":"\\ud800"}',  # a lone surrogate
    b'{"a":1e400,"b":' + b"9" * 500 + b"}",
    b'{"a":1,"a":2}',
    b"\xef\xbb\xbf{}",  # a byte order mark
    b"\xff\xfe{\x00}\x00",  # UTF-16
    bytes(range(256)),
    b'{"type":["not","text"]}',
    b'{"type":""}',
    b"a=1&b=2",
    '{"a":"\u202e\u2066ﷺ\U0001f9e8"}'.encode(),
)


def is_odd(seed: int, n: int) -> bool:
    """Whether the n-th body of a seed is one of the odd ones."""
    return random.Random(f"{seed}.{n}").random() < ODD_SHARE


def body(seed: int, n: int, *, type: str, bytes_max: int) -> bytes:
    """The n-th body of a seed, 0 to ``bytes_max`` bytes (a JSON one has at least its fields: about 40 bytes)."""
    rng = random.Random(f"{seed}.{n}")
    if rng.random() < ODD_SHARE:
        odd = rng.choice(_ODD)
        # A body of exactly the limit belongs to the odd ones too.
        return odd[:bytes_max] if rng.random() < 0.9 else rng.randbytes(bytes_max)
    size = int(math.exp(rng.random() * math.log(bytes_max + 1))) - 1
    fields = {"type": type, "n": n, "note": ""}
    bare = len(json.dumps(fields))
    fields["note"] = rng.randbytes(max(0, size - bare) // 2).hex()
    return json.dumps(fields).encode()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
