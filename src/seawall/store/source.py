"""Sources in the store: what people change, and what collectors load.

Each change raises ``source_version``, notifies and is told to the timeline in its own transaction, so that "every
collector works with version N or later" is a complete answer to "is my change live?". Secrets are sealed before they
come here and opened after.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from seawall.kernel.clock import Clock, Deadline, SystemClock
from seawall.kernel.error import Corrupt, Overloaded, Rejected, Unavailable, Uncertain
from seawall.kernel.seam.change import NOBODY, Kind
from seawall.store.change import Author, record
from seawall.store.pool import Row, Session, Store
from seawall.store.statement import statements
from seawall.store.vault import Vault, secret_owner

_SQL = statements("source")

SOURCES_MAX = 50_000
"""Live sources that one installation may have: each collector holds them all in memory, and those that were removed
lately as far as there is room beside them. One more is refused where it is added: a collector that couldn't load them
all would go on with those that it knows, and nobody's secret could be revoked any more."""

SECRETS_MAX = 4
"""Live secrets of one source: verification tries each."""

PAGE_MAX = 500
SEEN_S = 60.0
"""A collector that wasn't heard for so long isn't waited for: it is down, and loads everything when it comes back. One
that lives and can't reach the store has, by then, long taken its configuration for stale: it refuses nobody by it."""

LIVE_POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """A new source. The token is known only here and now: the store keeps its hash."""

    id: bytes  # 16 bytes
    name: str
    token: str
    version: int  # source_version from which on it exists


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A live source as people may see it: without its token and secrets."""

    id: bytes
    name: str
    kind: str
    tenant: str
    settings: str
    version: int
    created_at: datetime
    key_ids: tuple[int, ...]  # of live secrets, newest first


class Edition(NamedTuple):
    """All sources as of one change. Two are the same only when both parts are: a store that lost its newest changes
    gives their numbers to others."""

    version: int  # source_version
    stamp: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A source as a collector needs it."""

    id: bytes
    name: str
    kind: str
    tenant: str
    token_hash: bytes
    settings: str
    version: int
    removed: bool
    secrets: tuple[tuple[int, bytes], ...]  # (key id, secret), newest first
    trouble: str = ""  # not "": a secret could not be opened, so what it may have signed can't be verified


@dataclass(frozen=True, slots=True, kw_only=True)
class Liveness:
    """How far a change has come."""

    live: tuple[str, ...]  # collectors that have it
    behind: tuple[str, ...]  # collectors that were heard of lately and haven't


class Sources:
    """Reads and changes sources. Every method raises Unavailable or Uncertain when the store fails it.

    Args:
        vault: Seals and opens secrets.
    """

    def __init__(self, store: Store, vault: Vault, *, clock: Clock | None = None) -> None:
        self._store = store
        self._vault = vault
        self._clock = clock or SystemClock()
        self._behind_us = 0  # our clock, at the last look at the store's

    async def add(
        self, *, name: str, kind: str, tenant: str, settings: str, secret: bytes | None, by: str = NOBODY
    ) -> Added:
        """Make a source with a token of its own; ``settings`` and ``secret`` were checked by the caller.

        Args:
            by: Who makes it, for the timeline; so in all that follows.

        Raises:
            Rejected: 409, the name is taken, or there are ``SOURCES_MAX``.
            Uncertain: It may have been made; its token is lost then. Remove it by its name and add it again.
        """
        id, token = uuid.uuid4().bytes, secrets.token_urlsafe(16)
        async with self._store.transaction() as session:
            version = await self._bumped(session)
            if await session.value(_SQL["count_sources"], SOURCES_MAX) >= SOURCES_MAX:
                raise Rejected(409, "too many sources", f"remove one first: there are {SOURCES_MAX}")
            made = await session.value(
                _SQL["insert_source"], uuid.UUID(bytes=id), name, kind, tenant, token_hash(token), settings, version
            )
            if made is None:
                raise Rejected(409, "name taken", f"there is a source {name!r} already")
            if secret is not None:
                await self._put(session, id, 1, secret)
            await self._tell(session, by, name, None, f"kind {kind}, tenant {tenant}")
        await self._announce(version)
        return Added(id=id, name=name, token=token, version=version)

    async def rotate(self, name: str, secret: bytes, *, by: str = NOBODY) -> tuple[int, int]:
        """Give a source one more live secret; the older ones stay valid until they are revoked.

        Returns:
            (key id of the new secret, source_version).

        Raises:
            Rejected: 404, no such source; 409, it has ``SECRETS_MAX`` live secrets or takes none.
        """
        async with self._store.transaction() as session:
            version = await self._bumped(session)
            source = await _locked(session, name)
            if source["kind"] == "none":
                raise Rejected(409, "no secret", "a source of kind none has no secret")
            row = await session.row(_SQL["next_key_id"], source["id"])
            assert row is not None, "an aggregate always gives a row"
            if row["live"] >= SECRETS_MAX:
                raise Rejected(409, "too many secrets", f"revoke one first: {SECRETS_MAX} are live")
            await self._put(session, source["id"].bytes, row["key_id"], secret)
            await session.execute(_SQL["touch_source"], source["id"], version)
            await self._tell(session, by, name, f"live secrets: {row['live']}", f"secret {row['key_id']} added")
        await self._announce(version)
        return row["key_id"], version

    async def revoke(self, name: str, key_id: int, *, by: str = NOBODY) -> int:
        """End one secret; returns the source_version from which on it verifies nothing.

        Raises:
            Rejected: 404, no such source or live secret; 409, it is the last one (remove the source instead).
        """
        async with self._store.transaction() as session:
            version = await self._bumped(session)
            source = await _locked(session, name)
            if await session.execute(_SQL["revoke_secret"], source["id"], key_id) == 0:
                raise Rejected(404, "no such secret", f"source {name!r} has no live secret {key_id}")
            if await session.value(_SQL["live_keys"], source["id"]) == 0:
                raise Rejected(409, "last secret", "rotate first: without a secret nothing could be verified")
            await session.execute(_SQL["touch_source"], source["id"], version)
            await self._tell(session, by, name, f"secret {key_id} live", f"secret {key_id} revoked")
        await self._announce(version)
        return version

    async def remove(self, name: str, *, by: str = NOBODY) -> int:
        """End a source: its URL answers 410 from the returned source_version on. Its events stay.

        Raises:
            Rejected: 404, no such source.
        """
        async with self._store.transaction() as session:
            version = await self._bumped(session)
            source = await _locked(session, name)
            await session.execute(_SQL["remove_source"], source["id"], version)
            await self._tell(session, by, name, f"kind {source['kind']}", "removed")
        await self._announce(version)
        return version

    async def page(self, *, after: str = "", limit: int = PAGE_MAX) -> list[Listed]:
        """Live sources by name, those after ``after``; at most ``PAGE_MAX``."""
        return [_listed(row) for row in await self._store.fetch(_SQL["list_sources"], after, min(limit, PAGE_MAX))]

    async def live_collectors(self, version: int) -> Liveness:
        """Which collectors work with ``version`` or a later one, of those heard of within ``SEEN_S``."""
        rows = await self._store.fetch(_SQL["collectors_seen"], SEEN_S)
        return Liveness(
            live=tuple(row["name"] for row in rows if row["version"] >= version),
            behind=tuple(row["name"] for row in rows if row["version"] < version),
        )

    async def live(self, version: int, *, timeout_s: float) -> Liveness:
        """Wait until every collector has ``version``; after ``timeout_s`` tell how far it has come.

        Cancelled: the change stands.
        """
        deadline = Deadline.after(timeout_s, self._clock)
        while True:
            seen = await self.live_collectors(version)
            if not seen.behind or deadline.left_s(self._clock) == 0.0:
                return seen
            await asyncio.sleep(LIVE_POLL_S)

    async def edition(self, *, timeout_s: float) -> Edition:
        """The newest one."""
        row = await self._store.row(_SQL["current_edition"], timeout_s=timeout_s)
        assert row is not None, "the schema has made its row"
        # Looked at after the answer: whatever kept it on its way makes our clock look less late, never more.
        self._behind_us = max(0, row["now_us"] - self._clock.wall_us())
        return Edition(row["version"], row["stamp"])

    async def load(self, *, timeout_s: float) -> tuple[Edition, list[Loaded]]:
        """The edition, and every source of it that exists, and those that were removed within 30 days, as far as all of
        them are ``SOURCES_MAX`` at most.

        Raises:
            Overloaded: More than so many exist.
        """
        # Three statements that each see a moment of their own, the version first: whatever the others see beyond it is
        # only newer, and is loaded once more when the version is seen to have moved.
        edition = await self.edition(timeout_s=timeout_s)
        rows = await self._store.fetch(_SQL["load_sources"], SOURCES_MAX + 1, timeout_s=timeout_s)
        if rows[SOURCES_MAX:] and not rows.pop()["removed"]:
            raise Overloaded(f"more than {SOURCES_MAX} sources")
        keys = await self._store.fetch(_SQL["load_secrets"], SOURCES_MAX * SECRETS_MAX, timeout_s=timeout_s)
        sealed: dict[uuid.UUID, list[Row]] = {}
        for key in keys:
            sealed.setdefault(key["source_id"], []).append(key)
        return edition, [self._loaded(row, sealed.get(row["id"], [])) for row in rows]

    async def seen(self, collector: str, version: int, *, timeout_s: float) -> float | None:
        """Say that a collector lives and works with ``version``, and how far its clock is behind the store's.

        Returns:
            Spooled records a second that the governor lets each collector forward; None: it says nothing of that.
        """
        rate = await self._store.value(
            _SQL["seen_collector"], collector, version, self._behind_us, timeout_s=timeout_s
        )  # fmt: skip
        return None if rate is None else float(rate)

    async def forget(self, collector: str, *, timeout_s: float) -> None:
        """Say that a collector has stopped, so that nobody waits for it."""
        await self._store.execute(_SQL["forget_collector"], collector, timeout_s=timeout_s)

    async def _announce(self, version: int) -> None:
        """Behind the commit: where nobody can be told, a secret can be revoked all the same. Collectors also look."""
        with contextlib.suppress(Unavailable, Uncertain):
            await self._store.execute(_SQL["notify_version"], str(version))

    async def _bumped(self, session: Session) -> int:
        return int(await session.value(_SQL["bump_version"]))

    async def _tell(self, session: Session, by: str, name: str, before: str | None, after: str) -> None:
        await record(session, Author(by, self._clock).change(Kind.SOURCE, name, before, after))

    async def _put(self, session: Session, id: bytes, key_id: int, secret: bytes) -> None:
        sealed = self._vault.seal(secret, belongs_to=secret_owner(id, key_id))
        await session.execute(_SQL["insert_secret"], uuid.UUID(bytes=id), key_id, sealed)

    def _loaded(self, row: Row, keys: list[Row]) -> Loaded:
        opened: list[tuple[int, bytes]] = []
        trouble = ""
        for key in keys:
            try:
                owner = secret_owner(row["id"].bytes, key["key_id"])
                opened.append((key["key_id"], self._vault.unseal(key["sealed"], belongs_to=owner)))
            except Corrupt as error:
                trouble = f"secret {key['key_id']}: {error}"
        return Loaded(
            id=row["id"].bytes, name=row["name"], kind=row["kind"], tenant=row["tenant"],
            token_hash=row["token_hash"], settings=row["settings"], version=row["version"], removed=row["removed"],
            secrets=tuple(opened), trouble=trouble,
        )  # fmt: skip


def token_hash(token: str) -> bytes:
    """What the store keeps of a token. Plain sha256: a token has 128 random bits, so there is nothing to guess."""
    return hashlib.sha256(token.encode("latin-1", "replace")).digest()


async def _locked(session: Session, name: str) -> Row:
    source = await session.row(_SQL["lock_source"], name)
    if source is None:
        raise Rejected(404, "no such source", f"there is no source {name!r}")
    return source


def _listed(row: Row) -> Listed:
    return Listed(
        id=row["id"].bytes, name=row["name"], kind=row["kind"], tenant=row["tenant"], settings=row["settings"],
        version=row["version"], created_at=row["created_at"], key_ids=tuple(row["key_ids"]),
    )  # fmt: skip
