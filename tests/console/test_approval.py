"""Approvals over the API: listed with their states, decided once, written on the timeline, and without their links."""

from __future__ import annotations

import json

from console.test_console import Api, is_problem
from responder.world import World
from seawall.kernel.status import RunStatus

ASK = (
    "insert into approval (run_id, name, nth, key, question, people, asked_at, expires_at) values"
    " ($1, 'ctx.approval', $2, 1, $3, $4, now() - interval '1 minute', now() + $5 * interval '1 hour') returning id"
)


async def asked(
    here: World, question: str, *, hours: int = 1, people: tuple[str, ...] = (), run: int = 0
) -> tuple[int, int]:
    run = run or await here.run(await here.event(here.id()), state=RunStatus.WAITING)
    nth = await here.sql.fetchval("select count(*) from approval where run_id = $1", run)
    return run, await here.sql.fetchval(ASK, run, nth, question, list(people), hours)


async def test_a_run_is_approved_once_and_who_comes_second_is_told_by_whom(it: Api, here: World) -> None:
    run, id = await asked(here, "deploy?", people=("ana", "ben"))
    [line] = (await it.get("/v1/approvals")).json["items"]
    assert (line["id"], line["run"], line["state"], line["to"]) == (str(id), str(run), "open", ["ana", "ben"])
    assert line["workflow"] == "greet" and line["tenant"] == "default"
    got = await it.call("POST", f"/v1/runs/{run}/approve", {"approved": False, "by": "ana", "comment": "not today"})
    assert got.status == 200
    assert got.json == {"run": str(run), "approval": str(id), "question": "deploy?", "state": "declined", "by": "ana"}
    assert await here.sql.fetchrow("select state, wakes from run where id = $1", run) == (0, 1)
    again = await it.call("POST", f"/v1/runs/{run}/approve", {"approved": True})
    assert is_problem(again, 409) and again.json["detail"].startswith("it was declined by ana (api) at 20")
    assert (await it.get("/v1/approvals")).json["items"] == []
    page = await it.get("/v1/approvals", state="all")
    [line] = page.json["items"]
    assert (line["state"], line["by"], line["via"], line["comment"]) == ("declined", "ana", "api", "not today")
    nonce = await here.sql.fetchval("select nonce from approval")
    assert nonce.hex not in page.body.decode().replace("-", "")
    [change] = (await it.get("/v1/changes", kind="approval")).json["items"]
    assert (change["what"], change["by"], change["after"], change["why"]) == (
        str(run),
        "ana",
        "declined (api)",
        "not today",
    )


async def test_each_request_says_how_it_stands_and_pages_go_on(it: Api, here: World) -> None:
    open_, _ = await asked(here, "open")
    await asked(here, "expired", hours=-1)
    ended, _ = await asked(here, "ended")
    await here.end(ended, status=RunStatus.CANCELLED)
    cancelling, _ = await asked(here, "cancelling")
    await here.sql.execute("update run set state = 9 where id = $1", cancelling)
    states, cursor = [], None
    while True:
        page = (await it.get("/v1/approvals", state="all", limit=3, **({"cursor": cursor} if cursor else {}))).json
        states += [(line["question"], line["state"]) for line in page["items"]]
        if (cursor := page["next"]) is None:
            break
    assert states == [("cancelling", "ended"), ("ended", "ended"), ("expired", "expired"), ("open", "open")]
    assert [line["run"] for line in (await it.get("/v1/approvals")).json["items"]] == [str(open_)]
    for run in (ended, cancelling):
        assert is_problem(await it.call("POST", f"/v1/runs/{run}/approve", {"approved": True}), 409)
    timeline = (await it.get(f"/v1/runs/{open_}")).json["timeline"]
    [wait] = [moment for moment in timeline if moment["what"] == "wait"]
    assert (wait["name"], wait["open"]) == ("ctx.approval", True) and wait["until"]
    kept = (await it.get(f"/v1/runs/{open_}/history")).json["kept"]
    assert [(step["name"], step["result"]) for step in kept] == [("ctx.approval", None)]


async def test_which_one_is_meant_has_to_be_said_and_what_is_no_decision_is_refused(it: Api, here: World) -> None:
    run, _ = await asked(here, "a?")
    _, second = await asked(here, "b?", run=run)
    several = await it.call("POST", f"/v1/runs/{run}/approve", {"approved": True})
    assert is_problem(several, 409) and f"{second} (b?)" in several.json["detail"]
    for body, status in (
        ({"approved": True, "approval": "77"}, 409), ({"approved": "yes"}, 422), ({}, 422),
        ({"approved": True, "by": "x" * 101}, 422), ({"approved": True, "comment": "a\nb"}, 422),
    ):  # fmt: skip
        assert is_problem(await it.call("POST", f"/v1/runs/{run}/approve", body), status), body
    assert is_problem(await it.call("POST", "/v1/runs/12345/approve", {"approved": True}), 404)
    got = await it.call("POST", f"/v1/runs/{run}/approve", {"approved": True, "approval": str(second)})
    assert got.status == 200 and json.loads(got.body)["by"], "who asks, when nobody else is named"
    assert [line["question"] for line in (await it.get("/v1/approvals")).json["items"]] == ["a?"]


async def test_each_of_many_can_be_named(it: Api, here: World) -> None:
    run, first = await asked(here, "the first?")
    for n in range(25):
        await asked(here, f"{n}?", run=run)
    wish = {"approved": True, "approval": str(first)}
    got = await it.call("POST", f"/v1/runs/{run}/approve", wish)
    assert got.status == 200 and got.json["question"] == "the first?"
    for named in ("first", "9" * 30, "-1", "0"):
        assert is_problem(await it.call("POST", f"/v1/runs/{run}/approve", wish | {"approval": named}), 409)
