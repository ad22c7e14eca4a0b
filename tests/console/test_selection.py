"""Lists narrowed by a selection: to exactly what it says."""

from __future__ import annotations

from console.test_console import Api, is_problem
from responder.world import World
from seawall.kernel.cause import Cause
from seawall.kernel.event import id_text
from seawall.kernel.status import EventStatus, RunStatus


async def test_runs_are_those_that_a_selection_means(it: Api, here: World) -> None:
    push = [await here.event(here.id(), type="github.push") for _ in range(3)]
    paid = await here.event(here.id(), type="shop_paid", tenant="acme")
    failed, dead, waiting, ready = [str(await here.run(event)) for event in (*push, paid)]
    await here.end(int(failed), status=RunStatus.FAILED, error="no")
    await here.end(int(dead), status=RunStatus.DEAD, error="killed it")
    await here.sql.execute("update run_done set cause = $2 where id = $1", int(failed), Cause.ATTEMPTS)
    await here.sql.execute("update run_done set cause = $2 where id = $1", int(dead), Cause.KILLED)
    await here.sql.execute("update run set state = 1 where id = $1", int(waiting))
    await here.sql.execute("update run set tenant = 'acme' where id = $1", int(ready))

    async def found(where: str) -> list[str]:
        return [line["id"] for line in (await it.get("/v1/runs", where=where)).json["items"]]

    assert await found("state=failed|dead") == [dead, failed]
    assert await found("cause=killed") == [dead]
    assert await found("type=github.* and state=waiting|ready") == [waiting]
    assert await found('type="shop%paid"') == []
    assert await found("tenant=acme") == [ready]
    assert await found("since=1h, until=30m") == []
    assert await found("since=1h") == [ready, waiting, dead, failed]
    assert await found("workflow=greet|x") == await found("queue=default") == await found("")
    assert await found("queue=nothing") == await found("version=nothing") == await found("source=nothing") == []
    assert (await it.get(f"/v1/runs/{dead}")).json["cause"] == "killed"
    assert is_problem(await it.get("/v1/runs", where="state=gone"), 422)
    assert is_problem(await it.get("/v1/runs", where="state=dead", tenant="acme"), 422)


async def test_events_are_those_that_a_selection_means(it: Api, here: World) -> None:
    dead = id_text(await here.event(here.id(), status=EventStatus.DEAD, reason="version 9"))
    await here.sql.execute("update event set cause = $1", Cause.DECODE)
    push = id_text(await here.event(here.id(), type="github.push", source="gh"))

    async def found(where: str) -> list[str]:
        return [line["id"] for line in (await it.get("/v1/events", where=where)).json["items"]]

    assert await found("cause=decode") == await found("state=dead, since=1h") == [dead]
    assert await found("type=git*push|nothing") == [push]
    assert await found("until=1h") == []
    assert (await it.get(f"/v1/events/{dead}")).json["cause"] == "decode"
    assert is_problem(await it.get("/v1/events", where="queue=default"), 422)
