"""Of a frozen workflow new runs are held, whatever crashes, and begin when it thaws."""

from __future__ import annotations

import asyncio

import asyncpg

from router.rig import CLOCK, Rig, append, record, until
from seawall.store import pool, version
from seawall.store.change import Author
from seawall.store.earlier import LOOK_S
from seawall.store.pool import Store

AUTHOR = Author("ann", CLOCK)


async def freeze(rig: Rig, *, frozen: bool) -> tuple[str, str]:
    async with Store(pool.Settings(dsn=rig.dsn), role="test") as store:
        return await version.freeze(store, "flow", AUTHOR, frozen=frozen, timeout_s=5)


async def states(rig: Rig) -> dict[int, int]:
    rows = await rig.database.fetch("select state, count(*) from run group by 1")
    return {row["state"]: row["count"] for row in rows}


async def test_events_of_a_frozen_workflow_make_held_runs_that_begin_when_it_thaws(rig: Rig) -> None:
    await rig.workflow("order.*")
    await rig.workflow("*", name="other")
    journal = rig.log()
    async with rig.router():
        await append(journal, record())
        await rig.arrived(1)
        assert await freeze(rig, frozen=True) == ("version 1", "version 1, frozen")
        await append(journal, record(), record())
        await rig.arrived(3)
        assert await states(rig) == {0: 4, 2: 2}, "the other workflow's three, and the one from before"
    async with rig.router():  # a router that begins knows it too
        await append(journal, record())
        await rig.arrived(4)
        assert await states(rig) == {0: 5, 2: 3}
        by_hand = await rig.database.fetchval(
            "update run set state = 0 where id = (select min(id) from run where state = 2) returning id"
        )
        assert await freeze(rig, frozen=False) == ("version 1, frozen", "version 1")
        await until(lambda: _is(rig, {0: 8}))
        assert by_hand and await rig.count("run_frozen") == 0
        await append(journal, record())
        await rig.arrived(5)
        assert await states(rig) == {0: 10}


async def test_what_somebody_else_holds_is_not_let_go_by_a_thaw(rig: Rig) -> None:
    await rig.workflow("order.*")
    journal = rig.log()
    async with rig.router():
        await append(journal, record())
        await rig.arrived(1)
        await rig.database.execute("update run set state = 2")
        await freeze(rig, frozen=True)
        await append(journal, record())
        await rig.arrived(2)
        await freeze(rig, frozen=False)
        await until(lambda: _is(rig, {0: 1, 2: 1}))


async def test_freezing_waits_for_a_batch_that_does_not_know_yet(rig: Rig) -> None:
    """Forced order: the batch has its lock, and has read that nothing is frozen."""
    await rig.workflow("order.*")
    batch = await asyncpg.connect(rig.dsn)
    await batch.execute("begin; lock table log_position in row exclusive mode")
    freezing = asyncio.create_task(freeze(rig, frozen=True))
    await until(lambda: rig.database.fetchval("select frozen from workflow"))
    await asyncio.sleep(3 * LOOK_S)  # it looks again and again, and the batch is still there
    assert not freezing.done()
    await batch.execute("commit")
    await freezing
    await batch.close()


async def _is(rig: Rig, expected: dict[int, int]) -> bool:
    return await states(rig) == expected
