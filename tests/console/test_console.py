"""The admin API over real sockets and a real store: what it answers, and what it refuses to be talked into."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

import pytest

from responder.world import World
from seawall.console.ask import by_of
from seawall.console.route import Console
from seawall.console.setting import Settings
from seawall.guard import Heart, Supervisor
from seawall.guard.breaker import Breaker, Limits, State
from seawall.guard.declared import REGISTRY
from seawall.guard.panel import Panel
from seawall.guard.shed import ShedList
from seawall.guard.switchboard import Switchboard
from seawall.journal.filesystem import LocalFilesystem
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import SystemClock
from seawall.kernel.event import id_text
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.change import Change, Kind
from seawall.kernel.status import EventStatus, RunStatus
from seawall.machine.flag import FlagWatch
from seawall.machine.known import KnownFlags
from seawall.store import pool
from seawall.store.change import Author, bring
from seawall.store.source import Sources
from seawall.store.vault import Vault
from seawall.testing.postgres import Database, PostgresServer
from seawall.watch import HealthServer, Vitals
from seawall.watch.fleet import Fleet
from stall import Stopwatch

TOKEN = "a-token-of-the-admin"
NOWHERE = "postgresql://seawall@127.0.0.1:1/seawall"
SECRET = "It's a secret to everybody"


@dataclass(frozen=True)
class Got:
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Noted:
    """A diary in memory."""

    def __init__(self) -> None:
        self.changes: list[Change] = []

    async def note(self, change: Change) -> None:
        self.changes.append(change)

    async def pending(self) -> list[Change]:
        return self.changes


class Api:
    """A console that serves, and a client that says exactly what it is told to."""

    def __init__(self, port: int, console: Console, metrics: Metrics, noted: Noted) -> None:
        self.noted = noted
        self.port = port
        self.console = console
        self.metrics = metrics

    async def raw(self, data: bytes, *, end: bool = False) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            if end:
                writer.write_eof()
            async with asyncio.timeout(10):
                return await reader.read()
        finally:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)

    async def call(
        self, method: str, path: str, body: object = None, *, token: str | None = TOKEN, data: bytes | None = None
    ) -> Got:
        sent = data if data is not None else (json.dumps(body).encode() if body is not None else b"")
        lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {len(sent)}"]
        if token is not None:
            lines.append(f"Authorization: Bearer {token}")
        answer = await self.raw("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + sent)
        head, _, rest = answer.partition(b"\r\n\r\n")
        first, *others = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in others)}
        return Got(int(first.split(" ")[1]), headers, rest)

    async def get(self, path: str, **query: object) -> Got:
        asked = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in query.items())
        return await self.call("GET", path + (f"?{asked}" if asked else ""))


@asynccontextmanager
async def api(dsn: str, tmp_path: Any, settings: Settings | None = None) -> AsyncIterator[Api]:
    listening = socket.create_server(("127.0.0.1", 0))
    metrics, noted = Metrics(), Noted()
    supervisor = Supervisor(metrics)
    store = pool.Settings(dsn=dsn)
    async with pool.Store(store, role="health") as checked:
        shed = ShedList(clock=SystemClock(), metrics=metrics, alerts=Alerts(metrics, SystemClock()))
        fleet = Fleet(
            Vitals(supervisor, metrics, role="console", panel=Panel(shed)),
            {role: tmp_path / f"{role}.sock" for role in ("collector", "router", "worker")},
            checked,
        )
        console = Console(
            settings or Settings(live_s=0.3),
            listening=listening,
            store=store,
            vault=Vault(b"k" * 32),
            token=TOKEN,
            listen=lambda: "http://127.0.0.1:8080",
            health=fleet,
            metrics=metrics,
            shed=shed,
            note=noted.note,
            pending=noted.pending,
        )
        async with console:
            console.register(supervisor)
            async with supervisor:
                async with asyncio.timeout(5):
                    while not supervisor.health()[0].ready:
                        await asyncio.sleep(0.005)
                yield Api(listening.getsockname()[1], console, metrics, noted)


def is_problem(got: Got, status: int) -> bool:
    said = got.json
    assert got.headers["content-type"] == "application/problem+json", got
    return got.status == status and said["status"] == status and bool(said["title"])


# The door


async def test_without_the_token_nothing_is_told(it: Api) -> None:
    for path in ("/v1/events", "/v1/events/x/raw", "/v1/runs", "/v1/workflows", "/v1/sources"):
        for token in (None, "", "wrong", TOKEN + "x", TOKEN[:-1], "é"):
            got = await it.call("GET", path, token=token)
            assert is_problem(got, 401) and got.headers["www-authenticate"] == "Bearer", (path, token)


async def test_every_endpoint_of_the_document_wants_the_token(it: Api) -> None:
    document = (await it.call("GET", "/openapi.json", token=None)).json
    assert document["openapi"] == "3.1.0"
    operations = [(method, path) for path, found in document["paths"].items() for method in found]
    assert len(operations) >= 24
    for method, path in operations:
        got = await it.call(method.upper(), path.replace("{id}", "1").replace("{name}", "n"), token="wrong")
        assert is_problem(got, 401), (method, path)
    text = json.dumps(document)
    for reference in {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}:
        assert reference in document["components"]["schemas"]


async def test_the_token_counts_once_and_only_as_bearer(it: Api) -> None:
    for lines in (
        f"Authorization: Basic {TOKEN}",
        f"Authorization: {TOKEN}",
        f"Authorization: Bearer {TOKEN}\r\nAuthorization: Bearer {TOKEN}",
    ):
        answer = await it.raw(f"GET /v1/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lines}\r\n\r\n".encode())
        assert b" 401 " in answer.split(b"\r\n")[0]


async def test_unknown_paths_and_methods_are_problems_too(it: Api) -> None:
    assert is_problem(await it.get("/v1/nothing"), 404)
    assert is_problem(await it.get("/"), 404)
    got = await it.call("PUT", "/v1/events", {})
    assert is_problem(got, 405) and "GET" in got.headers["allow"]
    assert is_problem(await it.call("POST", "/readyz", {}), 405)


# Events


async def test_events_come_newest_first_in_pages_that_meet(it: Api, here: World) -> None:
    bodies = {id_text(id): body for id, body in ((here.id(), f"body {n}".encode()) for n in range(7))}
    for id, body in bodies.items():
        await here.event(bytes.fromhex(id.replace("-", "")), body=body, key=f"k-{id}", tenant="acme")
    await here.sql.execute("update event set received_at = '2025-01-02T03:04:05.678901Z'")
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = (await it.get("/v1/events", limit=3, **({"cursor": cursor} if cursor else {}))).json
        found += page["items"]
        cursor = page["next"]
        if cursor is None:
            break
    assert [e["id"] for e in found] == sorted(bodies, reverse=True)
    first = found[0]
    assert first == {
        "id": first["id"],
        "source": "s",
        "source_id": str(here.source),
        "type": "test",
        "tenant": "acme",
        "received_at": "2025-01-02T03:04:05.678901Z",
        "status": "routed",
        "cause": None,
        "reason": None,
        "dedupe_key": f"k-{first['id']}",
        "bytes": len(bodies[first["id"]]),
        "body_sha256": hashlib.sha256(bodies[first["id"]]).hexdigest(),
    }


async def test_filters_narrow_and_a_bounded_scan_still_finds_what_is_rare(
    it: Api, here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seawall.store.report.SCAN_ROWS", 4)
    rare = await here.event(here.id(), type="rare", status=EventStatus.HELD, reason="cap")
    for _ in range(10):
        await here.event(here.id(), tenant="acme")
    for narrow in ({"type": "rare"}, {"status": "held"}, {"type": "rare", "source": str(here.source)}):
        pages, found, cursor = 0, [], None
        while True:
            page = (await it.get("/v1/events", **narrow, **({"cursor": cursor} if cursor else {}))).json
            pages, found, cursor = pages + 1, found + page["items"], page["next"]
            if cursor is None:
                break
        assert [e["id"] for e in found] == [id_text(rare)] and pages == 3
    assert len((await it.get("/v1/events", tenant="acme", limit=10)).json["items"]) == 4
    assert (await it.get("/v1/events", source="unknown")).json == {"items": [], "next": None}
    assert (await it.get("/v1/events", type="absent' or 1=1 --", limit=1)).json["items"] == []


async def test_a_limit_beyond_the_maximum_is_capped(it: Api, here: World) -> None:
    async with here.sql.transaction():
        for _ in range(510):
            await here.event(here.id())
    for limit in ("500", "501", "1000000000", "9" * 200):
        page = (await it.get("/v1/events", limit=limit)).json
        assert len(page["items"]) == 500 and page["next"]
        assert len((await it.get("/v1/events", limit=limit, cursor=page["next"])).json["items"]) == 10


async def test_one_event_shows_all_of_it_and_its_exact_bytes(it: Api, here: World) -> None:
    body = bytes(range(256)) * 3 + b'<script>alert("x")</script>'
    event = await here.event(here.id(), body=body, type="<img src=x onerror=alert(1)>", source='"><b>')
    copy = here.id()
    await here.duplicate(copy, event)
    run = await here.run(event)
    await here.reply(event, b"ok", run=run, status=201)
    said = (await it.get(f"/v1/events/{id_text(event)}")).json
    assert (said["id"], said["duplicate_of"], said["bytes"]) == (id_text(event), None, len(body))
    assert said["headers"] == [["content-type", "text/plain"]] and said["journal"]["segment"] == 1
    assert [r["id"] for r in said["runs"]] == [str(run)] and said["runs"][0]["status"] == "queued"
    assert said["reply"]["status"] == 201 and said["reply"]["run"] == str(run)
    assert said["body_sha256"] == hashlib.sha256(body).hexdigest()
    second = (await it.get(f"/v1/events/{id_text(copy)}")).json
    assert (second["id"], second["duplicate_of"]) == (id_text(copy), id_text(event))
    for id in (event, copy):
        got = await it.get(f"/v1/events/{id_text(id)}/raw")
        assert got.body == body and got.headers["content-type"] == "application/octet-stream"
        assert got.headers["x-content-type-options"] == "nosniff" and got.headers["content-disposition"] == "attachment"
        assert "default-src 'none'" in got.headers["content-security-policy"]


async def test_an_unknown_or_malformed_event_id_is_not_found(it: Api) -> None:
    for id in ("x", "0", "0" * 32, "z" * 36, "%00", "..%2f..%2fetc", "1" * 5000, "é"):
        for tail in ("", "/raw", "/way"):
            assert is_problem(await it.get(f"/v1/events/{quote(id, safe='%')}{tail}"), 404), (id, tail)


async def test_the_way_tells_every_stage_in_order_with_times(it: Api, here: World) -> None:
    event = await here.event(here.id())
    run = await here.run(event, workflow=await here.workflow("open_incident"))
    await here.sql.execute(
        "insert into step (run_id, name, nth, result, epoch, started_at, finished_at)"
        " values ($1, 'create', 0, '1', 1, now(), now() + interval '5 ms'), ($1, 'create', 1, '2', 1, now(),"
        " now() + interval '9 ms')",
        run,
    )
    await here.end(run, result=b'{"ok":true}')
    await here.sql.execute("update run_done set finished_at = now() + interval '1 s'")
    await here.reply(event, b"1", run=run)
    said = (await it.get(f"/v1/events/{id_text(event)}/way")).json
    stages = [(s["stage"], s["detail"]) for s in said["stages"]]
    assert stages[:2] == [("received", "2 bytes"), ("routed", "routed")] and stages[-1] == ("finished", "succeeded")
    assert {("step", "create"), ("step", "create #2"), ("replied", "200"), ("started", None)} <= set(stages)
    assert [s["at"] for s in said["stages"]] == sorted(s["at"] for s in said["stages"])
    assert {s["workflow"] for s in said["stages"][2:]} == {"open_incident"} and said["truncated"] is False
    assert all(s["after_ms"] >= 0 for s in said["stages"])


# Runs and workflows


async def test_runs_finished_or_not_are_one_list_with_every_status(it: Api, here: World) -> None:
    event = await here.event(here.id())
    made: dict[str, int] = {}
    workflow = await here.workflow("greet")
    for state, word in ((0, "queued"), (1, "waiting"), (2, "held"), (3, "limited"), (0, "running")):
        made[word] = await here.run(event, workflow=workflow, state=state)
    for status in (RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.DEAD):
        made[status.word] = await here.run(event, workflow=workflow)
        await here.end(made[status.word], status=status, result=b"1", error="why" * 1000)
    await here.sql.execute("insert into shard_lease values (1, 0, gen_random_uuid(), 3, now() + interval '1 minute')")
    await here.sql.execute("insert into refill values (1, 0, 3, 1, $1)", [made["running"], made["waiting"]])
    for query in ({}, {"event": id_text(event)}, {"source": str(here.source)}, {"workflow": "greet"}):
        items = (await it.get("/v1/runs", **query)).json["items"]
        assert {r["id"]: r["status"] for r in items} == {str(id): word for word, id in made.items()}
        assert [int(r["id"]) for r in items] == sorted(made.values(), reverse=True)
    for word, id in made.items():
        for query in ({"status": word}, {"status": word, "event": id_text(event)}):
            assert [r["id"] for r in (await it.get("/v1/runs", **query)).json["items"]] == [str(id)], (word, query)
        one = (await it.get(f"/v1/runs/{id}")).json
        assert (one["status"], one["event"], one["workflow"]) == (word, id_text(event), "greet")
    failed = (await it.get(f"/v1/runs/{made['failed']}")).json
    assert len(failed["error"]) == 3000 and failed["result"] == 1 and failed["steps"] == []
    assert len((await it.get("/v1/runs", status="failed")).json["items"][0]["error"]) == 500
    # The lease is over: its refill row says nothing any more.
    await here.sql.execute("update shard_lease set expires_at = now()")
    assert (await it.get(f"/v1/runs/{made['running']}")).json["status"] == "queued"
    for query in ({"event": id_text(here.id())}, {"workflow": "other"}, {"source": "other"}, {"tenant": "other"}):
        assert (await it.get("/v1/runs", **query)).json == {"items": [], "next": None}


async def test_pages_of_runs_meet_also_while_runs_end(it: Api, here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seawall.store.report.SCAN_ROWS", 5)
    event = await here.event(here.id())
    runs = [await here.run(event) for _ in range(20)]
    for run in runs[::3]:
        await here.end(run)
    for query in ({}, {"event": id_text(event)}, {"workflow": "greet"}, {"status": "queued"}):
        found: list[str] = []
        cursor, turn = None, 0
        while True:
            page = (await it.get("/v1/runs", limit=3, **query, **({"cursor": cursor} if cursor else {}))).json
            found += [r["id"] for r in page["items"]]
            cursor, turn = page["next"], turn + 1
            if cursor is None:
                break
        assert len(found) == len(set(found))
        wanted = [r for r in runs if r not in runs[::3]] if "status" in query else runs
        assert found == [str(r) for r in sorted(wanted, reverse=True)]


async def test_a_run_shows_its_steps_and_leaves_large_results_out(it: Api, here: World) -> None:
    run = await here.run(await here.event(here.id()))
    for nth, size in enumerate((1, 5000)):
        await here.sql.execute(
            "insert into step (run_id, name, nth, result, epoch, started_at) values ($1, 'load', $2, $3, 1, now())",
            run, nth, b'"' + b"x" * size + b'"',
        )  # fmt: skip
    steps = (await it.get(f"/v1/runs/{run}")).json["steps"]
    assert [(s["name"], s["nth"], s["bytes"], s["result"]) for s in steps] == [
        ("load", 0, 3, "x"), ("load", 1, 5002, None),
    ]  # fmt: skip
    for id in ("0", "x", "-1", "9" * 30, "1.0", "٣"):
        assert is_problem(await it.get(f"/v1/runs/{quote(id)}"), 404)


async def test_workflows_are_listed(it: Api, here: World) -> None:
    await here.workflow("greet")
    [one] = (await it.get("/v1/workflows")).json["items"]
    assert (one["name"], one["version"], one["on"], one["queue"], one["active"]) == ("greet", "1", "*", "default", True)


# Bad questions


BAD_QUERIES = (
    "limit=0", "limit=-1", "limit=1.5", "limit=", "limit=x", "limit=000", "limit=%D9%A3", "limit=1&limit=2",
    "cursor=x", "cursor=", "cursor=%00", "cursor=AAAA", "cursor=%F0%9F%98%80", "colour=red", "status=open",
    "status=ROUTED", "type=%00", "type=" + "x" * 201, "tenant=%00", "<script>=1", "limit=1&unknown=1",
)  # fmt: skip


async def test_a_bad_query_is_refused_with_what_is_allowed(it: Api) -> None:
    for query in BAD_QUERIES:
        for path in ("/v1/events", "/v1/runs"):
            got = await it.call("GET", f"{path}?{query}")
            assert is_problem(got, 422) and got.json["detail"], (path, query)
        if "unknown" in query or "colour" in query:
            assert "limit, cursor" in got.json["detail"]


async def test_a_cursor_of_another_list_is_refused(it: Api, here: World) -> None:
    for _ in range(2):
        await here.run(await here.event(here.id()))
    cursor = (await it.get("/v1/events", limit=1)).json["next"]
    assert is_problem(await it.get("/v1/runs", cursor=cursor), 422)
    cursor = (await it.get("/v1/runs", limit=1)).json["next"]
    assert is_problem(await it.get("/v1/events", cursor=cursor), 422)
    assert is_problem(await it.get("/v1/runs", event="x"), 422)
    assert is_problem(await it.get("/v1/runs", event=id_text(here.id()), tenant="t"), 422)
    assert is_problem(await it.get("/v1/workflows", limit=1), 422)


BAD_SOURCES = (
    (b"", 400),
    (b"{", 400),
    (b"\xff\xfe", 400),
    (b"[" * 5000, 422),
    (b"[]", 422),
    (b"null", 422),
    (b"{}", 422),
    (b'{"name":"a"}', 422),
    (b'{"name":1,"kind":"none"}', 422),
    (b'{"name":"a","kind":"none","id":"mine"}', 422),
    (b'{"name":"a","kind":"none","tenant_id":"x"}', 422),
    (b'{"name":"a","kind":"nonsense"}', 422),
    (b'{"name":"","kind":"none"}', 422),
    (b'{"name":"<script>","kind":"none"}', 422),
    (b'{"name":"a/../b","kind":"none"}', 422),
    (b'{"name":"a\\u0000","kind":"none"}', 422),
    (b'{"name":"a","kind":"none","tenant":"' + b"x" * 101 + b'"}', 422),
    (b'{"name":"a","kind":"github"}', 422),
    (b'{"name":"a","kind":"none","settings":{"colour":1}}', 422),
    (b'{"name":"a","kind":"none","settings":{"wait_ms_max":99999999}}', 422),
    (b'{"name":"' + b"x" * 70_000 + b'","kind":"none"}', 413),
)


async def test_a_bad_source_is_refused_and_nothing_is_made(it: Api) -> None:
    for data, status in BAD_SOURCES:
        assert is_problem(await it.call("POST", "/v1/sources", data=data), status), data
    assert (await it.get("/v1/sources")).json["items"] == []


async def test_a_body_that_nobody_asked_for_is_refused(it: Api) -> None:
    assert is_problem(await it.call("GET", "/v1/events", {"limit": 1}), 422)


# Sources


@asynccontextmanager
async def collector(dsn: str, name: str = "c1", *, behind: bool = False) -> AsyncIterator[None]:
    """Says that a collector lives, and works with the newest version (or stays behind)."""
    async with pool.Store(pool.Settings(dsn=dsn), role="test") as store:
        sources = Sources(store, Vault(b"k" * 32))

        async def live() -> None:
            while True:
                await sources.seen(name, 0 if behind else (await sources.edition(timeout_s=2)).version, timeout_s=2)
                await asyncio.sleep(0.02)

        task = asyncio.create_task(live())
        try:
            async with asyncio.timeout(5):
                while not (await sources.live_collectors(0)).live:
                    await asyncio.sleep(0.005)
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])


async def test_a_source_lives_from_add_to_remove(patient: Api, database: Database, here: World) -> None:
    it = patient
    async with collector(database.dsn):
        got = await it.call("POST", "/v1/sources", {"name": "gh", "kind": "github", "secret": SECRET})
        made = got.json
        assert got.status == 201 and made["live"] is True and made["missing"] == []
        assert made["url"] == f"http://127.0.0.1:8080/in/{made['token']}" and len(made["token"]) >= 22
        assert is_problem(await it.call("POST", "/v1/sources", {"name": "gh", "kind": "none"}), 409)
        [listed] = (await it.get("/v1/sources")).json["items"]
        assert (listed["id"], listed["name"], listed["kind"], listed["key_ids"]) == (made["id"], "gh", "github", [1])
        assert made["token"] not in json.dumps(listed) and SECRET not in json.dumps(listed)

        assert is_problem(await it.call("POST", "/v1/sources/gh/rotate", {"secret": ""}), 422)
        assert is_problem(await it.call("POST", "/v1/sources/no/rotate", {"secret": SECRET}), 404)
        assert is_problem(await it.call("POST", "/v1/sources/gh/revoke", {"key_id": 1}), 409)
        rotated = (await it.call("POST", "/v1/sources/gh/rotate", {"secret": SECRET + "2"})).json
        assert rotated == {"name": "gh", "live": True, "missing": [], "key_id": 2}
        assert (await it.call("POST", "/v1/sources/gh/revoke", {"key_id": 1})).json["live"] is True
        assert (await it.get("/v1/sources")).json["items"][0]["key_ids"] == [2]
        for key_id in (1, 7, 0, -1, 2**63):
            got = await it.call("POST", "/v1/sources/gh/revoke", {"key_id": key_id})
            assert is_problem(got, 404) or got.status == 422

        assert (await it.call("DELETE", "/v1/sources/gh")).json["live"] is True
        assert is_problem(await it.call("DELETE", "/v1/sources/gh"), 404)
        assert (await it.get("/v1/sources")).json == {"items": [], "next": None}
        for odd in ("%00", "a%0Ab", "%3Cscript%3E", "x" * 101):
            assert is_problem(await it.call("DELETE", f"/v1/sources/{odd}"), 404)


async def test_a_source_may_be_ordered_and_says_so(it: Api) -> None:
    wish = {"name": "ledger", "kind": "none", "settings": {"ordered": True}}
    assert (await it.call("POST", "/v1/sources", wish)).status == 201
    assert (await it.get("/v1/sources")).json["items"][0]["settings"] == {"ordered": True}
    odd = {"name": "other", "kind": "none", "settings": {"ordered": "yes"}}
    assert is_problem(await it.call("POST", "/v1/sources", odd), 422)


async def test_sources_come_by_name_in_pages_that_meet(it: Api) -> None:
    names = [f"s{n}" for n in range(5)]
    for name in names:
        assert (await it.call("POST", "/v1/sources", {"name": name, "kind": "none"})).status == 201
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = (await it.get("/v1/sources", limit=2, **({"cursor": cursor} if cursor else {}))).json
        found += [s["name"] for s in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert found == names


async def test_a_collector_that_lags_is_named_and_without_any_a_source_is_not_live(
    it: Api, database: Database, tmp_path: Any
) -> None:
    alone = (await it.call("POST", "/v1/sources", {"name": "a", "kind": "none"})).json
    assert alone["live"] is False and alone["missing"] == []
    async with (
        api(database.dsn, tmp_path, Settings(live_s=1.2)) as it,
        collector(database.dsn),
        collector(database.dsn, "c2", behind=True),
    ):
        made = (await it.call("POST", "/v1/sources", {"name": "b", "kind": "none"})).json
        assert made["live"] is False and made["missing"] == ["c2"]


# Trouble


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """It takes less, without what the machine took."""
    watch = Stopwatch()
    async with asyncio.timeout(10 * seconds):
        yield
    assert watch.s < seconds


async def test_with_the_store_away_the_answer_is_503_in_time(tmp_path: Any) -> None:
    async with api(NOWHERE, tmp_path) as it:
        for method, path, body in (
            ("GET", "/v1/events", None),
            ("GET", "/v1/runs/1", None),
            ("POST", "/v1/sources", {"name": "a", "kind": "none"}),
        ):
            async with within(3):
                got = await it.call(method, path, body)
            assert is_problem(got, 503) and int(got.headers["retry-after"]) >= 1
            assert b"Traceback" not in got.body
        assert (await it.call("GET", "/livez", token=None)).status == 200
        got = await it.call("GET", "/readyz", token=None)
        assert got.status == 503 and "store" in got.json["reason"]


async def test_a_hung_store_is_503_within_three_seconds(server: PostgresServer, tmp_path: Any) -> None:
    async with api(server.dsn(database="seawall"), tmp_path) as it:
        assert (await it.get("/v1/events")).status == 200
        server.hang()
        try:
            async with within(3):
                assert is_problem(await it.get("/v1/events"), 503)
            async with within(3):
                got = await it.call("GET", "/readyz", token=None)
            assert got.status == 503 and not got.json["store"]["ready"]
        finally:
            server.resume()
        assert (await it.get("/v1/events")).status == 200


async def test_a_fault_of_ours_is_a_problem_without_a_traceback(
    it: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("seawall.store.version.lines", None)
    got = await it.get("/v1/workflows")
    assert is_problem(got, 500) and b"Traceback" not in got.body and b"NoneType" not in got.body
    assert any(record.exc_info for record in caplog.records)


async def test_silent_slow_and_strange_connections_end_and_harm_nobody(database: Database, tmp_path: Any) -> None:
    async with api(database.dsn, tmp_path, Settings(request_s=0.5, connections_max=4)) as it:
        async with within(3):
            assert (await it.raw(b"")).startswith(b"HTTP/1.1 408 ")
            assert (await it.raw(b"GET /v1/events HT")).startswith(b"HTTP/1.1 408 ")
        head = f"POST /v1/sources HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 9\r\n\r\n"
        async with within(3):
            assert await it.raw(head.encode() + b"{") == b""
            for strange in (
                b"\x16\x03\x01\x00",
                b"GET /\r\n\r\n",
                b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n",
                b"A" * 70_000,
            ):
                assert b" 400 " in (await it.raw(strange + b"\r\n\r\n")).split(b"\r\n")[0]
        idle = [await asyncio.open_connection("127.0.0.1", it.port) for _ in range(4)]
        assert (await it.raw(b"")).startswith(b"HTTP/1.1 503 ")
        for _, writer in idle:
            writer.close()
            await writer.wait_closed()
        assert (await it.get("/v1/events")).status == 200


async def test_two_requests_on_one_connection_are_both_answered(it: Api) -> None:
    one = f"GET /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
    answer = await it.raw((one + "\r\n" + one + "Connection: close\r\n\r\n").encode())
    assert answer.count(b"HTTP/1.1 200") == 2


async def test_draining_answers_what_is_in_hand_and_takes_no_more(it: Api, database: Database, here: World) -> None:
    async with collector(database.dsn, behind=True):  # the request waits for it
        slow = asyncio.create_task(it.call("POST", "/v1/sources", {"name": "a", "kind": "none"}))
        async with asyncio.timeout(10):
            while not await here.sql.fetchval("select count(*) from source"):
                await asyncio.sleep(0.005)
        await it.console.drain(asyncio.Event())
        assert (await slow).status == 201
    with pytest.raises(OSError):
        await it.raw(b"")


# Health of the whole


async def test_the_whole_is_ready_when_every_role_and_the_store_are(it: Api, tmp_path: Any, here: World) -> None:
    async def steady(heart: Heart) -> None:
        while True:
            await heart.beat()
            await asyncio.sleep(0.02)

    got = await it.call("GET", "/readyz", token=None)
    assert got.status == 503 and "collector: not running" in got.json["reason"]
    servers = []
    for role in ("collector", "router", "worker"):
        metrics = Metrics()
        metrics.counter("seawall_loop_restarts_total", "Restarts.", loop="x").value += 1
        supervisor = Supervisor(metrics)
        supervisor.add("loop", steady)
        servers += [supervisor, HealthServer(supervisor, metrics, role=role, unix_path=tmp_path / f"{role}.sock")]
    for one in servers:
        await one.__aenter__()
    async with asyncio.timeout(5):
        while (got := await it.call("GET", "/readyz", token=None)).status != 200:
            await asyncio.sleep(0.02)
    assert [r["role"] for r in got.json["roles"]] == ["collector", "router", "worker", "console"]
    text = (await it.call("GET", "/metrics", token=None)).body.decode()
    assert text.count('seawall_loop_restarts_total{loop="x"') == 3 and 'role="console"' in text
    assert text.count("# TYPE seawall_loop_last_progress_seconds gauge") == 1
    status = (await it.call("GET", "/statusz", token=None)).body.decode()
    assert all(f"{role}: ready" in status for role in ("collector", "router", "worker", "console", "store"))
    await servers[-1].close()
    got = await it.call("GET", "/readyz", token=None)
    assert got.status == 503 and got.json["reason"].startswith("worker: not running")
    for one in reversed(servers):
        await one.__aexit__(None, None, None)


async def test_alerts_and_breakers_of_all_roles_are_told_and_a_hand_reaches_them(it: Api, tmp_path: Any) -> None:
    metrics, clock = Metrics(), SystemClock()
    alerts, panel = Alerts(metrics, clock), Panel()
    breaker = Breaker("redis", Limits(), clock=clock, rng=random.Random(1))
    panel.add(breaker, without="limits are local")
    alerts.raised("breaker-open", "redis is away", cure="seawall breakers list", breaker="redis")
    path = tmp_path / "collector.sock"
    server = HealthServer(
        Supervisor(metrics), metrics, role="collector", unix_path=path, alerts=alerts, panel=panel
    )  # fmt: skip
    async with server:
        got = await it.get("/v1/alerts")
        assert [(a["name"], a["role"], a["labels"]) for a in got.json["items"]] == [
            ("breaker-open", "collector", {"breaker": "redis"})
        ]
        assert got.json["unasked"] == ["router", "worker"]
        moved = await it.call("POST", "/v1/breakers/redis", data=b'{"state":"open"}')
        assert moved.json == {"roles": ["collector"], "unasked": ["router", "worker"]}
        assert breaker.state is State.FORCED_OPEN
        [line] = (await it.get("/v1/breakers")).json["items"]
        assert (line["role"], line["state"], line["without"]) == ("collector", "forced_open", "limits are local")
        for target, body, status in (
            ("/v1/breakers/redis", b'{"state":"ajar"}', 422),
            ("/v1/breakers/..%2fx", b'{"state":"open"}', 404),
            ("/v1/breakers/redis", b"{}", 422),
        ):
            assert (await it.call("POST", target, data=body)).status == status
        assert (await it.call("POST", "/v1/breakers/redis", data=b'{"state":"auto"}', token=None)).status == 401
        step = Breaker("http_request:[2606:4700::1]:443", Limits(), clock=clock, rng=random.Random(1))
        panel.add(step, without="runs are tried again")
        target = "/v1/breakers/http_request%3A%5B2606%3A4700%3A%3A1%5D%3A443"  # as the command line writes it
        assert (await it.call("POST", target, data=b'{"state":"open"}')).json["roles"] == ["collector"]
        assert step.state is State.FORCED_OPEN


async def test_optional_work_of_all_roles_is_told_and_a_hand_reaches_also_our_own(it: Api, tmp_path: Any) -> None:
    metrics, clock = Metrics(), SystemClock()
    shed = ShedList(clock=clock, metrics=metrics, alerts=Alerts(metrics, clock))
    work = shed.add("look-ups", rank=50, without="answers 202", eases=("loop-lag",))
    path = tmp_path / "collector.sock"
    async with HealthServer(
        Supervisor(metrics), metrics, role="collector", unix_path=path, panel=Panel(shed)
    ):  # fmt: skip
        moved = await it.call("POST", "/v1/shed/look-ups", data=b'{"state":"off"}')
        assert moved.json == {"roles": ["collector"], "unasked": ["router", "worker"]}
        assert not work.on
        moved = await it.call("POST", "/v1/shed/checksums", data=b'{"state":"off"}')
        assert moved.json["roles"] == ["console"]
        got = await it.get("/v1/shed")
        assert [(w["role"], w["name"], w["on"], w["why"]) for w in got.json["items"]] == [
            ("console", "checksums", False, "by hand"), ("collector", "look-ups", False, "by hand"),
        ]  # fmt: skip
        for target, body, status in (
            ("/v1/shed/look-ups", b'{"state":"ajar"}', 422),
            ("/v1/shed/..%2fx", b'{"state":"off"}', 404),
            ("/v1/shed/look-ups", b"{}", 422),
        ):
            assert (await it.call("POST", target, data=body)).status == status
        assert (await it.call("POST", "/v1/shed/look-ups", data=b'{"state":"auto"}', token=None)).status == 401


async def test_without_checksums_lists_of_events_say_null_and_an_event_itself_still_has_its_own(
    it: Api, here: World
) -> None:
    await here.event(here.id(), body=b'{"x": 1}')
    assert (await it.get("/v1/events")).json["items"][0]["body_sha256"]
    await it.call("POST", "/v1/shed/checksums", data=b'{"state":"off"}')
    [line] = (await it.get("/v1/events")).json["items"]
    assert line["body_sha256"] is None
    assert (await it.get(f"/v1/events/{line['id']}")).json["body_sha256"]


# Flags and changes


@asynccontextmanager
async def role_with_flags(it: Api, dsn: str, tmp_path: Any, role: str) -> AsyncIterator[Switchboard]:
    """A role that keeps its flags and tells of them, as roles do."""
    metrics, panel, clock = Metrics(), Panel(), SystemClock()
    supervisor, alerts = Supervisor(metrics), Alerts(metrics, clock)
    board = Switchboard(REGISTRY, role=role, release="1", clock=clock, loop_ready=lambda name: True)
    panel.flags = board.lines
    watch = FlagWatch(
        board, REGISTRY, KnownFlags(tmp_path / "flags", role, LocalFilesystem()), pool.Settings(dsn=dsn), role=role,
        clock=clock, metrics=metrics, alerts=alerts,
    )  # fmt: skip
    health = HealthServer(
        supervisor, metrics, role=role, unix_path=tmp_path / f"{role}.sock", alerts=alerts, panel=panel
    )
    async with watch:
        watch.register(supervisor)
        async with supervisor, health:
            async with asyncio.timeout(5):
                while board.known is None:
                    await asyncio.sleep(0.005)
            yield board


async def test_a_flag_is_previewed_set_live_and_told_with_who_did_it(
    patient: Api, database: Database, tmp_path: Any
) -> None:
    it = patient
    async with role_with_flags(it, database.dsn, tmp_path, "router") as board:
        drained = board.switch("backlog-drain")
        assert drained()
        seen = (await it.call("POST", "/v1/flags/backlog-drain/preview", {"value": "off"})).json
        flip = {"flag": "backlog-drain", "role": "router", "who": "everybody else", "before": "on", "after": "off",
                "held": ""}  # fmt: skip
        assert (seen["version"], seen["before"], seen["after"], seen["flips"]) == (0, "default", "off", [flip])
        assert seen["unasked"] == [] and drained()
        wish = {"value": "off", "why": "the store is slow", "version": seen["version"]}
        done = (await it.call("POST", "/v1/flags/backlog-drain", wish)).json
        assert (done["version"], done["live"], done["missing"]) == (1, True, []) and not drained()
        [item] = [one for one in (await it.get("/v1/flags")).json["items"] if one["name"] == "backlog-drain"]
        assert (item["value"], item["changed_by"], item["why"]) == ("off", "token admin", "the store is slow")
        [role] = item["roles"]
        assert (role["role"], role["value"], role["version"], role["origin"]) == ("router", "off", 1, "store")
        assert role["age_s"] < 5
        again = await it.call("POST", "/v1/flags/backlog-drain", {**wish, "value": "on"})
        assert is_problem(again, 409) and "token admin made it off (the store is slow)" in again.json["detail"]
        history = (await it.get("/v1/flags/backlog-drain/history")).json
        assert [(one["before"], one["after"], one["by"]) for one in history["items"]] == [
            ("default", "off", "token admin")
        ]


async def test_a_flag_that_is_held_says_why_it_does_not_flip(patient: Api, database: Database, tmp_path: Any) -> None:
    it = patient
    async with role_with_flags(it, database.dsn, tmp_path, "router") as board:
        done = (await it.call("POST", "/v1/flags/geo", {"value": "off", "why": "x", "version": 0})).json
        assert done["live"]
        seen = (await it.call("POST", "/v1/flags/geo/preview", {"value": "on"})).json
        [flip] = seen["flips"]
        assert (flip["before"], flip["after"], flip["held"]) == ("off", "off", "countries' data isn't ready")
        await it.call("POST", "/v1/flags/geo", {"value": "on", "why": "x", "version": 1})
        assert board.switch("geo")() is False
        [item] = [one for one in (await it.get("/v1/flags")).json["items"] if one["name"] == "geo"]
        assert (item["value"], item["roles"][0]["value"], item["roles"][0]["wanted"]) == ("on", "off", "on")


async def test_a_flag_whose_role_is_away_is_set_and_not_called_live(it: Api) -> None:
    seen = (await it.call("POST", "/v1/flags/geo/preview", {"value": "off"})).json
    assert (seen["flips"], seen["unasked"]) == ([], ["router"])
    done = (await it.call("POST", "/v1/flags/geo", {"value": "off", "why": "x", "version": 0})).json
    assert (done["live"], done["missing"]) == (False, ["router"])


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v1/flags/goe", {"value": "off", "why": "x", "version": 0}, 404, "'goe' isn't declared; there are backlog"),
        ("/v1/flags/goe/preview", {"value": "off"}, 404, "isn't declared"),
        ("/v1/flags/geo", {"value": "maybe", "why": "x", "version": 0}, 422, "on, off, default; not 'maybe'"),
        ("/v1/flags/geo", {"value": True, "why": "x", "version": 0}, 422, "value"),
        ("/v1/flags/geo", {"value": "off", "why": "x"}, 422, "version"),
        ("/v1/flags/geo", {"value": "off", "version": 0}, 422, "why"),
        ("/v1/flags/geo", {"value": "off", "why": "  ", "version": 0}, 422, "why must say why"),
        ("/v1/flags/geo", {"value": "off", "why": "x" * 501, "version": 0}, 422, "why must say why"),
        ("/v1/flags/geo", {"value": "off", "why": "x", "version": 0, "queue": "a"}, 422, "queue"),
        ("/v1/flags/geo", {"value": "off", "why": "x", "version": 0, "tenant": "a", "source": "b"}, 422, "not both"),
        ("/v1/flags/geo", {"value": "off", "why": "x", "version": 0, "tenant": ""}, 422, "1 to 100"),
        ("/v1/flags/geo", {"value": "off", "why": "x", "version": 0, "tenant": "a\0b"}, 422, "1 to 100"),
        ("/v1/flags/geo", {"value": "off", "why": "x", "version": 0, "tenant": "nobody"}, 404, "no source has tenant"),
        ("/v1/flags/geo/preview", {"value": "off", "source": "nobody"}, 404, "there is no source 'nobody'"),
        ("/v1/flags/backlog-drain", {"value": "off", "why": "x", "version": 0, "tenant": "a"}, 422, "by nothing"),
        ("/v1/flags/geo", {"value": "off", "why": "x", "version": 2**63}, 422, ""),
    ],
)  # fmt: skip
async def test_what_can_not_be_set_is_refused_with_what_can(
    it: Api, path: str, body: dict[str, Any], status: int, said: str
) -> None:
    got = await it.call("POST", path, body)
    if body.get("version") == 2**63:
        assert is_problem(got, 409) or is_problem(got, 422)
        return
    assert is_problem(got, status) and said in got.json["detail"], got.json
    assert all(one["version"] == 0 for one in (await it.get("/v1/flags")).json["items"])


async def test_without_the_store_flags_are_what_the_roles_know_and_can_not_be_set(
    database: Database, tmp_path: Any
) -> None:
    async with api(database.dsn, tmp_path) as it, role_with_flags(it, database.dsn, tmp_path, "router"):
        await it.call("POST", "/v1/flags/geo", {"value": "off", "why": "wrong", "version": 0})
        async with api(NOWHERE, tmp_path) as cut:
            found = (await cut.get("/v1/flags")).json
            [item] = [one for one in found["items"] if one["name"] == "geo"]
            assert (item["value"], item["version"], item["why"]) == ("off", 1, "wrong")
            assert "PostgreSQL" in found["trouble"]
            got = await cut.call("POST", "/v1/flags/geo", {"value": "on", "why": "x", "version": 1})
            assert is_problem(got, 503)
            assert is_problem(await cut.call("POST", "/v1/flags/geo/preview", {"value": "on"}), 503)


async def test_the_timeline_is_read_in_pages_that_meet_with_what_the_store_lacks(it: Api, database: Database) -> None:
    desk = Author("alice", SystemClock())
    stored = [replace(desk.change(Kind.RESTART, f"s{n}", None, None), at_us=n * 1000 + 5_000_000) for n in range(7)]
    await bring(pool.Settings(dsn=database.dsn), stored, timeout_s=2)
    own = [replace(desk.change(Kind.BREAKER, f"o{n}", None, None), at_us=n * 1000 + 5_000_500) for n in range(3)]
    same = [replace(desk.change(Kind.BREAKER, f"t{n}", None, None), at_us=5_000_000) for n in range(3)]
    it.noted.changes += [*own, *same, stored[0]]  # the last one is being merged just now
    found: list[tuple[str, bool]] = []
    cursor = None
    while True:
        more = {"cursor": cursor} if cursor else {}
        page = (await it.get("/v1/changes", limit=2, since="1970-01-01T00:00:00Z", **more)).json
        found += [(one["what"], one["stored"]) for one in page["items"] if one["kind"] in ("restart", "breaker")]
        cursor = page["next"]
        if cursor is None:
            break
    assert [name for name, _ in found if name[0] != "t"] == ["s6", "s5", "s4", "s3", "o2", "s2", "o1", "s1", "o0", "s0"]
    assert sorted(name for name, _ in found if name[0] == "t") == ["t0", "t1", "t2"]
    assert all(stored == (name[0] == "s") for name, stored in found)
    only = (await it.get("/v1/changes", since="1970-01-01T00:00:05.003Z", kind="restart", what="s4")).json["items"]
    assert [one["what"] for one in only] == ["s4"]


async def test_the_timeline_without_the_store_is_this_machines_own(tmp_path: Any) -> None:
    async with api(NOWHERE, tmp_path) as it:
        it.noted.changes.append(Author("alice", SystemClock()).change(Kind.BREAKER, "redis", "closed", "open"))
        found = (await it.get("/v1/changes", since="1m")).json
        assert [(one["what"], one["by"], one["stored"]) for one in found["items"]] == [("redis", "alice", False)]
        assert "PostgreSQL" in found["trouble"] and found["next"] is None
        assert (await it.get("/v1/changes", since="1m", kind="flag")).json["items"] == []


async def test_bad_questions_about_the_timeline_are_refused(it: Api) -> None:
    for query in (
        {"since": "yesterday"}, {"since": "2h30"}, {"since": "-2h"}, {"since": "2026-01-31T12:00:00"},
        {"since": "9999999999d"}, {"kind": "party"}, {"what": "geo"}, {"cursor": "x"}, {"cursor": "AAAAAAAAAAA"},
        {"limit": "0"},
    ):  # fmt: skip
        assert is_problem(await it.get("/v1/changes", **query), 422), query
    for query in ({"since": "999999999d"}, {"since": "0001-01-01T00:00:00Z"}, {"since": "9999-12-31T23:59:59-12:00"},
                  {"cursor": "_" * 21 + "w"}):  # fmt: skip
        got = await it.get("/v1/changes", **query)
        assert got.status in (200, 422), (query, got)


async def test_a_hand_on_a_breaker_is_noted_with_what_it_was(it: Api, tmp_path: Any) -> None:
    metrics, clock, panel = Metrics(), SystemClock(), Panel()
    panel.add(Breaker("redis", Limits(), clock=clock, rng=random.Random(1)), without="…")
    server = HealthServer(
        Supervisor(metrics), metrics, role="collector", unix_path=tmp_path / "collector.sock", panel=panel
    )
    async with server:
        got = await it.call("POST", "/v1/breakers/redis", {"state": "open", "why": "it lies"})
        assert got.status == 200
    [one] = it.noted.changes
    assert (one.kind, one.what, one.before, one.after, one.by, one.why) == (
        Kind.BREAKER, "redis", "closed", "open in collector", "token admin", "it lies",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("claimed", "by"),
    [
        ("alice", "alice (token admin)"),
        ("", "token admin"),
        (" \t ", "token admin"),
        ("a" * 99, f"{'a' * 64} (token admin)"),
        ("al\x9bice", "alice (token admin)"),
    ],
)
def test_who_asks_is_the_token_and_whom_its_holder_names(claimed: str, by: str) -> None:
    assert by_of(claimed) == by
