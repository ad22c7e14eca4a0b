"""Requests, parsed once at the edge: what isn't exactly what an endpoint takes is refused with what it does take."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeVar
from uuid import UUID

import msgspec

from seawall.kernel import selection
from seawall.kernel.error import Rejected
from seawall.kernel.limit import TYPE_CHARS_MAX
from seawall.kernel.status import EventStatus, RunStatus
from seawall.store.report import EVENT_ID_MAX, PAGE_MAX, RUN_ID_MAX

BY_TOKEN: Final = "token admin"  # noqa: S105 - its name
"""Who asks, when nothing but the token says it."""

BY_HEADER: Final = "seawall-by"
"""Who sits at the other end, as they say themselves: for the timeline, not for any right."""

BY_CHARS_MAX: Final = 64
LIMIT_DEFAULT: Final = 50
LIMIT_DIGITS: Final = 9
NAME_MAX: Final = TYPE_CHARS_MAX
RUN_DIGITS: Final = 19

T = TypeVar("T")
S = TypeVar("S", bound=IntEnum)

EVENT_STATUSES: Final = {s.name.lower(): s for s in EventStatus}
RUN_STATUSES: Final = {s.word: s for s in RunStatus}


@dataclass(frozen=True, slots=True, kw_only=True)
class Param:
    """One query parameter."""

    name: str
    help: str
    words: tuple[str, ...] = ()  # allowed values; (): any text
    chars_max: int = NAME_MAX


LIMIT: Final = Param(name="limit", help=f"Rows wanted, from 1; {LIMIT_DEFAULT} when left out, at most {PAGE_MAX}.")
WHERE: Final = Param(
    name="where",
    help="A selection, such as source=gh, state=failed|dead, since=2h; not together with other words of its kind.",
    chars_max=selection.TEXT_CHARS_MAX,
)
CURSOR: Final = Param(name="cursor", help="`next` of the page before; opaque.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request to an endpoint."""

    path: Mapping[str, str]  # values of the path's {names}
    query: Mapping[str, str]
    body: bytes = b""
    by: str = BY_TOKEN  # who asks, for the timeline

    def text(self, name: str) -> str | None:
        """A query parameter as it is; None: it wasn't given."""
        return self.query.get(name)

    def limit(self) -> int:
        """Rows wanted; more than the maximum is capped."""
        text = self.query.get("limit")
        if text is None:
            return LIMIT_DEFAULT
        if not text.isascii() or not text.isdigit() or not text.strip("0"):
            raise Rejected(422, "Bad limit", "limit must be a whole number from 1 on")
        return PAGE_MAX if len(text) > LIMIT_DIGITS else min(int(text), PAGE_MAX)

    def event_status(self) -> EventStatus | None:
        return EVENT_STATUSES[self.query["status"]] if "status" in self.query else None

    def run_status(self) -> RunStatus | None:
        return RUN_STATUSES[self.query["status"]] if "status" in self.query else None

    def event_cursor(self) -> bytes:
        """Only events below this id."""
        return cursor_bytes(self.query["cursor"], 16) if "cursor" in self.query else EVENT_ID_MAX

    def run_cursor(self) -> int:
        """Only runs below this id."""
        if "cursor" not in self.query:
            return RUN_ID_MAX
        return min(int.from_bytes(cursor_bytes(self.query["cursor"], 8), "big"), RUN_ID_MAX)

    def event_id(self) -> bytes:
        """The path's ``id``."""
        found = event_id(self.path["id"])
        if found is None:
            raise Rejected(404, "No such event", "an event's id looks like 0193f6a0-7c1e-7d3a-9b42-5f0e8c6d1a2b")
        return found

    def run_id(self) -> int:
        """The path's ``id``."""
        text = self.path["id"]
        if not text.isascii() or not text.isdigit() or len(text) > RUN_DIGITS or int(text) > RUN_ID_MAX:
            raise Rejected(404, "No such run", "a run's id is a whole number")
        return int(text)

    def parsed(self, kind: type[T]) -> T:
        """The body.

        Raises:
            Rejected: 400, it isn't JSON; 422, it isn't what the endpoint takes.
        """
        try:
            return msgspec.json.decode(self.body, type=kind)
        except msgspec.ValidationError as error:
            names = ", ".join(field.encode_name for field in msgspec.structs.fields(kind))  # type: ignore[arg-type]
            raise Rejected(422, "Bad body", f"{error}; allowed are {names}") from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Rejected(400, "Bad JSON", str(error)) from error


def by_of(claimed: str) -> str:
    """Who asks: the token, and whom its holder names."""
    name = "".join(c for c in claimed if c.isprintable()).strip()[:BY_CHARS_MAX]
    return f"{name} ({BY_TOKEN})" if name else BY_TOKEN


def query_of(pairs: Sequence[tuple[str, str]], allowed: Sequence[Param]) -> dict[str, str]:
    """Query parameters by name, each known, given once, and of an allowed value.

    Raises:
        Rejected: 422, with what is allowed.
    """
    found: dict[str, str] = {}
    params = {param.name: param for param in allowed}
    names = ", ".join(params) or "none"
    for name, value in pairs:
        param = params.get(name)
        if param is None:
            raise Rejected(422, "Unknown parameter", f"{name[:NAME_MAX]!r} isn't known here; allowed: {names}")
        if name in found:
            raise Rejected(422, "Repeated parameter", f"{name!r} was given twice")
        if param.words and value not in param.words:
            raise Rejected(422, "Bad parameter", f"{name} must be one of {', '.join(param.words)}")
        if "\0" in value or len(value) > param.chars_max or not _is_text(value):
            most = param.chars_max
            raise Rejected(422, "Bad parameter", f"{name} must be text of at most {most} characters, without NUL")
        found[name] = value
    return found


def event_id(text: str) -> bytes | None:
    """An event's 16 bytes, out of its canonical form or 32 hex digits; None: it is neither."""
    if len(text) not in (32, 36):
        return None
    try:
        return UUID(text).bytes
    except ValueError:
        return None


def cursor_of(value: bytes | int | None) -> str | None:
    """An opaque cursor."""
    if value is None:
        return None
    raw = value if isinstance(value, bytes) else max(value, 0).to_bytes(8, "big")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def cursor_bytes(text: str, count: int | None) -> bytes:
    """What ``cursor_of`` was given: ``count`` bytes, any number when that is None.

    Raises:
        Rejected: 422, it isn't a cursor of this list.
    """
    try:
        raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError):
        raw = b""
    if not raw or (count is not None and len(raw) != count):
        raise Rejected(422, "Bad cursor", "give `next` of a page of this list, unchanged")
    return raw


def _is_text(value: str) -> bool:
    """False for lone surrogates, which no store keeps."""
    return value.isascii() or value.encode("utf-8", "replace").decode() == value
