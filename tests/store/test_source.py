"""Sources in a real store: changes, their version, and when they are live."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from seawall.collector import Settings, Snapshot, source_problems
from seawall.guard import Supervisor
from seawall.journal import LocalFilesystem
from seawall.kernel.clock import SystemClock
from seawall.kernel.error import Corrupt, Rejected
from seawall.kernel.metric import Metrics
from seawall.store import pool
from seawall.store.pool import Store
from seawall.store.source import SECRETS_MAX, SEEN_S, Added, Sources, token_hash
from seawall.store.vault import Vault, secret_owner
from seawall.testing.postgres import Database
from stall import Stopwatch

KEY = bytes(range(32))


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    async with Store(pool.Settings(dsn=database.dsn), role="test") as store:
        yield store


@pytest.fixture
def sources(store: Store) -> Sources:
    return Sources(store, Vault(KEY))


async def added(sources: Sources, name: str = "a", *, kind: str = "github", secret: bytes | None = b"s1") -> Added:
    return await sources.add(name=name, kind=kind, tenant="default", settings="{}", secret=secret)


async def loaded(sources: Sources) -> dict[str, object]:
    return {s.name: s for s in (await sources.load(timeout_s=2))[1]}


async def test_a_source_is_loaded_as_it_was_added(sources: Sources) -> None:
    before = await sources.edition(timeout_s=2)
    made = await added(sources)
    edition, [one] = await sources.load(timeout_s=2)
    assert edition.version == made.version == before.version + 1
    assert edition.stamp != before.stamp
    assert (one.id, one.name, one.kind, one.removed) == (made.id, "a", "github", False)
    assert one.secrets == ((1, b"s1"),)
    assert one.token_hash == token_hash(made.token)
    assert len(made.token) == 22


async def test_the_database_tells_neither_token_nor_secret(sources: Sources, database: Database) -> None:
    made = await added(sources, secret=b"a-very-secret-secret")
    connection = await asyncpg.connect(database.dsn)
    rows = await connection.fetch("select s::text from source s") + await connection.fetch(
        "select encode(sealed, 'escape') from source_secret"
    )
    await connection.close()
    text = str(rows)
    assert made.token not in text
    assert "secret-secret" not in text


async def test_a_name_is_taken_until_its_source_is_removed(sources: Sources) -> None:
    first = await added(sources)
    with pytest.raises(Rejected) as refused:
        await added(sources)
    assert refused.value.status == 409
    assert (await sources.edition(timeout_s=2)).version == first.version, "a refused change raised the version"
    await sources.remove("a")
    second = await added(sources)
    edition, rows = await sources.load(timeout_s=2)
    assert edition.version == second.version == first.version + 2
    assert {(r.id, r.removed) for r in rows} == {(first.id, True), (second.id, False)}
    with pytest.raises(Rejected):
        await sources.remove("never")


async def test_rotation_keeps_the_old_secret_until_it_is_revoked(sources: Sources) -> None:
    made = await added(sources)
    assert await sources.rotate("a", b"s2") == (2, made.version + 1)
    assert (await sources.load(timeout_s=2))[1][0].secrets == ((2, b"s2"), (1, b"s1"))
    assert (await sources.page())[0].key_ids == (2, 1)
    await sources.revoke("a", 1)
    assert (await sources.load(timeout_s=2))[1][0].secrets == ((2, b"s2"),)
    for key_id, status in ((1, 404), (2, 409)):
        with pytest.raises(Rejected) as refused:
            await sources.revoke("a", key_id)
        assert refused.value.status == status
    assert (await sources.rotate("a", b"s3"))[0] == 3, "a key id came twice"


async def test_live_secrets_are_bounded(sources: Sources) -> None:
    await added(sources)
    for n in range(SECRETS_MAX - 1):
        await sources.rotate("a", b"more%d" % n)
    with pytest.raises(Rejected):
        await sources.rotate("a", b"too many")
    await added(sources, "b", kind="none", secret=None)
    with pytest.raises(Rejected):
        await sources.rotate("b", b"for nothing")


async def test_one_source_too_many_is_refused_and_those_removed_lately_keep_nobody_from_loading(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were it taken, no collector could load any change any more: no secret could be revoked."""
    monkeypatch.setattr("seawall.store.source.SOURCES_MAX", 2)
    await added(sources, "a")
    second = await added(sources, "b")
    with pytest.raises(Rejected) as refused:
        await added(sources, "c")
    assert refused.value.status == 409 and "there are 2" in refused.value.detail
    assert (await sources.edition(timeout_s=2)).version == second.version, "a refused change raised the version"
    await sources.remove("a")
    third = await added(sources, "c")
    edition, rows = await sources.load(timeout_s=2)
    assert edition.version == third.version
    assert {(r.name, r.removed) for r in rows} == {("b", False), ("c", False)}, "the live ones, before any other"


async def test_changes_at_once_each_get_a_version_of_their_own(sources: Sources) -> None:
    made = await asyncio.gather(*(added(sources, f"n{n}") for n in range(4)))
    versions = sorted(m.version for m in made)
    assert versions == list(range(versions[0], versions[0] + 4))


async def test_pages_are_by_name_and_bounded(sources: Sources) -> None:
    for name in ("c", "a", "b"):
        await added(sources, name)
    assert [s.name for s in await sources.page(limit=2)] == ["a", "b"]
    assert [s.name for s in await sources.page(after="b", limit=10**9)] == ["c"]


async def test_another_key_is_told_and_spares_other_sources(sources: Sources, store: Store) -> None:
    await added(sources)
    await added(sources, "open", kind="none", secret=None)
    _, rows = await Sources(store, Vault(bytes(32))).load(timeout_s=2)
    found = {r.name: r for r in rows}
    assert "DIR/key" in found["a"].trouble
    assert found["a"].secrets == ()
    assert found["open"].trouble == ""


async def test_one_secret_that_does_not_open_is_told_beside_those_that_do(sources: Sources, database: Database) -> None:
    await added(sources)
    await sources.rotate("a", b"s2")
    connection = await asyncpg.connect(database.dsn)
    await connection.execute("update source_secret set sealed = sealed || '\\x00' where key_id = 1")
    await connection.close()
    [one] = (await sources.load(timeout_s=2))[1]
    assert one.secrets == ((2, b"s2"),)
    assert one.trouble.startswith("secret 1:")


def test_a_sealed_value_opens_only_for_its_owner() -> None:
    vault = Vault(KEY)
    sealed = vault.seal(b"plain", belongs_to=secret_owner(b"1" * 16, 1))
    assert vault.unseal(sealed, belongs_to=secret_owner(b"1" * 16, 1)) == b"plain"
    assert vault.seal(b"plain", belongs_to=b"x") != vault.seal(b"plain", belongs_to=b"x")
    flipped = sealed[:-1] + bytes((sealed[-1] ^ 1,))
    for wrong, owner in (
        (sealed, secret_owner(b"1" * 16, 2)), (sealed, secret_owner(b"2" * 16, 1)), (b"", b""),
        (flipped, secret_owner(b"1" * 16, 1)),
        (b"\x02" + sealed[1:], secret_owner(b"1" * 16, 1)), (sealed[:20], secret_owner(b"1" * 16, 1)),
    ):  # fmt: skip
        with pytest.raises(Corrupt):
            vault.unseal(wrong, belongs_to=owner)


async def test_a_collector_is_told_how_fast_it_may_forward_its_spool(sources: Sources, database: Database) -> None:
    assert await sources.seen("c1", 1, timeout_s=2) is None
    connection = await asyncpg.connect(database.dsn)
    await connection.execute("insert into drain (name, rate, floor, goal) values ('spool', 250, 80, 4000)")
    await connection.close()
    assert await sources.seen("c1", 1, timeout_s=2) == 250.0


async def test_live_waits_for_collectors_that_are_behind_and_names_them(sources: Sources, store: Store) -> None:
    made = await added(sources)
    assert (await sources.live(made.version, timeout_s=0)).behind == ()
    await sources.seen("c1", made.version - 1, timeout_s=2)
    await sources.seen("c2", made.version, timeout_s=2)
    seen = await sources.live(made.version, timeout_s=0.1)
    assert (seen.live, seen.behind) == (("c2",), ("c1",))
    waiting = asyncio.create_task(sources.live(made.version, timeout_s=5))
    await sources.seen("c1", made.version + 1, timeout_s=2)
    assert (await waiting).behind == ()
    await sources.forget("c1", timeout_s=2)
    assert (await sources.live_collectors(made.version)).live == ("c2",)


async def test_a_collector_that_lives_and_lost_the_store_is_named(sources: Sources, database: Database) -> None:
    made = await added(sources)
    await sources.seen("cut-off", made.version - 1, timeout_s=2)
    await sources.seen("long-dead", made.version - 1, timeout_s=2)
    connection = await asyncpg.connect(database.dsn)
    for name, ago_s in (("cut-off", 20), ("long-dead", SEEN_S + 1)):
        await connection.execute(
            "update collector set seen_at = now() - make_interval(secs => $2) where name = $1", name, ago_s
        )
    await connection.close()
    # Half a minute after its last word it may still refuse by what it knew then.
    assert (await sources.live(made.version, timeout_s=0)).behind == ("cut-off",)


async def test_a_collector_that_was_killed_is_forgotten_in_the_end(sources: Sources, database: Database) -> None:
    """How far its clock was behind counts for what it accepted, which is routed or gone long before."""
    for name in ("killed", "back-from-holidays", "held-up"):
        await sources.seen(name, 1, timeout_s=2)
    connection = await asyncpg.connect(database.dsn)
    await connection.execute("update collector set seen_at = now() - interval '31 days' where name <> 'held-up'")
    await connection.execute("update collector set seen_at = now() - interval '29 days' where name = 'held-up'")
    await sources.seen("back-from-holidays", 2, timeout_s=2)
    left = {row["name"]: row["version"] for row in await connection.fetch("select name, version from collector")}
    await connection.close()
    assert left == {"back-from-holidays": 2, "held-up": 1}


async def test_a_change_is_live_at_a_collector_within_a_moment(
    sources: Sources, database: Database, tmp_path: Path
) -> None:
    # Its own polling is set far apart: only the hint can be so quick.
    settings, clock, metrics = Settings(refresh_s=10.0), SystemClock(), Metrics()
    async with Store(pool.Settings(dsn=database.dsn), role="collector") as theirs:
        snapshot = Snapshot(
            settings, name="c1", sources=Sources(theirs, Vault(KEY)), vault=Vault(KEY), filesystem=LocalFilesystem(),
            file=tmp_path / "snapshot", clock=clock, metrics=metrics, hints=pool.Settings(dsn=database.dsn),
        )  # fmt: skip
        supervisor = Supervisor(metrics)
        snapshot.register(supervisor)
        async with supervisor:
            async with asyncio.timeout(5):
                while not all(h.ready for h in supervisor.health()):
                    await asyncio.sleep(0.01)
            made = await added(sources)
            watch = Stopwatch()
            assert (await sources.live(made.version, timeout_s=8)).live == ("c1",)
            assert watch.s < 3.0
            found = snapshot.find(made.token.encode())
            assert found is not None
            assert found.secrets == ((1, b"s1"),)
        await snapshot.close()
        assert (await sources.live_collectors(0)).live == ()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"name": ""}, "name"), ({"name": "a b"}, "name"), ({"name": "x" * 101}, "name"), ({"tenant": "é"}, "tenant"),
        ({"kind": "pigeon"}, "kind"), ({"secret": None}, "secret"), ({"secret": b""}, "secret"),
        ({"settings": "{"}, "settings"), ({"settings": '{"nope":1}'}, "nope"),
        ({"settings": '{"accepted_status":201}'}, "accepted_status"),
        ({"settings": '{"wait_ms_max":25001}'}, "wait_ms_max"),
        ({"settings": '{"accepted_status":204,"accepted_body":"x"}'}, "204"),
        ({"settings": '{"signature":{"header":"a b"}}'}, "signature.header"),
        ({"settings": '{"signature":{"algorithm":"md5"}}'}, "sha256"),
        ({"settings": '{"accepted_content_type":"a\\r\\nb"}'}, "accepted_content_type"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_source_is_said_before_it_is_added(change: dict[str, object], word: str) -> None:
    good = {"name": "a", "kind": "github", "tenant": "t", "settings": "{}", "secret": b"s"}
    assert source_problems(**good) == []  # type: ignore[arg-type]
    assert word in "; ".join(source_problems(**{**good, **change}))  # type: ignore[arg-type]
