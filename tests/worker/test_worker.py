"""What a workflow's author may rely on."""

from __future__ import annotations

from typing import Any

from seawall import App, Context, Event
from worker.rig import Rig


async def test_two_steps_run_once_and_their_values_are_kept(rig: Rig) -> None:
    app = App()
    calls: list[str] = []

    async def first(n: int) -> dict[str, int]:
        calls.append("first")
        return {"n": n + 1}

    def second(n: int) -> int:
        calls.append("second")
        return n * 2

    @app.workflow(on="test.thing")
    async def double(event: Event, ctx: Context) -> Any:
        one = await ctx.step(first, event.json["n"])
        return await ctx.step(second, one["n"])

    async with rig.worker(app):
        await rig.until(lambda: rig.db.fetchval("select count(*) from workflow"))
        (run,) = await rig.add("double", [{"n": 20}])
        done = await rig.ended([run])
    assert (done[run]["status"], done[run]["result"], done[run]["error"]) == (5, b"42", None)
    assert calls == ["first", "second"]
    steps = await rig.db.fetch("select name, nth, result, failed from step where run_id = $1 order by started_at", run)
    assert [tuple(s) for s in steps] == [("first", 0, b'{"n":21}', False), ("second", 0, b"42", False)]
    assert await rig.db.fetchval("select count(*) from run") == 0
    assert await rig.db.fetchval("select count(*) from refill") == 0
    assert await rig.db.fetchval("select count(*) from shard_lease where owner is not null") == 0
