"""Changing sources. Each change answers when every live collector works with it, or says which ones don't yet."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import msgspec

from seawall.collector.setting import source_problems
from seawall.console.answer import Answer, json
from seawall.console.ask import Ask, cursor_bytes, cursor_of
from seawall.console.shape import Change, MadeSource, NewSecret, NewSource, OldSecret, SourceLine, Sources
from seawall.kernel import signature
from seawall.kernel.clock import Clock, Deadline
from seawall.kernel.error import Rejected, SeawallError
from seawall.kernel.event import id_text
from seawall.kernel.limit import NAME_CHARS_MAX
from seawall.kernel.log import fields, logger
from seawall.store import report, source
from seawall.store.pool import Store
from seawall.store.source import Listed, Liveness

log = logger("console")

POLL_S = 0.05
KEY_ID_MAX = 2**31 - 1
NAME = re.compile(rf"[A-Za-z0-9_.-]{{1,{NAME_CHARS_MAX}}}")


class SourceDesk:
    """Handlers of the endpoints of sources. Each raises Rejected, Unavailable or Uncertain.

    Args:
        listen: The collector's base URL as it is now ("": unknown; a source's URL is then only a path).
        live_s: How long a change waits for the collectors.
    """

    def __init__(
        self, store: Store, sources: source.Sources, *, listen: Callable[[], str], clock: Clock, live_s: float
    ) -> None:
        self._store = store
        self._sources = sources
        self._listen = listen
        self._clock = clock
        self._live_s = live_s

    async def page(self, ask: Ask) -> Answer:
        after, limit = ask.text("cursor"), ask.limit()
        found = await self._sources.page(after=name_of(after) if after is not None else "", limit=limit)
        items = [_line(listed) for listed in found]
        return json(Sources(items=items, next=cursor_of(items[-1].name.encode()) if len(items) == limit else None))

    async def add(self, ask: Ask) -> Answer:
        wish = ask.parsed(NewSource)
        secret = wish.secret.encode("utf-8", "surrogatepass") if wish.secret is not None else None
        settings = msgspec.json.encode(wish.settings).decode()
        problems = source_problems(name=wish.name, kind=wish.kind, tenant=wish.tenant, settings=settings, secret=secret)
        if problems:
            raise Rejected(422, "Bad source", "; ".join(problems))
        made = await self._sources.add(
            name=wish.name, kind=wish.kind, tenant=wish.tenant, settings=settings, secret=secret, by=ask.by
        )
        live, missing = await self._live(made.version)
        return json(
            MadeSource(
                id=id_text(made.id),
                name=made.name,
                kind=wish.kind,
                tenant=wish.tenant,
                token=made.token,
                url=f"{self._listen().rstrip('/')}/in/{made.token}",
                live=live,
                missing=missing,
            ),
            201,
        )

    async def rotate(self, ask: Ask) -> Answer:
        name, secret = _name(ask), ask.parsed(NewSecret).secret.encode("utf-8", "surrogatepass")
        kind = signature.KINDS.get(await report.source_kind(self._store, name) or "")
        if kind is not None and kind.has_secret and (trouble := kind.secret_problem(secret)):
            raise Rejected(422, "Bad secret", trouble)
        key_id, version = await self._sources.rotate(name, secret, by=ask.by)
        return await self._changed(name, version, key_id=key_id)

    async def revoke(self, ask: Ask) -> Answer:
        name, key_id = _name(ask), ask.parsed(OldSecret).key_id
        if not 1 <= key_id <= KEY_ID_MAX:
            raise Rejected(404, "no such secret", f"source {name!r} has no live secret {key_id}")
        return await self._changed(name, await self._sources.revoke(name, key_id, by=ask.by))

    async def remove(self, ask: Ask) -> Answer:
        name = _name(ask)
        return await self._changed(name, await self._sources.remove(name, by=ask.by))

    async def _changed(self, name: str, version: int, *, key_id: int | None = None) -> Answer:
        live, missing = await self._live(version)
        return json(Change(name=name, live=live, missing=missing, key_id=key_id))

    async def _live(self, version: int) -> tuple[bool, tuple[str, ...]]:
        """Whether every collector has a change, and which ones don't, after at most ``live_s``.

        The change stands whatever comes of this: a store that goes away now must not turn it into an error, for a
        caller that repeats it would be told that the name is taken.
        """
        deadline = Deadline.after(self._live_s, self._clock)
        seen = Liveness(live=(), behind=())
        while True:
            try:
                seen = await self._sources.live_collectors(version)
            except SeawallError as error:
                log.warning("can't tell whether a change is live", extra=fields(cause=str(error)))
            if (seen.live and not seen.behind) or deadline.left_s(self._clock) == 0.0:
                return bool(seen.live) and not seen.behind, seen.behind
            await asyncio.sleep(POLL_S)


def name_of(cursor: str) -> str:
    """The name in a cursor of the list of sources.

    Raises:
        Rejected: 422, it isn't one.
    """
    try:
        return cursor_bytes(cursor, None).decode()
    except UnicodeDecodeError as error:
        raise Rejected(422, "Bad cursor", "give `next` of a page of this list, unchanged") from error


def _name(ask: Ask) -> str:
    name = ask.path["name"]
    if NAME.fullmatch(name) is None:
        raise Rejected(404, "no such source", f"there is no source {name[:NAME_CHARS_MAX]!r}")
    return name


def _line(listed: Listed) -> SourceLine:
    return SourceLine(
        id=id_text(listed.id),
        name=listed.name,
        kind=listed.kind,
        tenant=listed.tenant,
        settings=msgspec.Raw(listed.settings.encode()),
        version=listed.version,
        created_at=listed.created_at,
        key_ids=listed.key_ids,
    )
