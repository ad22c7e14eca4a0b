"""Queues by hand: what is set counts at once and before what an app declares, and is told in the timeline."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from console.test_console import Api, is_problem
from seawall.kernel.allowance import Allowance, Limit
from seawall.testing.postgres import Database


@pytest.fixture
async def queue(database: Database) -> None:
    connection = await asyncpg.connect(database.dsn)
    await connection.execute(
        "insert into queue (name, reserved, slots_max) values ('bulk', 5, 20), ('plain', null, null);"
        "insert into run (id, event_id, workflow_id, tenant, queue_id, shard, vt)"
        " select n, gen_random_uuid(), 1, 't', (select id from queue where name = 'bulk'), n % 4, n from"
        " generate_series(1, 7) n"
    )
    await connection.close()


async def test_queues_are_listed_with_what_is_in_force(it: Api, queue: None) -> None:
    found = {line["name"]: line for line in (await it.get("/v1/queues")).json["items"]}
    assert (found["bulk"]["reserved"], found["bulk"]["max"], found["bulk"]["ready"]) == (5, 20, 7)
    assert (found["plain"]["reserved"], found["plain"]["max"], found["plain"]["ready"]) == (0, None, 0)
    assert not any(line["paused"] or line["by_hand"] for line in found.values())


async def test_what_is_set_by_hand_counts_and_goes_back_to_what_is_declared(it: Api, queue: None) -> None:
    done = await it.call("POST", "/v1/queues/bulk", {"reserved": 8, "max": 9, "why": "more of it"})
    assert done.json == {"name": "bulk", "before": "reserved 5, max 20", "after": "reserved 8, max 9"}
    line = next(line for line in (await it.get("/v1/queues")).json["items"] if line["name"] == "bulk")
    assert (line["reserved"], line["max"], line["by_hand"]) == (8, 9, True)
    back = await it.call("POST", "/v1/queues/bulk", {"reserved": "declared", "max": "declared"})
    assert back.json["after"] == "reserved 5, max 20"


async def test_weights_and_a_depth_are_set_by_hand_each_beside_what_is_declared(
    it: Api, queue: None, database: Database
) -> None:
    connection = await asyncpg.connect(database.dsn)
    await connection.execute('update queue set weights = \'{"acme": 2, "other": 3}\', depth_max = 10')
    done = await it.call("POST", "/v1/queues/bulk", {"weights": {"acme": 4, "new": 5}, "depth_max": 7})
    assert done.json["after"] == "reserved 5, max 20, depth max 7, weight acme 4, weight new 5"
    line = next(line for line in (await it.get("/v1/queues")).json["items"] if line["name"] == "bulk")
    assert line["weights"] == {"acme": 4, "other": 3, "new": 5} and line["depth_max"] == 7
    assert (line["limited"], line["held"]) == (0, 0)
    await it.call("POST", "/v1/queues/bulk", {"weights": {"acme": "declared", "new": "declared"}, "depth_max": 0})
    key = Allowance("deploy", (Limit(1),)).keys("t", None)[0][0]
    await connection.execute(
        "insert into workflow (name, version, pattern, queue_id, active, allowance)"
        " select 'deploy', v, 'x', id, v = '1', '[]' from queue, unnest(array['1', '2']) v where name = 'bulk'"
    )
    await connection.execute("update run set state = 3, keys = array[$1::bytea], line = $1 where id < 4", key)
    await connection.execute(
        "insert into deferred select gen_random_uuid(), 1, 't', id, 0, false, 1, 1 from queue where name = 'bulk'"
    )
    await connection.close()
    line = next(line for line in (await it.get("/v1/queues")).json["items"] if line["name"] == "bulk")
    assert line["weights"] == {"acme": 2, "other": 3} and line["depth_max"] is None
    assert (line["ready"], line["limited"], line["held"]) == (4, 3, 1)


async def test_a_pause_and_its_reason_are_in_the_timeline_once(it: Api, queue: None) -> None:
    for _ in range(2):
        await it.call("POST", "/v1/queues/bulk", {"paused": True, "why": "their API is down"})
    await it.call("POST", "/v1/queues/bulk", {"paused": False})
    found = (await it.get("/v1/changes", kind="queue")).json["items"]
    assert [(one["what"], one["after"], one["why"]) for one in found] == [
        ("bulk", "reserved 5, max 20", ""),
        ("bulk", "reserved 5, max 20, paused", "their API is down"),
    ]


@pytest.mark.parametrize(
    ("name", "wish", "status"),
    [
        ("nobody", {"paused": True}, 404),
        ("bulk", {"max": 4}, 422),  # fewer than it has reserved
        ("bulk", {"max": 0}, 422),
        ("bulk", {"reserved": -1}, 422),
        ("bulk", {"reserved": "many"}, 422),
        ("bulk", {"reserved": True}, 422),
        ("bulk", {"slots": 4}, 422),
        ("bulk", {"depth_max": -1}, 422),
        ("bulk", {"weights": {"acme": 0}}, 422),
        ("bulk", {"weights": {"acme": 1001}}, 422),
        ("bulk", {"weights": {"": 4}}, 422),
        ("bulk", {"why": "x" * 501}, 422),
    ],
)
async def test_what_can_not_be_set_changes_nothing(
    it: Api, queue: None, name: str, wish: dict[str, Any], status: int
) -> None:
    assert is_problem(await it.call("POST", f"/v1/queues/{name}", wish), status)
    line = next(line for line in (await it.get("/v1/queues")).json["items"] if line["name"] == "bulk")
    assert (line["reserved"], line["max"], line["paused"]) == (5, 20, False)


async def test_a_queue_is_throttled_and_let_go_again_and_the_timeline_says_so(it: Api, queue: None) -> None:
    wish = {"rate": 5, "raise_to": 50, "over_s": 600, "why": "after the outage"}
    done = await it.call("POST", "/v1/queues/bulk/throttle", wish)
    assert done.json == {
        "name": "bulk", "before": "no throttle", "after": "5/s, rising to 50/s by 4.5/s a minute",
    }  # fmt: skip
    found = (await it.get("/v1/drains")).json
    (line,) = found["items"]
    assert (line["name"], line["queue"], line["rate"], line["floor"], line["goal"]) == (
        "queue:bulk",
        "bulk",
        5,
        0.5,
        50,
    )
    assert found["governor"]["led"] is False
    await it.call("POST", "/v1/queues/bulk/throttle", {})
    assert (await it.get("/v1/drains")).json["items"] == []
    told = (await it.get("/v1/changes", kind="throttle")).json["items"]
    assert [one["after"] for one in told] == ["no throttle", "5/s, rising to 50/s by 4.5/s a minute"]


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        ({"rate": 0}, "rate is"), ({"rate": 1e9}, "rate is"), ({"raise_to": 5}, "need a rate"),
        ({"rate": 5, "raise_to": 4, "over_s": 60}, "must be more"), ({"rate": 5, "raise_to": 50}, "needs over_s"),
        ({"rate": 5, "over_s": 60}, "give raise_to"), ({"rate": 5, "raise_to": 9, "over_s": 60, "floor": 6}, "floor"),
    ],
)  # fmt: skip
async def test_a_throttle_that_makes_no_sense_is_refused_and_nothing_changes(
    it: Api, queue: None, wish: dict[str, Any], says: str
) -> None:
    answer = await it.call("POST", "/v1/queues/bulk/throttle", wish)
    assert is_problem(answer, 422)
    assert says in answer.json["detail"]
    assert (await it.get("/v1/drains")).json["items"] == []


async def test_who_holds_slots_is_told_and_a_window_that_is_none_is_refused(
    it: Api, queue: None, database: Database
) -> None:
    connection = await asyncpg.connect(database.dsn)
    await connection.execute(
        "insert into slot_use select date_trunc('minute', now()), id, 1, 'acme', 90000000, 3 from queue"
        " where name = 'bulk'"
    )
    await connection.close()
    found = (await it.get("/v1/slots", since="15m")).json
    [line] = found["items"]
    assert (line["name"], line["slots"], line["share"], line["turns"]) == ("bulk", 0.1, 1.0, 3)
    assert (line["seconds_per_turn"], line["slower"], found["then_s"]) == (30.0, None, 900)
    assert [one["name"] for one in (await it.get("/v1/slots", by="tenant")).json["items"]] == ["acme"]
    for since in ("1s", "7h", "soon", "-1m"):
        assert is_problem(await it.get("/v1/slots", since=since), 422)


async def test_alerts_that_are_over_are_listed_from_the_store(it: Api, database: Database) -> None:
    connection = await asyncpg.connect(database.dsn)
    await connection.execute(
        "insert into alert (machine, role, name, labels, summary, unaffected, cure, raised_at, cleared_at)"
        """ values ('m', 'worker', 'old', '{}', 's', '', '', now() - interval '2 days', now()),"""
        """ ('m', 'worker', 'new', '{"queue":"bulk"}', 's', '', '', now() - interval '1 hour', null)"""
    )
    await connection.close()
    [line] = (await it.get("/v1/alerts/history")).json["items"]
    assert (line["name"], line["labels"], line["cleared_at"]) == ("new", {"queue": "bulk"}, None)
    found = (await it.get("/v1/alerts/history", since="7d", limit="1")).json["items"]
    assert [one["name"] for one in found] == ["new"], "the newest first"
    assert is_problem(await it.get("/v1/alerts/history", since="yesterday"), 422)
