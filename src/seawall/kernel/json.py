"""One reading of a body as JSON, for the router that picks the event's type and for the workflow that reads its fields.

Two parsers that differ on one byte sequence let an event be routed as one thing and handled as another, so there is
only this one: strict UTF-8 JSON, no NaN or Infinity, no byte-order mark, whole numbers exact at any size the parser
takes (else invalid, never rounded), the last of duplicate names wins. A body that it refuses is kept and routed all the
same; it only has no fields.
"""

from __future__ import annotations

from typing import Final

import msgspec

DEPTH_MAX: Final = 128
"""Arrays and objects within each other; deeper bodies are an attack on whoever walks them."""

TOO_DEEP: Final = "too_deep"
INVALID: Final = "invalid"
EMPTY: Final = "empty"

_decode = msgspec.json.Decoder().decode


def parse(body: bytes) -> tuple[object, str | None]:
    """The value of a body and None, or None and why it has none: ``empty``, ``invalid`` or ``too_deep``.

    Never raises on any bytes. Values are dict, list, str, int, float, bool and None. Strings may hold NUL, which
    PostgreSQL's text can't: whoever stores one makes it printable first.
    """
    try:
        value = _decode(body)
    except RecursionError:
        return None, TOO_DEEP
    except (msgspec.MsgspecError, UnicodeDecodeError, MemoryError):
        return None, EMPTY if not body.strip() else INVALID
    # Counting brackets costs next to nothing and settles nearly every body; only the rest is walked.
    if body.count(b"{") + body.count(b"[") > DEPTH_MAX and _deeper_than(value, DEPTH_MAX):
        return None, TOO_DEEP
    return value, None


def _deeper_than(value: object, depth_max: int) -> bool:
    """Breadth first, so that no recursion of our own can overflow."""
    level = [value]
    for _ in range(depth_max):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent if isinstance(parent, list) else ())
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True
