"""Several people act on the same runs at once, while workers come and go: none is lost, or begun twice or too soon."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from seawall import App, Context, Event, Limit
from seawall.kernel.error import Rejected
from seawall.kernel.placement import Placement
from seawall.kernel.selection import of_runs
from seawall.router.bulk import Places
from seawall.store import bulk, cancel, errand, pool, version
from seawall.store.bulk import Act
from seawall.store.change import Author
from seawall.store.pool import Store
from seawall.worker import execution
from worker.rig import CLOCK, Rig
from worker.test_admission import many

AUTHOR = Author("ann", CLOCK, "")
MOST, ACCOUNTS, LONG_S = 2, 6, 10.0


class Ground:
    """What the runs see of each other."""

    def __init__(self) -> None:
        self.under_way: dict[str, int] = {}  # by event: the account
        self.broken: list[object] = []

    def enters(self, event: Event) -> None:
        account = event.json["account"]
        if event.id in self.under_way:
            self.broken.append(f"{event.id} is called while it is under way")
        self.under_way[event.id] = account
        if list(self.under_way.values()).count(account) > MOST:
            self.broken.append(f"more than {MOST} of account {account}")


def app_of(ground: Ground, number: str, queue: str, chance: random.Random) -> App:
    app = App()

    @app.workflow(on="test.deploy", name="deploy", version=number, queue=queue, concurrency=Limit(MOST, key="/account"))
    async def deploy(event: Event, ctx: Context) -> None:
        async def work() -> None:
            await asyncio.sleep(chance.random() * 0.05)

        ground.enters(event)
        try:
            await ctx.step(work, name="first")
            await ctx.sleep(chance.random() * 0.3)
            await ctx.step(work, name="second")
        finally:
            del ground.under_way[event.id]

    return app


class Scene:
    """What goes on until it is enough."""

    def __init__(self, rig: Rig, store: Store, ground: Ground, seed: int) -> None:
        self.rig = rig
        self.store = store
        self.ground = ground
        self.chance = random.Random(seed)
        self.runs: list[int] = []
        self.placement = Placement()
        self.over = asyncio.Event()

    async def again(self, what: Callable[[], Awaitable[object]], every_s: float) -> None:
        while not self.over.is_set():
            with suppress(Rejected):  # others were quicker: there is another count of them now
                await what()
            await asyncio.sleep(every_s)

    async def arrive(self) -> None:
        accounts = [self.chance.randrange(ACCOUNTS) for _ in range(8)]
        self.runs += await many(
            self.rig, accounts, version=self.chance.choice("12"), keyed=self.chance.random() < 0.5
        )  # fmt: skip

    async def act(self) -> None:
        """Somebody holds, releases, cancels, tries again, undoes or moves runs."""
        what = self.chance.choice([*Act, Act.HOLD, Act.RELEASE, "undo", "move", "move"])
        if isinstance(what, Act):
            await self.bulk(what)
        elif what == "undo":
            last = await self.store.value("select max(id) from bulk where undoes is null and act <> 'retry'")
            await bulk.undo(self.store, last or 0, AUTHOR, timeout_s=5)
        else:
            number = self.chance.choice("12")
            await version.move(self.store, self.chance.sample(self.runs[-60:], 8), number, AUTHOR, timeout_s=5)

    async def bulk(self, act: Act) -> int:
        meant = replace(of_runs("workflow=deploy", now_us=CLOCK.wall_us()), states=act.states)
        count, _ = await bulk.counts(self.store, meant, timeout_s=5)
        wish = bulk.Wish(act=act, narrow=meant, text="", expected=count)
        await bulk.make(self.store, wish, AUTHOR, timeout_s=5)
        return count

    async def errand(self) -> None:
        while (piece := await errand.work(self.store, Places(self.placement))) is not None:
            if piece.marked is not None:
                await cancel.settle(self.store, piece.marked, timeout_s=5)

    async def pause(self) -> None:
        queue, paused = self.chance.choice(["default", "other"]), self.chance.random() < 0.3
        await self.store.execute("update queue set paused = $1 where name = $2", paused, queue)

    async def come_and_go(self, app: App) -> None:
        async with self.rig.worker(app):
            with suppress(TimeoutError):
                await asyncio.wait_for(self.over.wait(), 2.0)

    async def go_on(self, *apps: App) -> None:
        acts = [(self.arrive, 0.3), (self.errand, 0.02), (self.pause, 0.4), *[(self.act, 0.03)] * 3]
        tasks = [asyncio.create_task(self.again(what, every_s)) for what, every_s in acts]
        tasks += [asyncio.create_task(self.again(lambda app=app: self.come_and_go(app), 0.0)) for app in apps]
        await asyncio.sleep(LONG_S)
        self.over.set()
        await asyncio.gather(*tasks)

    async def rest(self) -> bool:
        """Let go of what is held; whether nothing is left."""
        await self.errand()
        with suppress(Rejected):
            await self.bulk(Act.RELEASE)
        return await self.store.value("select count(*) from run") == 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
async def test_whatever_people_do_at_once_no_run_is_lost_or_under_way_twice_and_no_limit_is_exceeded(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(execution, "REST_S", 0.02)
    ground = Ground()
    one, two = (app_of(ground, n, queue, random.Random(seed)) for n, queue in (("1", "default"), ("2", "other")))
    async with pool.Store(pool.Settings(dsn=rig.database.dsn), role="test") as store, rig.worker(one), rig.worker(two):
        await rig.until(lambda: rig.db.fetchval("select count(*) = 2 from workflow"))
        scene = Scene(rig, store, ground, seed)
        await scene.arrive()
        await scene.go_on(one, two)
        await store.execute("update queue set paused = false")
        await rig.until(scene.rest, timeout_s=60.0)
    assert not ground.broken
    ended = await rig.db.fetchval("select count(*) from run_done where id = any($1::bigint[])", scene.runs)
    assert ended == len(scene.runs), "nothing is lost"
