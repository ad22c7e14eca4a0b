"""What new events start follows what workers have: deploys, rollbacks and removals, one at a time or rolling."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from seawall import App, Context, Event
from seawall.kernel.clock import SystemClock
from seawall.kernel.metric import Metrics
from seawall.store import pool, version, watch
from seawall.store.change import Author
from seawall.store.workflow import Declared, register, seen
from seawall.worker import lease, presence
from worker.rig import Rig


def app_of(*workflows: str, queue: str = "default") -> App:
    """An app with ``name@version`` each."""
    app = App()
    for workflow in workflows:
        name, _, version = workflow.partition("@")

        @app.workflow(on="test.thing", name=name, version=version, queue=queue)
        async def any(event: Event, ctx: Context) -> str:
            return "ran"

    return app


async def active(rig: Rig) -> list[str]:
    rows = await rig.db.fetch("select name, version from workflow where active order by name")
    return [f"{row['name']}@{row['version']}" for row in rows]


async def test_an_app_that_is_rolled_back_runs_new_events_and_says_what_waits(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    owner, metrics = uuid.uuid4(), Metrics()
    async with rig.running(app_of("deploy@1"), owner=owner):
        assert await active(rig) == ["deploy@1"]
    async with rig.running(app_of("deploy@2"), owner=owner):
        assert await active(rig) == ["deploy@2"]
    left = await rig.add("deploy", [{}], version="2")
    async with rig.running(app_of("deploy@1"), owner=owner, metrics=metrics) as worker:
        assert await active(rig) == ["deploy@1"]
        await rig.ended(await rig.add("deploy", [{}], version="1"))

        def health() -> str:
            [loop] = [h for h in worker.supervisor.health() if h.name == "worker.presence"]  # type: ignore[attr-defined]
            assert not loop.essential
            return loop.reason

        await rig.until(lambda: "deploy@2" in health())
        assert metrics.gauge("seawall_stranded_count", "").now() == 1
        assert [r for r in caplog.records if r.levelname == "ERROR" and "no live worker has" in r.message]
        assert metrics.gauge("seawall_alerts_active_count", "", alert="workflow-missing").now() == 1
    async with rig.running(app_of("deploy@1", "deploy@2"), owner=owner):
        await rig.ended(left)


async def test_who_is_not_known_since_it_is_just_registering_does_not_register_twice(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No shard was taken before the second time, a second later: most starts were late by that."""
    unknown, count = asyncio.Event(), 0

    async def looked(*given: Any, **named: Any) -> Any:
        changes = await seen(*given, **named)
        if changes is None:
            unknown.set()
        return changes

    async def slow(*given: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        await unknown.wait()
        return await register(*given, **named)

    monkeypatch.setattr(presence, "seen", looked)
    monkeypatch.setattr(lease, "register", slow)
    async with rig.running(app_of("ours@1")) as worker:
        await rig.until(lambda: len(worker._leases.held()) == 4)
    assert count == 1


async def test_who_the_store_has_forgotten_registers_again(rig: Rig) -> None:
    async with rig.running(app_of("ours@1")):
        await rig.db.execute("delete from worker")
        await rig.until(lambda: rig.db.fetchval("select count(*) = 1 from worker"))


async def test_a_workflow_that_was_removed_collects_no_runs(rig: Rig) -> None:
    owner = uuid.uuid4()
    async with rig.running(app_of("old@1", "kept@1"), owner=owner):
        assert await active(rig) == ["kept@1", "old@1"]
    async with rig.running(app_of("new@1", "kept@1"), owner=owner):
        assert await active(rig) == ["kept@1", "new@1"]
    async with rig.running(app_of("old@1", "kept@1"), owner=owner):  # and it may come back
        assert await active(rig) == ["kept@1", "old@1"]


async def test_while_its_worker_is_away_a_workflow_of_another_app_keeps_its_runs(rig: Rig) -> None:
    """Deactivated, its events would be routed without runs: lost for it, when it comes back."""
    owner = uuid.uuid4()
    await rig.registered(app_of("theirs@1"))
    async with rig.running(app_of("ours@1", "theirs@1"), owner=owner):
        pass
    await rig.db.execute("update worker set seen_at = now() - interval '1 hour' where owner <> $1", owner)
    async with rig.running(app_of("ours@1"), owner=owner):
        assert await active(rig) == ["ours@1", "theirs@1"]


async def test_a_worker_that_is_gone_for_good_keeps_nothing_active(rig: Rig) -> None:
    await rig.registered(app_of("theirs@1"))
    await rig.db.execute("update worker set seen_at = now() - interval '2 days'")
    async with rig.running(app_of("ours@1")):
        await rig.until(lambda: _is(rig, ["ours@1"]))


async def lapsed(store: pool.Store) -> list[str]:
    return [one.name for one in await watch.lapsed(store, timeout_s=5)]


async def forgotten(rig: Rig, owner: uuid.UUID) -> None:
    await rig.db.execute("update worker set seen_at = now() - interval '2 days' where owner = $1", owner)


async def test_what_no_worker_has_for_a_day_has_lapsed_until_one_has_it_again_or_somebody_freezes_it(rig: Rig) -> None:
    """It took no new runs any more, and only a worker's log said so, once."""
    ours, theirs = uuid.uuid4(), uuid.uuid4()
    own, other = [Declared("ours", "1", "x", "default")], [Declared("theirs", "1", "order.*", "default")]
    newer = [Declared("theirs", "2", "order.*", "default")]
    async with (
        pool.Store(pool.Settings(dsn=rig.database.worker_dsn), role="test") as store,
        pool.Store(pool.Settings(dsn=rig.database.dsn), role="test") as owning,
    ):
        await register(store, own, owner=ours, live_s=60)
        for returns in (other, newer):
            await register(store, other, owner=theirs, live_s=60)
            await forgotten(rig, theirs)
            changes = await seen(store, owner=ours, live_s=60)
            assert changes is not None and changes.removed == ("theirs@1",)
            [one] = await watch.lapsed(owning, timeout_s=5)
            assert (one.name, one.pattern) == ("theirs", "order.*")
            await register(store, returns, owner=theirs, live_s=60)
            assert await lapsed(owning) == []
        await forgotten(rig, theirs)
        await seen(store, owner=ours, live_s=60)
        assert await lapsed(owning) == ["theirs"]
        for frozen in (True, False):
            author = Author("ann", SystemClock())
            await version.freeze(owning, "theirs", author, frozen=frozen, timeout_s=5)
            assert await lapsed(owning) == [], "whoever froze it knows"


async def test_what_an_app_leaves_out_has_not_lapsed_and_what_is_frozen_does_not(rig: Rig) -> None:
    ours, theirs = uuid.uuid4(), uuid.uuid4()
    own, frozen = Declared("ours", "1", "x", "default"), Declared("frozen", "1", "x", "default")
    async with (
        pool.Store(pool.Settings(dsn=rig.database.worker_dsn), role="test") as store,
        pool.Store(pool.Settings(dsn=rig.database.dsn), role="test") as owning,
    ):
        await register(store, [own, Declared("out", "1", "x", "default")], owner=ours, live_s=60)
        await register(store, [own], owner=ours, live_s=60)
        await register(store, [frozen], owner=theirs, live_s=60)
        await version.freeze(owning, "frozen", Author("ann", SystemClock()), frozen=True, timeout_s=5)
        await forgotten(rig, theirs)
        await seen(store, owner=ours, live_s=60)
        assert await active(rig) == ["frozen@1", "ours@1"], "its events go on making held runs"
        assert await lapsed(owning) == []


async def test_in_a_rolling_rollback_the_newer_version_goes_with_its_last_worker(rig: Rig) -> None:
    first, second = uuid.uuid4(), uuid.uuid4()
    new, old = [Declared("deploy", "2", "x", "default")], [Declared("deploy", "1", "x", "default")]
    async with pool.Store(pool.Settings(dsn=rig.database.worker_dsn), role="test") as store:
        await register(store, old, owner=first, live_s=60)
        for owner in (first, second):
            await register(store, new, owner=owner, live_s=60)
        assert await active(rig) == ["deploy@2"]
        await register(store, old, owner=first, live_s=60)
        assert await active(rig) == ["deploy@2"], "the second one has it still"
        _, changes = await register(store, old, owner=second, live_s=60)
        assert (await active(rig), changes.chosen) == (["deploy@1"], ("deploy@1",))
        await register(store, new, owner=second, live_s=60)
        await rig.db.execute("update worker set seen_at = now() - interval '61 s' where owner = $1", second)
        changed = await seen(store, owner=first, live_s=60)
        assert changed is not None and changed.chosen == ("deploy@1",)
        assert await active(rig) == ["deploy@1"]


async def test_runs_in_a_queue_that_nobody_serves_are_said(rig: Rig) -> None:
    metrics = Metrics()
    await rig.registered(app_of("lonely@1", queue="side"))
    await rig.add("lonely", [{}], shard=0)
    async with rig.running(app_of("ours@1"), metrics=metrics):
        await rig.until(lambda: metrics.gauge("seawall_stranded_count", "").now() == 1)


async def test_suspects_of_what_nobody_has_are_said_and_start_no_process_in_vain(rig: Rig) -> None:
    metrics = Metrics()
    await rig.registered(app_of("gone@1"))
    await rig.db.execute("update worker set seen_at = now() - interval '1 hour'")
    await rig.add("gone", [{}], shard=-1)
    async with rig.running(app_of("ours@1"), metrics=metrics, solo_command=["false"]):
        await rig.until(lambda: metrics.gauge("seawall_stranded_count", "").now() == 1)
        assert metrics.counter("seawall_solos_started_total", "").value == 0


async def _is(rig: Rig, names: list[str]) -> bool:
    return await active(rig) == names
