"""Handlers of the endpoints of approvals, and what these take and give."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import msgspec

from seawall.console.answer import Answer, json
from seawall.console.ask import Ask, cursor_bytes, cursor_of
from seawall.kernel.approval import COMMENT_CHARS_MAX, PERSON_CHARS_MAX, Claim
from seawall.kernel.clock import Clock
from seawall.kernel.error import Rejected
from seawall.kernel.seam.approval import Asked, Decision, State, Via
from seawall.store import approval, report
from seawall.store.approval import ApprovalLine
from seawall.store.pool import Store

ID_MAX: Final = 2**63 - 1
ID_DIGITS_MAX: Final = 18
EVERY: Final = "all"


class ApprovalPage(msgspec.Struct, frozen=True, kw_only=True):
    """Requests to people, newest first."""

    items: list[ApprovalLine]
    next: str | None


class ApprovalWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be decided of a run's request."""

    approved: bool
    by: str = ""
    comment: str = ""
    approval: str = ""


class ApprovalDone(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided."""

    run: str
    approval: str
    question: str
    state: str
    by: str


class ApprovalDesk:
    """Each handler raises Rejected, Unavailable or Uncertain."""

    def __init__(self, store: Store, *, clock: Clock, query_s: float) -> None:
        self._store = store
        self._clock = clock
        self._query_s = query_s

    async def page(self, ask: Ask) -> Answer:
        cursor, limit = ask.text("cursor"), ask.limit()
        before = ID_MAX if cursor is None else min(int.from_bytes(cursor_bytes(cursor, 8), "big"), ID_MAX)
        every = ask.text("state") == EVERY
        items = await approval.page(self._store, before=before, limit=limit, every=every, timeout_s=self._query_s)
        end = cursor_of(int(items[-1].id).to_bytes(8, "big")) if len(items) == limit else None
        return json(ApprovalPage(items=items, next=end))

    async def decide(self, ask: Ask) -> Answer:
        run_id, wish = ask.run_id(), ask.parsed(ApprovalWish)
        by = _line("by", wish.by, PERSON_CHARS_MAX) or ask.by
        comment = _line("comment", wish.comment, COMMENT_CHARS_MAX)
        meant = await self._meant(run_id, wish.approval)
        decision = Decision(approved=wish.approved, by=by, via=Via.API, comment=comment)
        asked, won = await approval.decide(self._store, meant, decision, clock=self._clock, timeout_s=self._query_s)
        if asked is None or not won:
            raise Rejected(409, "It isn't open", _stands(run_id, asked))
        return json(
            ApprovalDone(
                run=str(run_id), approval=str(meant.request), question=asked.question, state=asked.state.value,
                by=by,
            )
        )  # fmt: skip

    async def _meant(self, run_id: int, number: str) -> Claim:
        """The one that is open; else the last one that was, which says how it stands."""
        found = await approval.of_run(self._store, run_id, number=_number(number), timeout_s=self._query_s)
        if sum(one.open for one in found) > 1:
            names = ", ".join(f"{one.claim.request} ({one.question})" for one in found if one.open)
            raise Rejected(409, "Several are open", f"run {run_id} asks several things; name one: {names}")
        if found:
            return found[0].claim
        if await report.run(self._store, run_id, timeout_s=self._query_s) is None:
            raise Rejected(404, "No such run", "there is none with this id")
        raise Rejected(
            409, "It isn't open", f"run {run_id} has asked nobody{f' by the number {number}' if number else ''}"
        )


def _number(text: str) -> int | None:
    """Of a request; None: none was named; 0, which no request has: that is no number."""
    if not text:
        return None
    return int(text) if text.isascii() and text.isdigit() and len(text) <= ID_DIGITS_MAX else 0


def _line(name: str, text: str, chars_max: int) -> str:
    text = text.strip()
    if len(text) > chars_max or not text.isprintable():
        raise Rejected(422, f"Bad {name}", f"{name} is one line of at most {chars_max} characters")
    return text


def _stands(run_id: int, asked: Asked | None) -> str:
    if asked is None or asked.state is State.ENDED:
        return f"run {run_id} has ended"
    if asked.verdict is None:
        return "its time is over" if asked.state is State.EXPIRED else f"run {run_id} comes back just now: ask again"
    at = datetime.fromtimestamp(asked.verdict.at_us / 1_000_000, tz=UTC)
    return f"it was {asked.state.value} by {asked.verdict.by} ({asked.verdict.via.value}) at {at:%Y-%m-%d %H:%M:%S} UTC"
