"""``examples/incident.py`` on a real worker and store, against services of the test's own."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from seawall import App
from seawall.machine.application import load_app
from seawall.testing.postgres import Database
from step.rig import Made, Request, Server, Write, answer, serving, toolbox
from worker.rig import Rig, opened

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "incident.py"
SECRETS = {"slack": "s1", "github": "g1", "pager": "p1", "trail": "t1"}
PAGES = {"": ("c1", ["a", "b"]), "c1": ("c2", ["c"]), "c2": ("c2", [])}


class World:
    """Slack, GitHub, a pager and a trail, at one address."""

    def __init__(self) -> None:
        self.pages_sent: list[str] = []
        self.issues: list[dict[str, Any]] = []
        self.pager_fails = 0
        self.trail_fails = 0

    async def __call__(self, request: Request, write: Write) -> None:
        method, target, _ = request.line.split()
        path = urlsplit(target).path
        if path == "/slack/conversations.create":
            said: Any = {"ok": True, "channel": {"id": "C7", "name": "inc-7"}}
        elif path.startswith("/slack/"):
            said = {"ok": True}
        elif path == "/pager":
            if self.pager_fails:
                self.pager_fails -= 1
                await write(answer(503, retry_after="0"))
                return
            self.pages_sent.append(request.headers["idempotency-key"])
            said = {"status": "queued"}
        elif path == "/trail":
            if self.trail_fails:
                self.trail_fails -= 1
                await write(answer(502))
                return
            after = parse_qs(urlsplit(target).query).get("after", [""])[0]
            following, events = PAGES[after]
            said = {"events": events, "next": following, "more": following != "c2"}
        elif method == "POST":
            self.issues.append({**json.loads(request.body), "number": 1, "html_url": "https://g/1"})
            said = self.issues[-1]
        else:
            said = self.issues
        await write(answer(200, json.dumps(said).encode(), content_type="application/json"))


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def services(world: World) -> AsyncIterator[Server]:
    async with serving(world) as server:
        yield server


@pytest.fixture
async def rig(database: Database) -> AsyncIterator[Rig]:
    async with opened(database) as made:
        yield made


@pytest.fixture
async def tools(services: Server) -> AsyncIterator[Made]:
    async with toolbox(secrets=SECRETS, slack_url=services.url("/slack"), github_url=services.url("")) as made:
        yield made


@pytest.fixture
def app(services: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    monkeypatch.setenv("PAGER_URL", services.url("/pager"))
    monkeypatch.setenv("TRAIL_URL", services.url("/trail"))
    monkeypatch.setenv("TRAIL_FOLDER", str(tmp_path))
    before = list(sys.path)
    yield load_app(str(EXAMPLE))
    sys.path[:] = before
    found: ModuleType | None = sys.modules.pop("seawall_user_app", None)
    assert found is not None


async def test_the_runbook_does_each_of_its_steps_once_through_trouble(
    rig: Rig, app: App, world: World, tools: Made
) -> None:
    world.pager_fails = 4  # more than the step tries by itself: the run is tried again, and its steps aren't
    await rig.registered(app)
    async with rig.worker(app):
        (run,) = await rig.add("runbook", [{"id": 7, "title": "Checkout is down", "service": "checkout"}])
        done = await rig.ended([run])
    assert json.loads(done[run]["result"]) == {"channel": "C7", "lead": "ann", "checklist": "https://g/1"}
    assert len(world.pages_sent) == 1 == len(world.issues)
    assert world.issues[0]["body"].startswith("- [ ] Say in the channel")
    names = await rig.db.fetch("select name from step where run_id = $1 and not failed order by started_at", run)
    assert [row["name"] for row in names] == ["slack_channel@1", "assign", "page", "checklist"]
    kept = await rig.db.fetch("select result from step where run_id = $1", run)
    assert not any(secret.encode() in row["result"] for row in kept for secret in SECRETS.values())
    assert tools.count("seawall_step_failures_total", step="http_request", cause="error") == 4


async def test_the_ingestion_goes_on_where_it_ended(
    rig: Rig, app: App, world: World, tools: Made, tmp_path: Path
) -> None:
    world.trail_fails = 1
    await rig.registered(app)
    async with rig.worker(app):
        (first,) = await rig.add("ingest", [{"tenant": "acme"}])
        done = await rig.ended([first])
        assert json.loads(done[first]["result"]) == {"tenant": "acme", "pages": 2, "events": 3, "cursor": "c2"}
        (second,) = await rig.add("ingest", [{"tenant": "acme"}])
        done = await rig.ended([second])
        assert json.loads(done[second]["result"]) == {"tenant": "acme", "pages": 1, "events": 0, "cursor": "c2"}
        (wrong,) = await rig.add("ingest", [{"tenant": "../etc"}])
        assert (await rig.ended([wrong]))[wrong]["status"] == 6
    assert sorted(path.name for path in (tmp_path / "acme").iterdir()) == ["c1.json", "c2.json", "cursor"]
    queues = {workflow.name: workflow.queue for workflow in app.workflows}
    assert queues == {"runbook": "runbooks", "ingest": "ingestion", "ingestion": "ingestion"}
