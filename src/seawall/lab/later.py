"""Experiments that have a name in the catalogue, and no file yet: what they break isn't there."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import msgspec

FILE = Path(__file__).parent / "catalog" / "later.toml"


class Later(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of them."""

    name: str
    incident: str
    title: str
    joins: str  # with what, in words
    room: str  # the module with which it can

    @property
    def text(self) -> str:
        return f"{self.incident} {self.name}: not there yet; it joins {self.joins}"


@cache
def later() -> Sequence[Later]:
    """All, by their names."""
    said = tomllib.loads(FILE.read_text("utf-8"))
    return tuple(msgspec.convert({"name": name, **said[name]}, Later) for name in sorted(said))
