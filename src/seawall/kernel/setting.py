"""How a room declares its settings: a frozen dataclass whose fields carry their range and one line of help.

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Settings:
        batch_records: int = setting(500, min=1, max=1000, help="Records stored in one transaction.")

``settings.py`` reads files and environment against these declarations; a room only ever gets the finished object.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any


def setting(
    default: Any, *, help: str, min: float | None = None, max: float | None = None, secret: bool = False
) -> Any:
    """A dataclass field with a range.

    Args:
        default: Its value when nobody says otherwise.
        help: One line, for ``seawall settings`` and docs/settings.md.
        min: Smallest allowed number; None: a number must be more than 0.
        max: Largest allowed number; None: any finite one.
        secret: Never shown.
    """
    return field(default=default, metadata={"help": help, "min": min, "max": max, "secret": secret})
