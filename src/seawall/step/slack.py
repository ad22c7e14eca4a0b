"""``slack_channel``: a channel of Slack, made once."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any, Final, TypedDict
from urllib.parse import urlencode

import msgspec

from seawall.guard.breaker import Cause
from seawall.step.error import StepDeclined, StepRefused, StepUnavailable
from seawall.step.http import failure, prepared, read_as
from seawall.step.keyring import Secret
from seawall.step.shipped import step
from seawall.step.toolbox import Toolbox
from seawall.step.url import Target, parse

TIMEOUT_S: Final = 10.0
ANSWER_BYTES_MAX: Final = 4 << 20
PAGES_MAX: Final = 20
PAGE_ROWS: Final = 1000
"""Channels in a page of the list, Slack's most: 20,000 are searched for one of a taken name."""

LATER: Final = frozenset(
    {"ratelimited", "internal_error", "fatal_error", "service_unavailable", "request_timeout", "team_added_to_org"}
)
"""Slack's own words for what may work another time; all others are mistakes."""

_NAME = re.compile(r"[a-z0-9_-]{1,80}")
_CODE = re.compile(r"[a-z0-9_]{1,60}")


class SlackChannel(TypedDict):
    """A channel."""

    id: str
    name: str
    created: bool  # False: it was there already


class _Channel(msgspec.Struct):
    id: str
    name: str = ""


class _Next(msgspec.Struct):
    next_cursor: str = ""


class _Said(msgspec.Struct):
    """What we read of Slack's answers, whichever method was called."""

    ok: bool
    error: str = ""
    channel: _Channel | None = None
    channels: list[_Channel] = []
    response_metadata: _Next = msgspec.field(default_factory=_Next)


def service_of(tools: Toolbox, *args: Any, **kwargs: Any) -> str:
    """Host and port of Slack's API."""
    found = parse(tools.settings.slack_url)
    assert isinstance(found, Target)  # checked with the settings
    return found.place


@step("slack_channel", version=1, service=service_of)
async def slack_channel(
    tools: Toolbox,
    name: str,
    *,
    token: Secret,
    private: bool = False,
    topic: str = "",
    invite: Sequence[str] = (),
) -> SlackChannel:
    """Make a channel, or take the one of this name that is there: repeated after a crash, there is still one.

    Args:
        name: a-z, 0-9, - and _, at most 80 characters.
        token: A bot's: ``secret("slack")``, with the scopes channels:manage and channels:read (groups:… for private).
        topic: Set each time, when it isn't empty.
        invite: Ids of users. Those who are in it already stay.

    Raises:
        StepRefused: An argument, or the address.
        StepDeclined: Slack says so; ``code`` is its word for it, as ``invalid_auth``.
        StepUnavailable: Slack is limiting, in trouble, or away.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise StepRefused(f"slack_channel: {name!r} is no name of a channel: a-z, 0-9, - and _, 1 to 80 of them")
    if not isinstance(token, Secret):
        raise StepRefused("slack_channel: token=secret(…) is needed: a token doesn't belong into code or events")
    slack = _Slack(tools, token)
    try:
        made = (await slack.call("conversations.create", name=name, is_private=str(private).lower())).channel
        if made is None:
            raise StepUnavailable("slack conversations.create: no channel came back", cause=Cause.ERROR, sent=True)
        found = SlackChannel(id=made.id, name=made.name, created=True)
    except StepDeclined as error:
        if error.code != "name_taken":
            raise
        found = await slack.find(name, private=private)
    if topic:
        await slack.call("conversations.setTopic", channel=found["id"], topic=topic[:250])
    if invite:
        await slack.call("conversations.invite", channel=found["id"], users=",".join(invite), allowed=_INVITED)
    return found


_INVITED = frozenset({"already_in_channel", "cant_invite_self"})


class _Slack:
    def __init__(self, tools: Toolbox, token: Secret) -> None:
        self._tools = tools
        self._token = token

    async def call(self, method: str, *, allowed: Collection[str] = (), **form: str) -> _Said:
        """One method of Slack's API; an error among ``allowed`` is no failure."""
        tools = self._tools
        asked = await prepared(
            tools, "POST", f"{tools.settings.slack_url}/{method}", body=urlencode(form), timeout_s=TIMEOUT_S,
            answer_bytes_max=ANSWER_BYTES_MAX,
            headers={
                "authorization": Secret(self._token.name, prefix="Bearer "),
                "content-type": "application/x-www-form-urlencoded",
            },
        )  # fmt: skip
        answer = await tools.send(asked.ask)
        if answer.status != 200:
            raise failure(tools, asked.ask, answer)
        said = read_as(answer.body, _Said, f"slack {method}")
        if said.ok or said.error in allowed:
            return said
        code = said.error if _CODE.fullmatch(said.error) else "unknown"
        if code in LATER:
            cause = None if code == "ratelimited" else Cause.ERROR
            raise StepUnavailable(f"slack {method}: {code}", cause=cause, sent=True, status=200)
        raise StepDeclined(f"slack {method}: {code}", status=200, code=code)

    async def find(self, name: str, *, private: bool) -> SlackChannel:
        """The channel of a name that is taken."""
        cursor = ""
        for _ in range(PAGES_MAX):
            page = await self.call(
                "conversations.list", limit=str(PAGE_ROWS), cursor=cursor, exclude_archived="true",
                types="private_channel" if private else "public_channel",
            )  # fmt: skip
            for channel in page.channels:
                if channel.name == name:
                    return SlackChannel(id=channel.id, name=name, created=False)
            cursor = page.response_metadata.next_cursor
            if not cursor:
                break
        raise StepDeclined(f"slack: the name {name} is taken by a channel that we can't see", code="name_taken")
