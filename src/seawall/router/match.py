"""What an event is: its type and its dedupe key, read from the record alone.

Types, by the source's kind: ``github.<X-GitHub-Event>``, ``shopify.<X-Shopify-Topic>``, ``stripe.<type>`` and
``slack.<type>`` (the body's top-level ``type``), ``pagerduty.<event.event_type>``. Others, and those whose own rule
finds nothing: the body's top-level ``type``, else the header ``ce-type``, else the source's name. A body that isn't
JSON has no fields; it is routed all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from seawall.kernel import correlation, pointer
from seawall.kernel.event import Record, headers_of
from seawall.kernel.json import parse
from seawall.kernel.limit import TYPE_CHARS_MAX
from seawall.store.router import Workflow

REMEMBERED_MAX = 4096
"""Types whose workflows are remembered. Senders choose types, so a sender of ever new ones must not fill the memory."""

_NAMED_BY_HEADER = {"github": "x-github-event", "shopify": "x-shopify-topic"}
_TYPE_WAY = {"stripe": ("type",), "slack": ("type",), "pagerduty": ("event", "event_type")}
# As the kinds say in kernel/signature (a test compares them), which brings more into a process than a router needs.
_KEY_WAY = {"stripe": ("id",), "slack": ("event_id",), "pagerduty": ("event", "id")}


@dataclass(frozen=True, slots=True)
class Reading:
    """What a record says about itself."""

    type: str  # at most TYPE_CHARS_MAX characters that PostgreSQL can keep
    key: str  # the sender's dedupe key; "": none
    correlations: tuple[bytes, ...] = ()  # by what the event can be waited for


Shapes = Mapping[str, Sequence[Sequence[correlation.Way]]]
"""By type, by which fields its events can be waited for."""


def read(record: Record, shapes: Shapes) -> Reading:
    """Type and keys of a record. Never raises, whatever its body is."""
    value, _ = parse(record.body)
    way = _KEY_WAY.get(record.kind)
    key = record.key or (_text(pointer.find(value, way)) if way is not None else "")
    type = _storable(_type(record, value))
    if type not in shapes:
        return Reading(type, key)
    keys = (correlation.found(record.tenant, type, ways, value) for ways in shapes[type])
    return Reading(type, key, tuple(key for key in keys if key is not None))


def unread_type(record: Record) -> str:
    """A type for a record whose body must not be touched: the source's name."""
    return _storable(record.source)


def _type(record: Record, value: object) -> str:
    kind = record.kind
    header, way = _NAMED_BY_HEADER.get(kind), _TYPE_WAY.get(kind)
    if header is not None and (named := _header(record.headers, header)):
        return f"{kind}.{named}"
    if way is not None and (named := _text(pointer.find(value, way))):
        return f"{kind}.{named}"
    named = _text(value.get("type")) if isinstance(value, dict) and kind not in _TYPE_WAY else ""
    return named or _header(record.headers, "ce-type") or record.source


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _header(flat: bytes, name: str) -> str:
    """The first value of a header, "" when it isn't there."""
    # Most records don't have it, and a search in the bytes is far cheaper than to take all headers apart.
    if name.encode() not in flat.lower():
        return ""
    return next((value for known, value in headers_of(flat) if known.lower() == name), "")


def _storable(text: str) -> str:
    cut = text[:TYPE_CHARS_MAX]
    return cut if cut.isascii() and "\0" not in cut else cut.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


class Matcher:
    """Finds the workflows that an event of some type starts."""

    def __init__(self, workflows: Sequence[Workflow]) -> None:
        self._patterns = [(w.pattern.split("*"), w) for w in workflows]
        self._remembered: dict[str, tuple[Workflow, ...]] = {}

    def match(self, type: str) -> tuple[Workflow, ...]:
        """Workflows in order of their ids."""
        found = self._remembered.get(type)
        if found is None:
            found = tuple(workflow for parts, workflow in self._patterns if _matches(type, parts))
            if len(self._remembered) >= REMEMBERED_MAX:
                self._remembered.clear()
            self._remembered[type] = found
        return found


def _matches(type: str, parts: Sequence[str]) -> bool:
    """Whether a type is the pattern's parts with anything in the place of each ``*``; other characters mean themselves,
    and case matters. One pass: no choice of pattern and type makes it slow."""
    first, *between = parts
    if not between:
        return type == first
    last = between.pop()
    if not (type.startswith(first) and len(type) >= len(first) + len(last) and type.endswith(last)):
        return False
    at, end = len(first), len(type) - len(last)
    for part in between:
        at = type.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True
