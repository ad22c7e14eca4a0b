"""How a room declares its settings: a frozen dataclass whose fields carry their range and one line of help.

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Settings:
        batch_records: int = setting(500, min=1, max=1000, help="Records stored in one transaction.")

``settings.py`` reads files and environment against these declarations; a room only ever gets the finished object.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def setting(
    default: Any,
    *,
    help: str,
    min: float | None = None,
    max: float | None = None,
    secret: bool = False,
    live: bool = False,
) -> Any:
    """A dataclass field with a range.

    Args:
        default: Its value when nobody says otherwise.
        help: One line, for ``seawall settings`` and docs/settings.md.
        min: Smallest allowed number; None: a number must be more than 0.
        max: Largest allowed number; None: any finite one.
        secret: Never shown.
        live: SIGHUP changes it in a running room: the room reads it at each use, from the ``Settings`` object that its
            ``reload`` puts in place. Any other keeps its value until the next start.
    """
    said = {"help": help, "min": min, "max": max, "secret": secret, "live": live}
    return dataclasses.field(default=default, metadata=said)


WRONG = object()
"""What ``fitting`` returns for a value that isn't allowed."""


@dataclass(frozen=True, slots=True)
class Field:
    """One declared setting: what it may be."""

    kind: Any
    default: Any
    low: float | None
    high: float | None
    help: str
    secret: bool
    live: bool

    @property
    def allowed(self) -> str:
        if self.kind is bool:
            return "true or false"
        if self.kind in (int, float):
            what = "a whole number" if self.kind is int else "a number"
            low = f"from {_number(self.low)}" if self.low is not None else "more than 0"
            return f"{what}, {low}" + (f" to {_number(self.high)}" if self.high is not None else "")
        if typing.get_origin(self.kind) is tuple:
            return "a list of texts"
        return "text"


def _number(bound: float) -> str:
    """As people write it: a bound in bytes to its last digit, or what is refused beyond it would look allowed."""
    return str(int(bound)) if bound == int(bound) else f"{bound:g}"


def fields_of(kind: type[Any]) -> dict[str, Field]:
    """The settings that a dataclass declares, by name."""
    hints = typing.get_type_hints(kind)
    found: dict[str, Field] = {}
    for one in dataclasses.fields(kind):
        default = one.default_factory() if callable(one.default_factory) else one.default
        low, high = _range(one.metadata, default)
        found[one.name] = Field(
            kind=_plain(hints[one.name]), default=default, low=low, high=high,
            help=one.metadata.get("help", ""), secret=bool(one.metadata.get("secret", False)),
            live=bool(one.metadata.get("live", False)),
        )  # fmt: skip
    return found


def _range(metadata: Mapping[str, Any], default: Any) -> tuple[float | None, float | None]:
    low: float | None = metadata.get("min")
    if low is None and isinstance(default, int | float) and default <= 0:
        low = float(default)  # a default of 0 ("off") is allowed to be written down
    return low, metadata.get("max")


def _plain(hint: Any) -> Any:
    """The type that a value must have; ``X | None`` is X."""
    if isinstance(hint, types.UnionType):
        rest = [h for h in hint.__args__ if h is not type(None)]
        return rest[0] if len(rest) == 1 else str
    return hint


def from_text(text: str, kind: Any) -> Any:
    """A variable's text as the type that it stands for; left as text when it isn't one, for the check to refuse."""
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            return text
    if typing.get_origin(kind) is tuple:
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def fitting(field: Field, value: Any) -> Any:
    """The value in its declared type, or ``WRONG``. A bool is no number here, and infinity no bound."""
    if typing.get_origin(field.kind) is tuple:
        return tuple(value) if isinstance(value, list) and all(isinstance(v, str) for v in value) else WRONG
    if field.kind is Path:
        return Path(value) if isinstance(value, str) else WRONG
    if field.kind not in (int, float):
        return value if isinstance(value, field.kind) else WRONG
    if isinstance(value, bool) or not isinstance(value, int | float) or (field.kind is int and value != int_of(value)):
        return WRONG
    number = field.kind(value)
    low_enough = number <= field.high if field.high is not None else math.isfinite(number)
    high_enough = number >= field.low if field.low is not None else number > 0
    return number if low_enough and high_enough else WRONG


def int_of(value: float) -> int | None:
    """The whole number that a value is, or None."""
    return int(value) if math.isfinite(value) and value == int(value) else None


HIDDEN = "(hidden)"
"""Stands for a secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One setting as it stands."""

    section: str
    name: str
    value: Any
    origin: str  # "default", a flag, a variable's name, or file:line
    help: str = ""
    allowed: str = ""
    secret: bool = False
    live: bool = True  # a running platform takes a new value over

    @property
    def key(self) -> str:
        return f"{self.section}.{self.name}" if self.section else self.name

    @property
    def shown(self) -> Any:
        """The value, unless it is a secret."""
        return HIDDEN if self.secret and self.value else self.value


@dataclass(frozen=True, slots=True)
class Difference:
    """One setting, before and after."""

    now: Value
    then: Value

    @property
    def key(self) -> str:
        return self.then.key

    @property
    def live(self) -> bool:
        """Whether a running platform takes it over."""
        return self.then.live

    @property
    def before(self) -> str:
        """For people: never a secret."""
        return _hidden(self.now.value) if self.then.secret else str(self.now.value)

    @property
    def after(self) -> str:
        return _hidden(self.then.value) if self.then.secret else str(self.then.value)


def _hidden(value: object) -> str:
    return HIDDEN if value else ""
