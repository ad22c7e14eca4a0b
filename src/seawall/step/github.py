"""``github_issue``: an issue on GitHub, opened once."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, Final, TypedDict, TypeVar

import msgspec

from seawall.step.error import StepRefused
from seawall.step.http import failure, prepared, read_as
from seawall.step.keyring import Secret
from seawall.step.shipped import step
from seawall.step.toolbox import Toolbox
from seawall.step.url import Target, parse

T = TypeVar("T")

TIMEOUT_S: Final = 15.0
ANSWER_BYTES_MAX: Final = 4 << 20
LOOK_BACK: Final = 30
"""Newest issues that are searched for one that an earlier try has opened."""

_REPOSITORY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,38})/[A-Za-z0-9._-]{1,100}")
_KEY = re.compile(r"[A-Za-z0-9_-]{8,100}")


class GitHubIssue(TypedDict):
    """An issue."""

    number: int
    url: str  # for people
    created: bool  # False: an earlier try has opened it


class _Issue(msgspec.Struct):
    number: int
    html_url: str
    body: str | None = None


def service_of(tools: Toolbox, *args: Any, **kwargs: Any) -> str:
    """Host and port of GitHub's API."""
    found = parse(tools.settings.github_url)
    assert isinstance(found, Target)  # checked with the settings
    return found.place


@step("github_issue", version=1, service=service_of)
async def github_issue(
    tools: Toolbox,
    repository: str,
    title: str,
    *,
    token: Secret,
    body: str = "",
    labels: Sequence[str] = (),
    assignees: Sequence[str] = (),
    idempotency_key: str | None = None,
) -> GitHubIssue:
    """Open an issue.

    Args:
        repository: ``owner/name``.
        token: ``secret("github")``, that may write issues.
        idempotency_key: ``ctx.idempotency_key("issue")``. GitHub knows no such key, so it is written into the issue as
            a comment that isn't shown, and looked for in the newest 30 issues first: repeated after a crash, there is
            still one. Costs one more request.

    Raises:
        StepRefused: An argument, or the address.
        StepDeclined: GitHub says that it is wrong (401, 404, 422, …).
        StepUnavailable: GitHub is limiting, in trouble, or away.
    """
    if not isinstance(repository, str) or not _REPOSITORY.fullmatch(repository) or repository.endswith(("/.", "/..")):
        raise StepRefused(f"github_issue: {repository!r} is no owner/name")
    if not isinstance(token, Secret):
        raise StepRefused("github_issue: token=secret(…) is needed: a token doesn't belong into code or events")
    mark = _mark(idempotency_key)
    path = f"/repos/{repository}/issues"
    if mark:
        look = f"{path}?state=all&sort=created&per_page={LOOK_BACK}"
        for issue in await _call(tools, "GET", look, token, kind=list[_Issue]):
            if mark in (issue.body or ""):
                return GitHubIssue(number=issue.number, url=issue.html_url, created=False)
    text = f"{body}\n\n{mark}" if mark else body
    wanted = {"title": title, "body": text, "labels": list(labels), "assignees": list(assignees)}
    made = await _call(tools, "POST", path, token, kind=_Issue, body=_encode(wanted))
    return GitHubIssue(number=made.number, url=made.html_url, created=True)


def _mark(key: str | None) -> str:
    if key is None:
        return ""
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise StepRefused("github_issue: idempotency_key must have 8 to 100 letters, digits, _ and -")
    return f"<!-- seawall:{key} -->"


def _encode(wanted: object) -> bytes:
    try:
        return msgspec.json.encode(wanted)
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise StepRefused(f"github_issue: not all of it is text: {error}") from error


async def _call(tools: Toolbox, method: str, path: str, token: Secret, *, kind: type[T], body: bytes = b"") -> T:
    headers: dict[str, str | Secret] = {
        "authorization": Secret(token.name, prefix="Bearer "),
        "accept": "application/vnd.github+json",
        "x-github-api-version": "2022-11-28",
    }
    if body:
        headers["content-type"] = "application/json"
    url = f"{tools.settings.github_url}{path}"
    asked = await prepared(
        tools, method, url, headers=headers, body=body, timeout_s=TIMEOUT_S, answer_bytes_max=ANSWER_BYTES_MAX
    )
    answer = await tools.send(asked.ask)
    limited = answer.status == 403 and any(
        name == "retry-after" or (name == "x-ratelimit-remaining" and value == "0") for name, value in answer.headers
    )
    if limited:  # GitHub says 403 where others say 429
        answer = dataclasses.replace(answer, status=429)
    if not 200 <= answer.status < 300:
        raise failure(tools, asked.ask, answer)
    return read_as(answer.body, kind, "github")
