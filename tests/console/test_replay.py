"""Replays are planned without doing anything, begun, and changed by whoever may."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from console.test_console import Api, api, is_problem
from responder.world import World, world
from seawall.kernel.status import EventStatus
from seawall.testing.postgres import Database


@pytest.fixture
async def here(database: Database) -> AsyncIterator[World]:
    async with world(database.dsn) as made:
        await made.workflow()
        yield made


@pytest.fixture
async def it(database: Database, tmp_path: Any, here: World) -> AsyncIterator[Api]:
    async with api(database.dsn, tmp_path) as made:
        yield made


async def test_a_plan_says_what_would_begin_and_begins_nothing(it: Api, here: World) -> None:
    for n in range(3):
        await here.event(here.id(), source="gh", type="github.push" if n else "github.ping")
    await here.event(here.id(), source="gh", status=EventStatus.CONFLICT, reason="k")
    found = (await it.call("POST", "/v1/replays/plan", {"where": "source=gh", "rate": 2, "ramp_s": 0})).json
    assert (found["total"], found["eta_s"], found["since"] is not None) == (3, 2, True)
    assert {(group["type"], group["count"]) for group in found["groups"]} == {("github.push", 2), ("github.ping", 1)}
    assert found["starts"] == [{"workflow": "greet", "version": "1", "queue": "replay.default", "runs": 3}]
    assert (await it.get("/v1/replays")).json["items"] == []


async def test_a_replay_is_begun_looked_at_paused_and_ended(it: Api, here: World) -> None:
    await here.event(here.id())
    made = await it.call("POST", "/v1/replays", {"where": "type=test", "workflow": "greet@1", "why": "they were lost"})
    assert (made.status, made.json["total"], made.json["state"]) == (202, 1, "running")
    assert (made.json["rate"], made.json["rate_now"], made.json["workflow"]) == (50.0, 2.5, "greet@1")
    path = f"/v1/replays/{made.json['id']}"
    paused = await it.call("POST", path, {"state": "paused"})
    assert (paused.json["state"], paused.json["rate_now"], paused.json["eta_s"]) == ("paused", None, None)
    assert (await it.get(path)).json == paused.json
    assert (await it.get("/v1/replays")).json == {"items": [paused.json], "next": None}
    assert (await it.call("POST", path, {"state": "cancelled"})).json["state"] == "cancelled"
    assert is_problem(await it.call("POST", path, {"state": "running"}), 409)
    said = [one["after"] for one in (await it.get("/v1/changes", kind="replay")).json["items"]]
    assert said == ["cancelled, 50/s", "paused, 50/s", "1 events at 50/s: type=test"]


REFUSED: list[dict[str, Any]] = [
    {"where": "queue=default"},
    {"where": "", "rate": 0},
    {"where": "", "rate": 1001},
    {"where": "", "ramp_s": -1},
    {"where": "", "workflow": "nobody"},
    {"where": "", "workflow": "greet@2"},
    {"where": "", "why": "x" * 501},
    {"rate": 5},
]


async def test_what_can_not_be_meant_is_refused(it: Api) -> None:
    for wish in REFUSED:
        assert is_problem(await it.call("POST", "/v1/replays", wish), 422), wish
    assert is_problem(await it.get("/v1/replays/7"), 404)
    assert is_problem(await it.call("POST", "/v1/replays/7", {"state": "paused"}), 404)
    assert is_problem(await it.call("POST", "/v1/replays/7", {"state": "done"}), 422)
