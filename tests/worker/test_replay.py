"""Whoever serves a queue serves the one beside it, in which replays begin, as soon as it is there."""

from __future__ import annotations

from seawall import App, Context, Event
from worker.rig import Rig


async def test_a_worker_runs_what_comes_in_a_queue_that_was_made_beside_its_own(rig: Rig) -> None:
    app = App()

    @app.workflow(on="*")
    async def greet(event: Event, ctx: Context) -> str:
        return event.id

    async with rig.running(app):
        [first, second] = await rig.add("greet", [1, 2], shard=9, hint=False)  # in a shard that nobody has
        await rig.db.execute(
            "insert into queue (name, beside) select 'replay.default', id from queue where name = 'default';"
            " insert into shard_lease (queue_id, shard) select id, s from queue, generate_series(-1, 3) s"
            " where name = 'replay.default'"
        )
        await rig.db.execute(
            "update run r set queue_id = q.id, shard = 3 from queue q where q.name = 'replay.default'"
            " and r.id = any($1)",
            [first, second],
        )
        await rig.ended([first, second])
