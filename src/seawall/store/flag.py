"""Flags in the store: what people have set, and the one way to set it.

A change names the version that it was made from. Of two that were made from the same one, the second is refused, and
told what the first did: nobody switches on unseen what another has just switched off.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace

import msgspec

from seawall.guard.flag import Flag, Rule, Setting, Wish, changed
from seawall.guard.switchboard import Known
from seawall.kernel.error import Overloaded, Rejected, Unavailable, Uncertain
from seawall.kernel.seam.change import Kind
from seawall.store.change import Author, record, time_of, us_of
from seawall.store.pool import Row, Session, Store
from seawall.store.statement import statements

_SQL = statements("flag")

FLAGS_MAX = 1000
"""Rows; far beyond what code declares."""


class Flags:
    """Reads and sets flags. Every method raises Unavailable or Uncertain when the store fails it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def load(self, *, timeout_s: float) -> Known:
        """All that was ever set, and the schema's version, of one moment.

        Raises:
            Unavailable: Also: a row that this version can't read.
            Overloaded: More than ``FLAGS_MAX``.
        """
        rows = await self._store.fetch(_SQL["load_flags"], FLAGS_MAX + 1, timeout_s=timeout_s)
        if len(rows) > FLAGS_MAX:
            raise Overloaded(f"more than {FLAGS_MAX} flags")
        settings = [_setting(row) for row in rows if row["name"] is not None]
        return Known(settings={setting.flag: setting for setting in settings}, schema=rows[0]["schema"])

    async def put(self, flag: Flag, wish: Wish, *, version: int, author: Author) -> tuple[Setting, Setting]:
        """Set a flag; (what it was, what it is). A wish that changes nothing writes nothing.

        Args:
            version: Of the setting that the wish was made from; 0: it was never set.

        Raises:
            Rejected: 409, it was set meanwhile; 404, no such source or tenant; 422, it isn't set by that.
            Uncertain: It may be set. Repeating with the same version is safe: it is refused if it was.

        Durability: setting and change are committed together, or neither is.
        """
        async with self._store.transaction() as session:
            await session.execute(_SQL["claim_flag"], flag.name)
            row = await session.row(_SQL["lock_flag"], flag.name)
            assert row is not None, "claimed above"
            before = _setting(row)
            if before.version != version:
                raise Rejected(409, "Flag changed", _told(before, version))
            await _exists(session, wish)
            after = changed(flag, before, wish)
            if after == before:
                return before, before
            change = author.change(Kind.FLAG, flag.name, str(before), str(after))
            after = replace(after, version=version + 1, at_us=change.at_us, by=change.by, why=change.why)
            await _write(session, after)
            await record(session, change)
        # Behind the commit: where nobody can be told, a switch can be pulled all the same.
        with contextlib.suppress(Unavailable, Uncertain):
            await self._store.execute(_SQL["notify_flag"], flag.name)
        return before, after

    async def known_to_exist(self, wish: Wish) -> None:
        """That there is the source or tenant that a wish names.

        Raises:
            Rejected: 404, there is none: a typing error must not look like a pulled switch.
        """
        if wish.by:
            async with self._store.own_connection() as session:
                await _exists(session, wish)

    async def tenants_of(self, sources: Sequence[str]) -> dict[str, str]:
        """Tenants of sources, by their names; one that is gone is left out."""
        rows = await self._store.fetch(_SQL["tenants_of"], list(sources), len(sources))
        return {row["name"]: row["tenant"] for row in rows}


async def _write(session: Session, setting: Setting) -> None:
    rules = msgspec.json.encode([[rule.by, rule.name, rule.value] for rule in setting.rules]).decode()
    await session.execute(
        _SQL["update_flag"], setting.flag, setting.value, rules, setting.version, time_of(setting.at_us), setting.by,
        setting.why,
    )  # fmt: skip


async def _exists(session: Session, wish: Wish) -> None:
    if wish.by not in ("source", "tenant"):
        return
    statement, said = (
        (_SQL["unknown_source"], "there is no source")
        if wish.by == "source"
        else (_SQL["unknown_tenant"], "no source has tenant")
    )
    # A rule may be taken back when what it names is gone.
    if wish.value is not None and await session.value(statement, wish.name):
        raise Rejected(404, f"No such {wish.by}", f"{said} {wish.name!r}")


def _told(now: Setting, version: int) -> str:
    if not now.version:
        return f"it was never set, so there is no version {version}; begin from version 0"
    return (
        f"it is at version {now.version}, not {version}: {now.by} made it {now} ({now.why}); look again, and decide "
        f"from there"
    )


def _setting(row: Row) -> Setting:
    try:
        rules = msgspec.json.decode(row["rules"], type=list[tuple[str, str, bool]])
    except msgspec.DecodeError as error:
        raise Unavailable("PostgreSQL", f"the rules of flag {row['name']} can't be read: {error}") from error
    version = row["version"]
    return Setting(
        flag=row["name"], value=row["value"], rules=tuple(Rule(*rule) for rule in rules), version=version,
        at_us=us_of(row["changed_at"]) if version else 0, by=row["changed_by"], why=row["why"],
    )  # fmt: skip
