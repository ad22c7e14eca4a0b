"""Events as their provider sends them, and steps that are really done, in a folder of the test's."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import github
import pytest

PUSH = {
    "ref": "refs/heads/main", "after": "abc123",
    "repository": {"full_name": "acme/shop", "default_branch": "main"},
    "commits": [{"message": "Pay by card\n\nbody"}, {"message": "chore: tidy"}],
}  # fmt: skip


async def test_a_push_writes_its_notes_once(rehearse: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(github, "NOTES", tmp_path)
    async with rehearse(github.app) as rehearsal:
        event = await rehearsal.send("github.push", PUSH, key="delivery-1")
        again = await rehearsal.send("github.push", PUSH, key="delivery-1")
        run = await rehearsal.run(event)
        assert run.step_names == ["summarise", "write_note"]
        note = json.loads(await asyncio.to_thread(Path(run.result["note"]).read_text))
        assert note["lines"] == ["Pay by card"]
        assert await rehearsal.runs(again) == [], "GitHub sent it twice"


async def test_an_issue_is_answered_at_once(rehearse: Any) -> None:
    async with rehearse(github.app) as rehearsal:
        issue = {"action": "opened", "issue": {"number": 3, "title": "Crash at start", "body": None}}
        event = await rehearsal.send("github.issues", issue)
        assert (await rehearsal.reply(event)).json == {"issue": 3, "label": "bug"}
