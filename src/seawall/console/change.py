"""The timeline: what was changed, by whom. What the store doesn't have yet comes from this machine's disk."""

from __future__ import annotations

from seawall.console.answer import Answer, json
from seawall.console.ask import Ask, cursor_bytes, cursor_of
from seawall.console.shape import ChangeLine, ChangePage
from seawall.kernel.clock import Clock
from seawall.kernel.error import Rejected, SeawallError
from seawall.kernel.moment import moment_us
from seawall.kernel.seam.change import Change, Kind, Pending
from seawall.store import change
from seawall.store.change import ID_MAX, US_MAX, Asked, Recorded
from seawall.store.pool import Store

Place = tuple[int, int]
"""(time, id) in the timeline. What the store doesn't have yet has an id beyond any of its, made of its key."""


class ChangeDesk:
    """Handlers of the endpoints of changes. Each raises Rejected.

    Args:
        pending: This machine's own changes that aren't in the store.
    """

    def __init__(self, store: Store, pending: Pending, *, clock: Clock, query_s: float) -> None:
        self._store = store
        self._pending = pending
        self._clock = clock
        self._query_s = query_s

    async def page(self, ask: Ask) -> Answer:
        """All changes."""
        kind, what = ask.text("kind"), ask.text("what") or ""
        if what and kind is None:
            raise Rejected(422, "Bad parameter", "what needs a kind")
        return await self._answer(ask, Kind(kind) if kind is not None else None, what)

    async def of_flag(self, ask: Ask) -> Answer:
        """Those of one flag; also of one that isn't declared any more."""
        return await self._answer(ask, Kind.FLAG, ask.path["name"])

    async def _answer(self, ask: Ask, kind: Kind | None, what: str) -> Answer:
        cursor, since = ask.text("cursor"), ask.text("since")
        asked = Asked(
            since_us=self._since_us(since) if since is not None else 0,
            before=_place(cursor) if cursor is not None else (US_MAX, ID_MAX),
            kind=kind, what=what, limit=ask.limit(),
        )  # fmt: skip
        # Read before the store is: what moves there in between is then seen twice, and not missed.
        ours = [one for one in await self._pending() if _fits(one, asked)]
        try:
            stored, trouble = await change.page(self._store, asked, timeout_s=self._query_s), ""
        except SeawallError as error:
            stored, trouble = [], str(error)
        known = {one.key for one in stored}
        lines = [((one.at_us, one.id), _line(one)) for one in stored]
        lines += [(_own_place(one), _own(one)) for one in ours if one.key not in known]
        lines.sort(key=lambda pair: pair[0], reverse=True)
        page = lines[: asked.limit]
        last = page[-1][0] if len(page) == asked.limit else None
        return json(ChangePage(items=[line for _, line in page], next=_cursor(last), trouble=trouble))

    def _since_us(self, text: str) -> int:
        """A moment (RFC 3339), or how long ago (2h)."""
        try:
            return moment_us(text, now_us=self._clock.wall_us())
        except ValueError as error:
            raise Rejected(422, "Bad since", f"since is {error}") from error


def _fits(one: Change, asked: Asked) -> bool:
    of_kind = asked.kind is None or (one.kind is asked.kind and asked.what in ("", one.what))
    return of_kind and one.at_us >= asked.since_us and _own_place(one) < asked.before


def _own_place(one: Change) -> Place:
    return one.at_us, ID_MAX // 2 + (int.from_bytes(one.key[:8], "big") >> 2)


def _cursor(place: Place | None) -> str | None:
    return None if place is None else cursor_of(b"".join(part.to_bytes(8, "big") for part in place))


def _place(cursor: str) -> Place:
    raw = cursor_bytes(cursor, 16)
    return min(int.from_bytes(raw[:8], "big"), US_MAX), min(int.from_bytes(raw[8:], "big"), ID_MAX)


def _line(one: Recorded) -> ChangeLine:
    return ChangeLine(
        at=one.at, kind=one.kind, what=one.what, by=one.by, before=one.before, after=one.after, why=one.why, stored=True
    )


def _own(one: Change) -> ChangeLine:
    return ChangeLine(
        at=change.time_of(one.at_us), kind=one.kind.value, what=one.what, by=one.by, before=one.before, after=one.after,
        why=one.why, stored=False,
    )  # fmt: skip
