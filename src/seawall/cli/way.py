"""An event's way through the platform, stage by stage."""

from __future__ import annotations

import time
from typing import Any

from seawall.cli.client import Client, part
from seawall.cli.say import NOT_FOUND, TIMED_OUT, Failed, say_table
from seawall.cli.say import say as say_line

FOLLOW_S = 30.0
POLL_S = 0.1
COLUMNS = ("after_ms", "stage", "workflow", "detail", "took_ms")


def read(client: Client, id: str) -> dict[str, Any]:
    """The way as it stands. Raises Failed, 3: the event isn't in the store (yet)."""
    found: dict[str, Any] = client.get(f"/v1/events/{part(id)}/way")
    return found


def follow(client: Client, id: str, *, timeout_s: float = FOLLOW_S) -> dict[str, Any]:
    """The way of an event that was just accepted, once all its runs have ended.

    Raises:
        Failed: 5, they haven't within ``timeout_s``; what is known is in the message.
    """
    latest = time.monotonic() + timeout_s
    while True:
        found: dict[str, Any] | None = None
        try:
            found = read(client, id)
        except Failed as error:
            if error.code != NOT_FOUND:
                raise
        if found is not None and _ended(found):
            return found
        if time.monotonic() > latest:
            stages = ", ".join(s["stage"] for s in found["stages"]) if found else "accepted, not routed"
            raise Failed(TIMED_OUT, f"event {id} isn't finished after {timeout_s:g} s; so far: {stages}")
        time.sleep(POLL_S)


def say(found: dict[str, Any]) -> None:
    """The way as a table for people."""
    say_line(f"event {found['id']} ({found['type']}, from {found['source']}): {found['status']}")
    if found.get("duplicate_of"):
        say_line(f"a duplicate of {found['duplicate_of']}, whose way this is")
    if found.get("reason"):
        say_line(f"because: {found['reason']}")
    say_table(found["stages"], COLUMNS, empty="nothing is known of it")


def _ended(found: dict[str, Any]) -> bool:
    if found["status"] != "routed":
        return True
    stages = found["stages"]
    begun = {stage["run"] for stage in stages if stage["stage"] == "queued"}
    return begun <= {stage["run"] for stage in stages if stage["stage"] == "finished"}
