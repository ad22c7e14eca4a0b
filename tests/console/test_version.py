"""Versions through the API: one wish at a time, told in the timeline, and refused with a reason."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from console.test_console import Api, api, is_problem
from seawall.store import pool
from seawall.store.workflow import Declared, register
from seawall.testing.postgres import Database


@pytest.fixture
async def it(database: Database, tmp_path: Any) -> AsyncIterator[Api]:
    async with pool.Store(pool.Settings(dsn=database.worker_dsn), role="test") as store:
        declared = [Declared("deploy", version, "x.*", "default") for version in ("1", "2")]
        await register(store, declared, owner=uuid4(), live_s=60)
    async with api(database.dsn, tmp_path) as made:
        yield made


async def test_a_version_is_chosen_taken_back_and_frozen(it: Api) -> None:
    wishes: list[tuple[dict[str, Any], str]] = [
        ({"rollback": True, "why": "it pages everybody"}, "version 1, by hand"),
        ({"frozen": True}, "version 1, by hand, frozen"),
        ({"version": "2"}, "version 2, by hand, frozen"),
        ({"automatic": True}, "version 2, frozen"),
        ({"frozen": False}, "version 2"),
    ]
    for wish, after in wishes:
        assert (await it.call("POST", "/v1/workflows/deploy", wish)).json["after"] == after
    newest, older = (await it.get("/v1/workflows")).json["items"]
    assert (newest["version"], newest["active"], newest["live"], newest["held"]) == ("2", True, True, 0)
    assert not (older["active"] or older["by_hand"] or older["frozen"])
    told = (await it.get("/v1/changes?kind=workflow")).json["items"]
    assert [change["after"] for change in told] == [after for _, after in reversed(wishes)]
    assert told[-1]["why"] == "it pages everybody"


@pytest.mark.parametrize(
    ("name", "wish", "status"),
    [
        ("deploy", {}, 422),
        ("deploy", {"rollback": True, "version": "2"}, 422),
        ("deploy", {"version": "9"}, 404),
        ("other", {"automatic": True}, 404),
        ("deploy", {"frozen": True, "why": "x" * 501}, 422),
        ("deploy", {"colour": "red"}, 422),
    ],
)
async def test_a_wish_that_says_nothing_or_too_much_is_refused(
    it: Api, name: str, wish: dict[str, Any], status: int
) -> None:
    assert is_problem(await it.call("POST", f"/v1/workflows/{name}", wish), status)


async def test_runs_that_cannot_be_moved_are_named_with_the_reason(it: Api) -> None:
    found = (await it.call("POST", "/v1/runs/move", {"ids": ["7", "7"], "to_version": "2"})).json
    assert found == {"moved": [], "missed": [{"id": "7", "why": "it has ended, or never was"}]}
    for ids in ([], ["x"], ["-1"], [str(2**63)], [str(n) for n in range(1001)]):
        assert is_problem(await it.call("POST", "/v1/runs/move", {"ids": ids, "to_version": "2"}), 422)
