"""A runbook beside an ingestion, each in a queue of its own: however slow the ingestion gets, runbooks start at once.

Incidents open a channel, name who leads, page them and write the checklist down; every ten minutes each tenant's audit
log (CloudTrail and the like) is fetched, page by page, from where the last run ended.

    seawall up --app examples/incident.py
    seawall source add pager --kind standard --remember
    seawall send pager --body '{"type": "incident.opened", "id": 7, "title": "Checkout is down", "service": "checkout"}'
    seawall source add acme --kind standard --tenant acme
    seawall cron trigger ingestion --tenant acme       # at once; else within ten minutes

Where the services are, and the secrets (docs/steps.md): `[step]` in seawall.toml, and the variables below.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

from seawall import App, Context, Event, NonRetryable, Retry
from seawall.step import github_issue, http_request, secret, slack_channel

app = App()

PAGER_URL = os.environ.get("PAGER_URL", "https://pager.example.com/v1/pages")
TRAIL_URL = os.environ.get("TRAIL_URL", "https://trail.example.com/v1/events")
REPOSITORY = os.environ.get("INCIDENT_REPOSITORY", "acme/incidents")
KEPT = Path(os.environ.get("TRAIL_FOLDER", Path(tempfile.gettempdir()) / "trail"))
"""Where fetched pages and each tenant's cursor lie."""

ON_CALL = {"checkout": "ann", "search": "bo"}
CHECKLIST = ("Say in the channel what is known", "Look at what changed last", "Tell support", "Write down the times")
PAGES_MAX = 50
"""Of one run: a tenant with more goes on at its next turn, and lets others have theirs."""


@app.workflow(on="incident.opened", queue="runbooks", retry=Retry(attempts=8, first_s=0.5))
async def runbook(event: Event, ctx: Context) -> dict[str, Any]:
    """Open channel, assign, page, checklist. Killed in between, it goes on after what it has done."""
    incident = event.json
    channel = await ctx.step(slack_channel, f"inc-{incident['id']}", token=secret("slack"), topic=incident["title"])
    lead = await ctx.step(assign, incident.get("service", ""))
    ctx.respond({"channel": channel["id"], "lead": lead})
    await ctx.step(
        http_request,
        "POST",
        PAGER_URL,
        json={"who": lead, "what": incident["title"], "channel": channel["name"]},
        headers={"authorization": secret("pager", prefix="Bearer ")},
        idempotency_key=ctx.idempotency_key("page"),  # the pager knows it: two tries are one page
        timeout_s=5,
        retry=Retry(attempts=3, first_s=0.2),
        name="page",
    )
    issue = await ctx.step(
        github_issue,
        REPOSITORY,
        f"Incident {incident['id']}: {incident['title']}",
        body="\n".join(f"- [ ] {line}" for line in CHECKLIST),
        labels=["incident"],
        token=secret("github"),
        idempotency_key=ctx.idempotency_key("checklist"),
        name="checklist",
    )
    return {"channel": channel["id"], "lead": lead, "checklist": issue["url"]}


@app.cron("*/10 * * * *", queue="ingestion", per_tenant=True, retry=Retry(attempts=3), timeout_s=3600)
async def ingestion(event: Event, ctx: Context) -> dict[str, Any]:
    """Each tenant's turn, spread over the ten minutes. One that takes twelve leaves its next turn out."""
    return await turn(event.tenant, ctx)


@app.workflow(on="ingestion.due", queue="ingestion", retry=Retry(attempts=3), timeout_s=540)
async def ingest(event: Event, ctx: Context) -> dict[str, Any]:
    """A turn out of turn."""
    return await turn(event.json["tenant"], ctx)


async def turn(tenant: str, ctx: Context) -> dict[str, Any]:
    """Fetch what is new. Each page is a step, so that one which fails is the only one that is fetched again; its kept
    result is the next cursor, not the page."""
    if not re.fullmatch(r"[a-z0-9-]{1,50}", tenant):
        raise NonRetryable(f"{tenant!r} is no tenant")  # it becomes a file's name
    cursor = await ctx.step(read_cursor, tenant)
    fetched = pages = 0
    while pages < PAGES_MAX:
        page = await ctx.step(fetch_page, tenant, cursor, retry=Retry(attempts=4), timeout_s=30)
        cursor, pages, fetched = page["next"], pages + 1, fetched + page["count"]
        await ctx.step(write_cursor, tenant, cursor)
        if not page["more"]:
            break
    return {"tenant": tenant, "pages": pages, "events": fetched, "cursor": cursor}


async def fetch_page(tenant: str, cursor: str) -> dict[str, Any]:
    """Fetch a page and keep it in a file that its cursor names, so that fetching it twice is keeping it once.

    A step that ships may be called within a step of your own: it is guarded and counted all the same. AWS' own API
    wants its requests signed; what signs them (boto3, say) would be in this place.
    """
    answer = await http_request(
        "GET",
        f"{TRAIL_URL}?tenant={quote(tenant)}&after={quote(cursor)}",
        headers={"authorization": secret("trail", prefix="Bearer ")},
    )
    page = answer["body"]
    if answer["kind"] != "json":
        raise RuntimeError("the trail answered something else than JSON")  # a proxy's page: another try may do
    _replace(KEPT / tenant / f"{quote(page['next'], safe='')}.json", json.dumps(page["events"]))
    return {"next": page["next"], "more": page["more"], "count": len(page["events"])}


def assign(service: str) -> str:
    """Who leads."""
    return ON_CALL.get(service, "duty")


def read_cursor(tenant: str) -> str:
    """Where this tenant's last run ended; "" at its first."""
    path = KEPT / tenant / "cursor"
    return path.read_text() if path.exists() else ""


def write_cursor(tenant: str, cursor: str) -> None:
    """Remember it."""
    _replace(KEPT / tenant / "cursor", cursor)


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    draft.write_text(text)
    draft.replace(path)
