"""How a user tests workflows: no server, no network, no waiting. ``python -m pytest examples/``"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import incident
import pytest

from seawall.step import github_issue, http_request, slack_channel

OPENED = {"id": 7, "title": "Checkout is down", "service": "checkout"}


async def test_an_incident_gets_a_channel_a_lead_a_page_and_a_checklist(rehearse: Any) -> None:
    async with rehearse(incident.app) as rehearsal:
        channel = rehearsal.replace(slack_channel, result={"id": "C1", "name": "inc-7"})
        page = rehearsal.replace("page", result={"status": 202})
        rehearsal.replace("checklist", result={"url": "https://github.example/1"})
        event = await rehearsal.send("incident.opened", OPENED)
        run = await rehearsal.run(event)
        assert run.result == {"channel": "C1", "lead": "ann", "checklist": "https://github.example/1"}
        assert channel.calls[0][0] == ("inc-7",)
        assert page.calls[0][1]["json"] == {"who": "ann", "what": "Checkout is down", "channel": "inc-7"}
        reply = await rehearsal.reply(event)
        assert reply.json == {"channel": "C1", "lead": "ann"}


async def test_a_pager_that_is_down_is_tried_again_and_the_channel_is_opened_once(rehearse: Any) -> None:
    async with rehearse(incident.app) as rehearsal:
        channel = rehearsal.replace(slack_channel, result={"id": "C1", "name": "inc-7"})
        rehearsal.replace(github_issue, result={"url": ""})
        page = rehearsal.replace("page", error=RuntimeError("503"))
        event = await rehearsal.send("incident.opened", OPENED)
        await rehearsal.advance(2)
        assert len(page.calls) >= 3, "the step's own tries; then the run's"
        rehearsal.replace("page", result={"status": 202})
        run = await rehearsal.ended(event)
        assert (run.status, len(channel.calls)) == ("succeeded", 1)
        assert len({call[1]["idempotency_key"] for call in page.calls}) == 1


async def test_an_ingestion_goes_on_where_the_last_one_ended(
    rehearse: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incident, "KEPT", tmp_path)
    asked: list[str] = []

    async def page(tenant: str, cursor: str) -> dict[str, Any]:
        asked.append(cursor)
        return {"next": f"{cursor}x", "more": len(asked) == 1, "count": 10}

    async with rehearse(incident.app) as rehearsal:
        rehearsal.replace(incident.fetch_page, using=page)
        first = await rehearsal.run(await rehearsal.send("ingestion.due", {"tenant": "acme"}))
        assert first.result == {"tenant": "acme", "pages": 2, "events": 20, "cursor": "xx"}
        rehearsal.replace(http_request, error=AssertionError("the real trail is never asked"))
        await rehearsal.send("ingestion.due", {"tenant": "acme"})
        assert asked == ["", "x", "xx"]
        bad = await rehearsal.run(await rehearsal.send("ingestion.due", {"tenant": "../etc"}))
        assert bad.status == "failed" and bad.attempt == 1
