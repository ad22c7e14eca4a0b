"""Workflows on a repository's webhooks.

    seawall up --app examples/github.py
    seawall source add gh --kind github --setting wait_ms_max=10000 --remember     a URL and a secret to give to GitHub
    seawall send gh --kind github --file examples/request/github-push.http --explain
    seawall send gh --kind github --file examples/request/github-issues.http --wait 5

Each step runs once, also when the process that runs it is killed in between: what ended is not done again.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from seawall import App, Context, Event, NonRetryable, Retry

app = App()

NOTES = Path(os.environ.get("RELEASE_NOTES", Path(tempfile.gettempdir()) / "release-notes"))
"""Where the notes go; one file a delivery, so that writing it twice is writing it once."""


@app.workflow(on="github.push", retry=Retry(attempts=5, first_s=0.5))
async def collect_release_notes(event: Event, ctx: Context) -> dict[str, Any]:
    """On a push to the main branch, write down what people will want to know."""
    push = event.json
    branch = push["ref"].removeprefix("refs/heads/")
    if branch != push["repository"]["default_branch"]:
        return {"skipped": branch}
    lines = await ctx.step(summarise, push["commits"])
    path = await ctx.step(write_note, push["repository"]["full_name"], push["after"], lines)
    return {"note": path, "lines": len(lines)}


@app.workflow(on="github.issues", retry=Retry(attempts=3))
async def triage(event: Event, ctx: Context) -> dict[str, Any]:
    """Say at once who looks at a new issue; a sender that waits (Prefer: wait=5) gets this as the answer."""
    if event.json["action"] != "opened":
        return {"skipped": event.json["action"]}
    issue = event.json["issue"]
    label = await ctx.step(classify, issue["title"], issue.get("body") or "")
    ctx.respond({"issue": issue["number"], "label": label})
    return {"label": label}


@app.workflow(on="github.ping")
async def welcome(event: Event, ctx: Context) -> None:
    """GitHub's first delivery, when a webhook is made."""
    ctx.respond({"zen": event.json["zen"], "events": event.json["hook"]["events"]})


def summarise(commits: list[dict[str, Any]]) -> list[str]:
    """The first line of each commit that is worth a note."""
    firsts = (c["message"].splitlines()[0] for c in commits if c["message"].strip())
    return [line for line in firsts if not line.lower().startswith(("merge ", "chore", "style"))]


def write_note(repository: str, sha: str, lines: list[str]) -> str:
    """Keep the note. A plain function runs in a thread, so it may block."""
    if not sha.isalnum():
        raise NonRetryable(f"{sha!r} is no commit")  # trying again can't help
    NOTES.mkdir(parents=True, exist_ok=True)
    path = NOTES / f"{repository.replace('/', '-')}-{sha[:12]}.json"
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps({"repository": repository, "commit": sha, "lines": lines}, indent=1))
    draft.replace(path)
    return str(path)


def classify(title: str, body: str) -> str:
    """A label by its words."""
    text = f"{title} {body}".lower()
    words = {"crash": "bug", "error": "bug", "traceback": "bug", "slow": "performance", "docs": "documentation"}
    return next((label for word, label in words.items() if word in text), "question")
