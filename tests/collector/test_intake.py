"""The way of one request to the journal and back."""

from __future__ import annotations

import json
from pathlib import Path

from .rig import client, request, running


async def test_an_event_is_acknowledged_after_it_is_durable(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, client(rig) as c:
        rig.journal.hold()
        await c.send(request("/in/tok/a/b?x=1", b"\x00hello\xff", {"X-Thing": "é", "Authorization": "Bearer s"}))
        await c.send(b"")
        rig.journal.release()
        answer = await c.answer()
        assert answer is not None
        assert answer.status == 202
        [record] = rig.records
        said = json.loads(answer.body)
        assert said == {"id": answer.headers["location"].removeprefix("/in/events/"), "status": "accepted"}
        assert said["id"].replace("-", "") == record.id.hex()
        assert answer.headers["seawall-durability"] == "fsync"
        assert record.body == b"\x00hello\xff"
        assert record.target == "/a/b?x=1"
        assert b"X-Thing\0\xe9" in record.headers
        assert b"Bearer" not in record.headers
