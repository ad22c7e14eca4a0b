"""JSON Pointer (RFC 6901): one place in a JSON value, written as ``/data/items/0/id``."""

from __future__ import annotations

import re

CHARS_MAX = 200
_WRITTEN = re.compile(r"(?:/(?:[^/~]|~[01])*)+")
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")

Steps = tuple[str, ...]


def steps(pointer: str) -> Steps:
    """The names and indices that lead there.

    Raises:
        ValueError: It isn't a pointer, or it is that of the whole value, or longer than ``CHARS_MAX``.
    """
    if len(pointer) > CHARS_MAX or _WRITTEN.fullmatch(pointer) is None:
        raise ValueError(f"{pointer[:CHARS_MAX]!r} is no JSON Pointer, like /data/id")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer[1:].split("/"))


def quoted(name: str) -> str:
    """A name as it is written between two slashes."""
    return name.replace("~", "~0").replace("/", "~1")


def find(value: object, way: Steps) -> object:
    """What stands there, None when nothing does (or a null)."""
    for step in way:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and _INDEX.fullmatch(step) and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value
