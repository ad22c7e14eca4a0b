"""Counting, and asking for an act on many runs: nothing is done to anything but what was counted."""

from __future__ import annotations

from typing import Any

from console.test_console import Api, is_problem
from responder.world import World
from seawall.kernel.cause import Cause
from seawall.kernel.status import RunStatus


async def test_runs_and_events_are_counted_by_what_they_are(it: Api, here: World) -> None:
    events = [await here.event(here.id(), type="github.push", source="gh") for _ in range(4)]
    runs = [await here.run(event) for event in events]
    for run in runs[:2]:
        await here.end(run, status=RunStatus.FAILED, error="no")
    await here.sql.execute("update run_done set cause = $1", Cause.ATTEMPTS)
    found = (await it.get("/v1/runs/count", where="type=github.*, source=gh")).json
    group = {"workflow": "greet", "version": "1", "queue": "default", "status": "queued", "cause": None, "count": 2}
    assert found == {"total": 2, "since": None, "groups": [group], "truncated": False}
    ended = (await it.get("/v1/runs/count", where="state=failed|dead")).json
    assert ended["groups"] == [group | {"status": "failed", "cause": "attempts"}]
    assert ended["since"] is not None, "a day, since nothing else was said"
    assert (await it.get("/v1/runs/count", act="retry")).json["total"] == 2
    assert (await it.get("/v1/runs/count", act="release")).json["total"] == 0
    [one] = (await it.get("/v1/events/count", where="source=gh")).json["groups"]
    assert (one["type"], one["status"], one["count"]) == ("github.push", "routed", 4)
    assert (await it.get("/v1/events/count", where="until=3h")).json["total"] == 0


async def test_an_act_is_asked_for_with_the_count_that_was_seen_and_looked_at_by_its_id(it: Api, here: World) -> None:
    for _ in range(3):
        await here.run(await here.event(here.id()))
    wish = {"act": "hold", "where": "queue=default", "expect_count": 3, "why": "their API is down"}
    assert is_problem(await it.call("POST", "/v1/bulk", {**wish, "expect_count": 2}), 412)
    made = await it.call("POST", "/v1/bulk", wish)
    assert (made.status, made.json["chosen"], made.json["state"]) == (202, 3, "working")
    assert (await it.get(f"/v1/bulk/{made.json['id']}")).json == made.json
    assert (await it.get("/v1/bulk")).json == {"items": [made.json], "next": None}
    assert is_problem(await it.call("POST", f"/v1/bulk/{made.json['id']}/undo", {}), 409)
    [change] = (await it.get("/v1/changes", kind="bulk")).json["items"]
    assert (change["after"], change["why"]) == ("hold 3 runs: queue=default", "their API is down")


REFUSED: list[dict[str, Any]] = [
    {"act": "destroy", "where": "queue=default", "expect_count": 0},
    {"act": "hold", "where": "", "expect_count": 0},
    {"act": "hold", "where": "queue=default"},
    {"act": "hold", "where": "state=failed", "expect_count": 0},
    {"act": "retry", "where": "state=ready", "expect_count": 0},
    {"act": "hold", "where": "colour=red", "expect_count": 0},
    {"act": "hold", "where": "queue=default", "expect_count": 0, "why": "x" * 501},
]


async def test_what_can_not_be_meant_is_refused(it: Api) -> None:
    for wish in REFUSED:
        assert is_problem(await it.call("POST", "/v1/bulk", wish), 422), wish
    assert (await it.get("/v1/bulk")).json["items"] == []
    assert is_problem(await it.get("/v1/bulk/7"), 404)
    assert is_problem(await it.call("POST", "/v1/bulk/7/undo", {}), 404)
