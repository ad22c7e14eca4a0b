"""Values of users' code as the JSON that is kept of them: one check for results, payloads and progress."""

from __future__ import annotations

import math

import msgspec

_encode = msgspec.json.Encoder().encode


def as_json(value: object, bytes_max: int, *what: str) -> bytes:
    """A value as JSON, which says the same when it is read.

    Raises:
        ValueError: It is no JSON, or larger than ``bytes_max``; the words of ``what`` name it.
    """
    try:
        data = _encode(value)
        # The encoder writes what is no number as null, and null it would be from then on.
        if b"null" in data and not _finite(msgspec.to_builtins(value)):
            raise ValueError("NaN and infinity are no JSON")
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise ValueError(f"{' '.join(what)} can't be kept as JSON: {error}") from error
    if len(data) > bytes_max:
        found = f"{' '.join(what)} is {len(data)} bytes as JSON"
        raise ValueError(f"{found}, at most {bytes_max} are kept: say where it is")
    return data


def _finite(value: object) -> bool:
    """Whether all numbers in plain values are some."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_finite, value.values())) and all(map(_finite, value))
    return all(map(_finite, value)) if isinstance(value, list | tuple | set | frozenset) else True
