"""The event as a workflow sees it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from seawall.kernel.event import headers_of
from seawall.kernel.json import parse


class NotJSON(ValueError):
    """The body has no JSON value; ``reason`` is ``empty``, ``invalid`` or ``too_deep``."""

    def __init__(self, event_id: str, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the body of event {event_id} is no JSON ({reason}); its bytes are in event.body")


class Headers(Mapping[str, str]):
    """Header values by name, whatever the case of its letters. A name that came several times gives its first value;
    ``all`` gives each."""

    __slots__ = ("_pairs", "_values")

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._pairs = [(name.lower(), value) for name, value in pairs]
        self._values = dict(reversed(self._pairs))

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for name, _ in self._pairs))

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._values

    def all(self, name: str) -> list[str]:
        """Every value of one name, in the order in which they came."""
        return [value for known, value in self._pairs if known == name.lower()]


class Event:
    """One accepted event. What costs something (headers, JSON) is read when it is asked for, and once.

    Attributes:
        id: ``0193…-….``, the id that its sender was given.
        type: ``github.push`` and the like.
        tenant, source: Names.
        received_at: When it was accepted, UTC.
        body: Exactly the bytes that came.
    """

    __slots__ = ("_flat", "_headers", "_json", "_parsed", "body", "id", "received_at", "source", "tenant", "type")

    def __init__(
        self,
        *,
        id: str,
        type: str,
        tenant: str = "default",
        source: str = "",
        received_at: datetime,
        headers: bytes | Iterable[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> None:
        self.id = id
        self.type = type
        self.tenant = tenant
        self.source = source
        self.received_at = received_at
        self.body = body
        self._flat = headers
        self._headers: Headers | None = None
        self._parsed = False
        self._json: Any = None

    @property
    def headers(self) -> Headers:
        """Without those that carry credentials: they never reach the disk."""
        if self._headers is None:
            flat = self._flat
            self._headers = Headers(headers_of(flat) if isinstance(flat, bytes) else flat)
        return self._headers

    @property
    def json(self) -> Any:
        """The body's JSON value: the same reading of it that routing had.

        Raises:
            NotJSON: With the reason.
        """
        if not self._parsed:
            value, reason = parse(self.body)
            if reason is not None:
                raise NotJSON(self.id, reason)
            self._json, self._parsed = value, True
        return self._json

    def __repr__(self) -> str:
        return f"<Event {self.type} {self.id} from {self.source}, {len(self.body)} bytes>"
