"""Named SQL statements, read from ``query/*.sql``.

A file holds blocks. Each begins with ``-- name: NAME``, then one comment line with who calls it and which index serves
it, then one statement::

    -- name: advance_position
    -- router, each batch; primary key of log_position. 0 rows: somebody else moved it.
    update …
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


@cache
def statements(noun: str) -> dict[str, str]:
    """The statements of ``query/{noun}.sql`` by name.

    Raises:
        ValueError: A name comes twice, or a block has no comment that says who calls it.
    """
    text = files("seawall.store").joinpath("query", f"{noun}.sql").read_text("utf-8")
    parts = _NAME.split(text)
    found: dict[str, str] = {}
    for name, block in zip(parts[1::2], parts[2::2], strict=True):
        if name in found:
            raise ValueError(f"query/{noun}.sql names {name} twice")
        if not block.strip().startswith("--"):
            raise ValueError(f"query/{noun}.sql: {name} doesn't say who calls it")
        found[name] = block.strip()
    return found
