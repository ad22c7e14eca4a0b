"""What a workflow may ask people, and how what they decided reads."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from seawall import Approval, Context
from seawall.kernel.seam.approval import Question, Request, Verdict, Via
from workflow.fake import MemoryRun


class Asking(MemoryRun):
    """A run whose people decide when it rests."""

    def __init__(self, verdict: Verdict | None = None) -> None:
        super().__init__()
        self.verdict = verdict
        self.asks: list[Question] = []

    async def ask(self, name: str, nth: int, question: Question) -> Request:
        self.asks.append(question)
        request = Request(
            id=1, nonce=b"n" * 16, question=question.text, key=1, people=question.people, asked_us=self.clock_us,
            expires_us=self.clock_us + question.within_us,
        )  # fmt: skip
        if not self.rests:
            return request
        return replace(request, verdict=self.verdict, over=self.verdict is None)

    async def rest(self, until_us: int, *, look_s: float = math.inf) -> None:
        self.rests.append(until_us)

    def link(self, request: Request, person: int) -> str:
        return f"link {request.id} {person}"


def context(run: Any) -> Context:
    return Context(run, event_id="e", workflow="w", chance=random.Random(0))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"question": ""}, "question"), ({"question": "a\nb"}, "question"), ({"question": "x" * 501}, "question"),
        ({"question": 7}, "question"), ({"to": "ana"}, "to="), ({"to": ["a", "a"]}, "different"),
        ({"to": [""]}, "names"),
        ({"to": ["x"] * 21}, "to="), ({"to": ["a\tb"]}, "names"), ({"within": 0}, "within"),
        ({"within": True}, "within"),
        ({"within": 367 * 86_400}, "within"), ({"within": timedelta(0)}, "within"),
        ({"within": float("nan")}, "within"),
        ({"within": "1h"}, "within"), ({"name": ""}, "name"),
    ],
)  # fmt: skip
async def test_what_can_not_be_asked_is_said_and_nobody_is(given: dict[str, Any], said: str) -> None:
    run = Asking()
    with pytest.raises(ValueError, match=said):
        await context(run).approval(**({"question": "deploy?"} | given))
    assert run.asks == []


async def test_a_request_is_asked_first_and_awaited_when_its_link_was_sent() -> None:
    verdict = Verdict(approved=False, by="ana", via=Via.LINK, at_us=5_000_000, comment="no", address="192.0.2.1")
    run = Asking(verdict)
    request = await context(run).approval("deploy?", to=["ana"], within=timedelta(minutes=1))
    assert run.asks == [Question(text="deploy?", people=("ana",), within_us=60_000_000)] and not run.rests
    assert (request.question, request.link, dict(request.links)) == ("deploy?", "link 1 0", {"ana": "link 1 0"})
    assert request.expires_at == datetime.fromtimestamp(61, tz=UTC)
    said = Approval(
        approved=False, by="ana", via="link", at=datetime.fromtimestamp(5, tz=UTC), comment="no", address="192.0.2.1"
    )
    assert [await request, await request] == [said, said] and not said and run.rests == [61_000_000]
    asked = len(run.asks)
    again = await context(run).approval("another text, since the code was changed", to=["ana"])
    assert (again.question, again.link, await again) == ("deploy?", "link 1 0", said)
    assert len(run.asks) == asked, "what is kept needs no store"


async def test_nobody_in_time_is_no_error_and_false() -> None:
    answer = await context(Asking()).approve("deploy?")
    assert answer == Approval(approved=False, expired=True) and not answer


async def test_a_step_can_neither_ask_nor_wait() -> None:
    ctx = context(Asking())
    request = await ctx.approval("deploy?")

    async def wait() -> None:
        await request

    async def ask() -> None:
        await ctx.approval("again?")

    for step in (wait, ask):
        with pytest.raises(Exception, match="a step can't wait"):
            await ctx.step(step)
