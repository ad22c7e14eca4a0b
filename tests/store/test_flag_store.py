"""Flags in a real store: setting one is compared with what it was decided from, and told to the timeline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest

from seawall.guard.flag import Flag, Rule, Setting, Wish
from seawall.kernel.clock import SystemClock
from seawall.kernel.error import Rejected, Unavailable
from seawall.kernel.seam.change import Kind
from seawall.kernel.status import CHANNEL_FLAG
from seawall.migrate import versions
from seawall.store import change, pool
from seawall.store.flag import Flags
from seawall.store.pool import Store
from seawall.store.source import Sources
from seawall.store.vault import Vault
from seawall.testing.postgres import Database

GEO = Flag(
    name="geo", owner="cache", help="…", without="…", default=True, safe=False, requires=(), roles=("router",),
    by=("tenant", "source"),
)  # fmt: skip
ALICE, BOB = (change.Author(name, SystemClock(), f"{name} wants it") for name in ("alice", "bob"))
OFF, ON = Wish(value=False), Wish(value=True)


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    async with Store(pool.Settings(dsn=database.dsn), role="test") as store:
        yield store


@pytest.fixture
def flags(store: Store) -> Flags:
    return Flags(store)


async def told(store: Store) -> list[tuple[str, str | None, str | None, str]]:
    lines = await change.page(store, change.Asked(kind=Kind.FLAG, what="geo"), timeout_s=2.0)
    return [(line.by, line.before, line.after, line.why) for line in lines]


async def test_a_flag_is_read_as_it_was_set(flags: Flags) -> None:
    assert (await flags.load(timeout_s=2.0)).settings == {}
    before, after = await flags.put(GEO, OFF, version=0, author=ALICE)
    assert (before.version, after.version, after.value, after.by, after.why) == (0, 1, False, "alice", "alice wants it")
    found = await flags.load(timeout_s=2.0)
    assert found.settings == {"geo": after}
    assert found.schema == len(versions())


async def test_of_many_at_once_one_wins_and_the_others_are_told_by_whom(flags: Flags, store: Store) -> None:
    """Four connections, all from version 0, then all from version 1."""
    for version in (0, 1):
        outcomes = await asyncio.gather(
            *(
                flags.put(GEO, Wish(value=bool(version)), version=version, author=replace(ALICE, by=f"person {n}"))
                for n in range(8)
            ),
            return_exceptions=True,
        )
        won = [one for one in outcomes if isinstance(one, tuple)]
        lost = [one for one in outcomes if isinstance(one, Rejected)]
        assert (len(won), len(lost)) == (1, 7), outcomes
        assert {one.status for one in lost} == {409}
        assert all(f"{won[0][1].by} made it" in one.detail for one in lost)
    assert len(await told(store)) == 2


async def test_a_conflict_says_what_the_other_did(flags: Flags) -> None:
    await flags.put(GEO, OFF, version=0, author=ALICE)
    with pytest.raises(Rejected, match=r"at version 1, not 0: alice made it off \(alice wants it\)"):
        await flags.put(GEO, ON, version=0, author=BOB)
    with pytest.raises(Rejected, match="never set"):
        await flags.put(replace(GEO, name="other"), ON, version=3, author=BOB)


async def test_a_repeated_set_is_refused_and_not_done_twice(flags: Flags, store: Store) -> None:
    """What a caller does after an uncertain commit."""
    await flags.put(GEO, OFF, version=0, author=ALICE)
    with pytest.raises(Rejected, match="alice made it off"):
        await flags.put(GEO, OFF, version=0, author=ALICE)
    assert len(await told(store)) == 1


async def test_setting_what_is_set_writes_nothing(flags: Flags, store: Store) -> None:
    await flags.put(GEO, OFF, version=0, author=ALICE)
    before, after = await flags.put(GEO, OFF, version=1, author=BOB)
    assert before == after and after.by == "alice"
    assert await told(store) == [("alice", "default", "off", "alice wants it")]


async def test_rules_name_what_exists_and_may_be_taken_back_when_it_is_gone(flags: Flags, store: Store) -> None:
    sources = Sources(store, Vault(bytes(32)))
    await sources.add(name="gh", kind="none", tenant="acme", settings="{}", secret=None, by="carol")
    for by, name in (("source", "hg"), ("tenant", "amce")):
        with pytest.raises(Rejected) as caught:
            await flags.put(GEO, Wish(value=False, by=by, name=name), version=0, author=ALICE)
        assert caught.value.status == 404 and name in caught.value.detail
        with pytest.raises(Rejected):
            await flags.known_to_exist(Wish(value=False, by=by, name=name))
    await flags.put(GEO, Wish(value=False, by="source", name="gh"), version=0, author=ALICE)
    _, after = await flags.put(GEO, Wish(value=True, by="tenant", name="acme"), version=1, author=ALICE)
    assert after.rules == (Rule("source", "gh", False), Rule("tenant", "acme", True))
    assert (await flags.load(timeout_s=2.0)).settings["geo"] == after
    assert await flags.tenants_of(["gh", "gone"]) == {"gh": "acme"}
    await sources.remove("gh", by="carol")
    _, after = await flags.put(GEO, Wish(value=None, by="source", name="gh"), version=2, author=BOB)
    assert after.rules == (Rule("tenant", "acme", True),)
    assert (await told(store))[0][1:3] == (
        "default, off for source gh, on for tenant acme", "default, on for tenant acme",
    )  # fmt: skip


async def test_a_setting_and_its_line_in_the_timeline_are_one_transaction(
    flags: Flags, store: Store, database: Database
) -> None:
    admin = await asyncpg.connect(database.dsn)
    await admin.execute("alter table change add constraint full_ check (by <> 'bob')")
    await flags.put(GEO, OFF, version=0, author=ALICE)
    with pytest.raises(Exception, match="full_"):
        await flags.put(GEO, ON, version=1, author=BOB)
    await admin.close()
    assert (await flags.load(timeout_s=2.0)).settings["geo"].value is False
    assert [one[0] for one in await told(store)] == ["alice"]


async def test_every_change_is_notified_with_its_commit(flags: Flags, database: Database) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    listener = pool.Listener(
        pool.Settings(dsn=database.dsn), [CHANNEL_FLAG], lambda _, name: heard.put_nowait(name), role="test"
    )
    async with listener.subscribed():
        await flags.put(GEO, OFF, version=0, author=ALICE)
        async with asyncio.timeout(10):
            assert await heard.get() == "geo"


async def test_a_row_that_can_not_be_read_is_said_and_not_guessed(flags: Flags, database: Database) -> None:
    await flags.put(GEO, OFF, version=0, author=ALICE)
    admin = await asyncpg.connect(database.dsn)
    await admin.execute("update flag set rules = '[1]'")
    await admin.close()
    with pytest.raises(Unavailable, match="the rules of flag geo can't be read"):
        await flags.load(timeout_s=2.0)


async def test_a_store_without_flags_yet_is_unavailable_and_no_bug(database: Database) -> None:
    admin = await asyncpg.connect(database.dsn)
    await admin.execute("drop table flag")
    await admin.close()
    async with Store(pool.Settings(dsn=database.dsn), role="test") as store:
        with pytest.raises(Unavailable):
            await Flags(store).load(timeout_s=2.0)


async def test_source_changes_are_told_with_who_made_them_and_never_a_secret(store: Store) -> None:
    sources = Sources(store, Vault(bytes(32)))
    await sources.add(name="gh", kind="github", tenant="acme", settings="{}", secret=b"first-secret", by="alice")
    await sources.rotate("gh", b"second-secret", by="bob")
    await sources.revoke("gh", 1, by="carol")
    await sources.remove("gh", by="dave")
    with pytest.raises(Rejected):
        await sources.remove("gh", by="eve")  # there is none: nothing was changed
    lines = await change.page(store, change.Asked(kind=Kind.SOURCE, what="gh"), timeout_s=2.0)
    assert [(line.by, line.before, line.after) for line in reversed(lines)] == [
        ("alice", None, "kind github, tenant acme"), ("bob", "live secrets: 1", "secret 2 added"),
        ("carol", "secret 1 live", "secret 1 revoked"), ("dave", "kind github", "removed"),
    ]  # fmt: skip
    assert "-secret" not in repr(lines)


async def test_the_timeline_begins_with_the_schema_itself(store: Store) -> None:
    lines = await change.page(store, change.Asked(kind=Kind.MIGRATION), timeout_s=2.0)
    assert [line.after for line in reversed(lines)] == [f"{v.number} {v.name}" for v in versions()]


def test_settings_say_what_they_are() -> None:
    setting = Setting(flag="geo", value=None, rules=(Rule("tenant", "acme", False),))
    assert str(setting) == "default, off for tenant acme"
