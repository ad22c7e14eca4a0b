"""``slack_channel`` and ``github_issue``: what they send, what they make of each answer, and that twice is once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

import pytest

from seawall.step import StepDeclined, StepRefused, StepUnavailable, github_issue, secret, slack_channel
from step.rig import Request, Says, Write, answer, serving, toolbox

SLACK, GITHUB = secret("slack"), secret("github")
SECRETS = {"slack": "xoxb-1", "github": "token-1"}


def slack(**said: Mapping[str, Any] | list[Mapping[str, Any]]) -> Says:
    """Slack: what each method says, in turn when it is a list."""

    async def says(request: Request, write: Write) -> None:
        method = request.line.split()[1].rpartition("/")[2].replace(".", "_")
        found: Any = said[method]
        await write(answer(200, json.dumps(found.pop(0) if isinstance(found, list) else found).encode()))

    return says


MADE = {"ok": True, "channel": {"id": "C1", "name": "inc-1"}}


async def test_a_channel_is_made_with_its_topic_and_its_people() -> None:
    fine = {"ok": True}
    says = slack(conversations_create=MADE, conversations_setTopic=fine, conversations_invite=fine)
    async with serving(says) as server, toolbox(secrets=SECRETS, slack_url=server.url("/api")):
        found = await slack_channel("inc-1", token=SLACK, topic="db down", invite=["U1", "U2"])
    assert found == {"id": "C1", "name": "inc-1", "created": True}
    create, topic, invite = server.requests
    assert (
        create.line == "POST /api/conversations.create HTTP/1.1" and create.headers["authorization"] == "Bearer xoxb-1"
    )
    assert parse_qs(create.body.decode()) == {"name": ["inc-1"], "is_private": ["false"]}
    assert parse_qs(topic.body.decode()) == {"channel": ["C1"], "topic": ["db down"]}
    assert parse_qs(invite.body.decode()) == {"channel": ["C1"], "users": ["U1,U2"]}


async def test_a_channel_that_an_earlier_try_made_is_taken() -> None:
    pages: list[Mapping[str, Any]] = [
        {"ok": True, "channels": [{"id": "C0", "name": "x"}], "response_metadata": {"next_cursor": "n"}},
        {"ok": True, "channels": [{"id": "C7", "name": "inc-1"}]},
    ]
    says = slack(
        conversations_create={"ok": False, "error": "name_taken"}, conversations_list=pages,
        conversations_invite={"ok": False, "error": "already_in_channel"},
    )  # fmt: skip
    async with serving(says) as server, toolbox(secrets=SECRETS, slack_url=server.url("/api")):
        assert await slack_channel("inc-1", token=SLACK, invite=["U1"]) == {
            "id": "C7", "name": "inc-1", "created": False,
        }  # fmt: skip
    assert parse_qs(server.requests[2].body.decode())["cursor"] == ["n"]


@pytest.mark.parametrize(
    ("code", "error"),
    [("invalid_auth", StepDeclined), ("ratelimited", StepUnavailable), ("internal_error", StepUnavailable),
     ("<script>", StepDeclined)],
)  # fmt: skip
async def test_slacks_own_word_says_whether_to_try_again(code: str, error: type[Exception]) -> None:
    says = slack(conversations_create={"ok": False, "error": code})
    async with serving(says) as server, toolbox(secrets=SECRETS, slack_url=server.url("/api")):
        with pytest.raises(error, match="unknown" if "<" in code else code):
            await slack_channel("inc-1", token=SLACK)


async def test_slack_behind_a_proxys_page_is_away() -> None:
    async with serving(answer(200, b"<html>")) as server, toolbox(secrets=SECRETS, slack_url=server.url("/api")):
        with pytest.raises(StepUnavailable, match="isn't what was expected"):
            await slack_channel("inc-1", token=SLACK)


class Issues:
    """A repository's issues."""

    def __init__(self, status: int = 201, **headers: str) -> None:
        self.made: list[dict[str, Any]] = []
        self.status = status
        self.headers = headers

    async def __call__(self, request: Request, write: Write) -> None:
        if request.line.startswith("GET"):
            await write(answer(200, json.dumps(self.made).encode()))
            return
        if self.status == 201:
            number = len(self.made) + 1
            self.made.append({**json.loads(request.body), "number": number, "html_url": f"https://g/{number}"})
        body = json.dumps(self.made[-1] if self.made else {"message": "no"}).encode()
        await write(answer(self.status, body, **self.headers))


async def test_an_issue_is_opened_once_by_its_key() -> None:
    issues = Issues()
    async with serving(issues) as server, toolbox(secrets=SECRETS, github_url=server.url("/api/v3")):
        key = "0123456789abcdef"
        first = await github_issue("acme/site", "Down", token=GITHUB, body="it is", labels=["bug"], idempotency_key=key)
        again = await github_issue("acme/site", "Down", token=GITHUB, body="it is", labels=["bug"], idempotency_key=key)
        other = await github_issue("acme/site", "Down", token=GITHUB)
    assert (first["number"], first["created"], again["number"], again["created"]) == (1, True, 1, False)
    assert other["number"] == 2
    assert issues.made[0]["body"] == f"it is\n\n<!-- seawall:{key} -->" and issues.made[0]["labels"] == ["bug"]
    assert server.requests[1].line == "POST /api/v3/repos/acme/site/issues HTTP/1.1"
    assert server.requests[1].headers["authorization"] == "Bearer token-1"


@pytest.mark.parametrize(
    ("issues", "error"),
    [(Issues(422), StepDeclined), (Issues(403), StepDeclined), (Issues(502), StepUnavailable),
     (Issues(403, x_ratelimit_remaining="0"), StepUnavailable), (Issues(403, retry_after="60"), StepUnavailable)],
)  # fmt: skip
async def test_githubs_status_says_whether_to_try_again(issues: Issues, error: type[Exception]) -> None:
    async with serving(issues) as server, toolbox(secrets=SECRETS, github_url=server.url("")):
        with pytest.raises(error) as caught:
            await github_issue("acme/site", "Down", token=GITHUB)
        assert getattr(caught.value, "retry_after_s", 0.0) == (60.0 if "retry_after" in issues.headers else 0.0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: slack_channel("Not A Name", token=SLACK),
        lambda: slack_channel("x", token="xoxb-plain"),  # type: ignore[arg-type]
        lambda: github_issue("acme", "t", token=GITHUB),
        lambda: github_issue("acme/../x", "t", token=GITHUB),
        lambda: github_issue("acme/..", "t", token=GITHUB),
        lambda: github_issue("acme/x", "t", token="ghp"),  # type: ignore[arg-type]
        lambda: github_issue("acme/x", "t", token=GITHUB, idempotency_key="--> x"),
        lambda: github_issue("acme/x", object(), token=GITHUB),  # type: ignore[arg-type]
    ],
)
async def test_what_makes_no_sense_is_refused_before_anything_is_sent(call: Callable[[], Any]) -> None:
    async with serving() as server, toolbox(secrets=SECRETS, slack_url=server.url(""), github_url=server.url("")):
        with pytest.raises(StepRefused):
            await call()
    assert server.connections == 0
