"""What an event can be waited for by: a tenant, a type, and the values of some fields of its body.

The router and whoever waits make the same 16 bytes of these, so that the store finds the one by the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

from seawall.kernel import pointer

KEY_BYTES = 16
FIELDS_MAX = 8
LOOKBACK_MAX_S = 86_400.0
"""How long events are kept under their keys."""

Value = str | int | bool
Way = tuple[str, pointer.Steps]
"""A field as it was written, and the steps that lead there."""


def ways(fields: Iterable[str]) -> tuple[Way, ...]:
    """Fields in the one order in which keys are made. A name without a slash is that of a top-level field.

    Raises:
        ValueError: One of them is no JSON Pointer, or there are none, or more than ``FIELDS_MAX``.
    """
    written = sorted({field if field.startswith("/") else "/" + pointer.quoted(field) for field in fields})
    if not 0 < len(written) <= FIELDS_MAX:
        raise ValueError(f"{len(written)} fields to match: 1 to {FIELDS_MAX} are possible")
    return tuple((field, pointer.steps(field)) for field in written)


def key_of(tenant: str, type: str, fields: Sequence[tuple[str, Value]]) -> bytes:
    """The key of what has these values, in the order of ``ways``."""
    digest = sha256()
    for word in (tenant, type, *(part for field, value in fields for part in (field, _text(value)))):
        data = word.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return digest.digest()[:KEY_BYTES]


def found(tenant: str, type: str, ways: Sequence[Way], body: object) -> bytes | None:
    """The key of an event's body; None: one of the fields isn't there, or is nothing that can be waited for."""
    values: list[tuple[str, Value]] = []
    for field, steps in ways:
        value = plain(pointer.find(body, steps))
        if value is None:
            return None
        values.append((field, value))
    return key_of(tenant, type, values)


def plain(value: object) -> Value | None:
    """A value that can be waited for; None: it is none. A number that is whole is the same as 5 and as 5.0."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, str | int) else None


def _text(value: Value) -> str:
    return f"{'s' if isinstance(value, str) else 'b' if isinstance(value, bool) else 'i'}{value}"
