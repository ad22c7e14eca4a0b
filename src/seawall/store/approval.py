"""What runs ask people. A request is a row; it is decided, or its time is over, by whoever finds it open and writes so.

Who decides locks the run's row first, as whatever ends, cancels or puts the run away does: so a run that is cancelled
can't be approved any more, and a run that is being put away can't miss a decision, which counts a wake (0017).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from seawall.kernel.approval import Claim
from seawall.kernel.clock import Clock
from seawall.kernel.error import Unavailable, Uncertain
from seawall.kernel.seam.approval import Asked, Decision, Question, Request, State, Verdict, Via
from seawall.kernel.seam.change import Kind
from seawall.kernel.status import RunStatus
from seawall.store.change import Author, record, us_of
from seawall.store.pool import Row, Session, Store, text_array
from seawall.store.statement import statements
from seawall.store.wait import Woken, tell, wake

_SQL = statements("approval")

TRIES: Final = 2
"""Of a decision. A run that isn't there for the first one, and is when we look why, has come back: what ended it was
undone in this moment."""

OPEN_MAX: Final = 20
"""Requests of one run that are told apart."""


class ApprovalLine(msgspec.Struct, frozen=True, kw_only=True):
    """A request in a list."""

    id: str
    run: str
    workflow: str | None
    tenant: str | None
    question: str
    to: list[str]  # []: whoever has the link
    state: str  # open, approved, declined, expired; ended: its run has
    asked_at: datetime
    expires_at: datetime
    decided_at: datetime | None
    by: str | None
    via: str | None  # link, form, api: how it is known who decided
    address: str | None
    comment: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Which request of which run."""

    run_id: int
    name: str
    nth: int


@dataclass(frozen=True, slots=True)
class Meant:
    """A request of a run."""

    claim: Claim
    question: str
    open: bool  # somebody may decide it, if its run goes on


async def ask(store: Store, place: Place, key: int, question: Question) -> Request | None:
    """Open a request unless it is there, end it when its time has passed, and say how it stands. None: the run is gone.

    Raises:
        Unavailable, Uncertain: Safe to repeat.

    Durability: committed before return.
    """
    of = place.run_id, place.name, place.nth
    values = *of, key, *text_array([question.text]), text_array(question.people), question.within_us
    # A second time: another execution, whose lease is gone, may have opened it behind this statement's snapshot.
    row = await store.row(_SQL["open"], *values) or await store.row(_SQL["open"], *values)
    if row is None:
        return None
    if not row["late"] or row["over"] or row["decided_at"] is not None:
        return _request(row)
    if await store.execute(_SQL["end_late"], *of):
        return _request(row, over=True)
    row = await store.row(_SQL["open"], *values)  # somebody has decided it in this moment
    return None if row is None else _request(row)


async def find(store: Store, claim: Claim, *, timeout_s: float) -> Asked | None:
    """How a request stands; None: it isn't kept (any more).

    Raises:
        Unavailable: The store didn't answer in time.
    """
    row = await store.row(_SQL["find"], *_named(claim), timeout_s=timeout_s)
    return None if row is None else _asked(row)


async def decide(
    store: Store, claim: Claim, decision: Decision, *, clock: Clock, timeout_s: float
) -> tuple[Asked | None, bool]:
    """Decide a request, if it is open: see the seam.

    Raises:
        Unavailable: Nothing was decided.
        Uncertain: It may have been.
    """
    async with store.transaction(timeout_s=timeout_s) as session:
        for _ in range(TRIES):
            woken = await _decide(session, claim, decision, clock)
            row = await session.row(_SQL["find"], *_named(claim))
            if woken is not None or row is None or _state(row) is not State.OPEN:
                break
    if woken:
        with contextlib.suppress(Unavailable, Uncertain):  # it is decided; whom nobody tells looks by himself
            await tell(store, woken)
    return None if row is None else _asked(row), woken is not None


async def _decide(session: Session, claim: Claim, decision: Decision, clock: Clock) -> list[Woken] | None:
    """Whom to tell; None: it wasn't open."""
    run = await session.row(_SQL["lock_run"], claim.run)
    if run is None or run["state"] == RunStatus.CANCELLING:
        return None
    by, comment, address = text_array([decision.by, decision.comment, decision.address])
    via = decision.via.value
    values = *_named(claim), decision.approved, by, via, address, comment
    if await session.row(_SQL["decide"], *values) is None:
        return None
    state = State.APPROVED if decision.approved else State.DECLINED
    author = Author(by, clock, comment)
    await record(session, author.change(Kind.APPROVAL, str(claim.run), State.OPEN.value, f"{state.value} ({via})"))
    return await wake(session, {claim.run})


async def of_run(store: Store, run_id: int, *, number: int | None = None, timeout_s: float) -> list[Meant]:
    """A run's requests that somebody may decide, and behind them those that were, the newest first; at most OPEN_MAX.

    Args:
        number: Only the one of this number.

    Raises:
        Unavailable: The store didn't answer in time.
    """
    rows = await store.fetch(_SQL["of_run"], run_id, OPEN_MAX, number, timeout_s=timeout_s)
    return [Meant(Claim(row["id"], run_id, row["nonce"].bytes, 0, 0), row["question"], row["open"]) for row in rows]


async def page(store: Store, *, before: int, limit: int, every: bool, timeout_s: float) -> list[ApprovalLine]:
    """Requests with a number below ``before``, newest first; only those that somebody may decide, or ``every`` one.

    Raises:
        Unavailable: The store didn't answer in time.
    """
    rows = await store.fetch(_SQL["page" if every else "page_open"], before, limit, timeout_s=timeout_s)
    return [
        ApprovalLine(
            id=str(row["id"]), run=str(row["run_id"]), workflow=row["workflow"], tenant=row["tenant"],
            question=row["question"], to=row["people"], state=_state(row).value, asked_at=row["asked_at"],
            expires_at=row["expires_at"], decided_at=row["decided_at"], by=row["by"], via=row["via"],
            address=row["address"], comment=row["comment"],
        )
        for row in rows
    ]  # fmt: skip


def _named(claim: Claim) -> tuple[int, int, UUID]:
    return claim.request, claim.run, UUID(bytes=claim.nonce)


def _request(row: Row, *, over: bool = False) -> Request:
    return Request(
        id=row["id"], nonce=row["nonce"].bytes, question=row["question"], key=row["key"], people=tuple(row["people"]),
        asked_us=us_of(row["asked_at"]), expires_us=us_of(row["expires_at"]), verdict=_verdict(row),
        over=over or row["over"],
    )  # fmt: skip


def _asked(row: Row) -> Asked:
    ended = row["run_status"]
    return Asked(
        question=row["question"], people=tuple(row["people"]), state=_state(row), expires_at=row["expires_at"],
        verdict=_verdict(row), run_status="" if ended is None else RunStatus(ended).word,
    )  # fmt: skip


def _state(row: Row) -> State:
    if row["decided_at"] is not None:
        return State.APPROVED if row["approved"] else State.DECLINED
    if row["over"]:
        return State.EXPIRED
    if row["run_state"] is None or row["run_state"] == RunStatus.CANCELLING:
        return State.ENDED
    return State.EXPIRED if row["late"] else State.OPEN


def _verdict(row: Row) -> Verdict | None:
    if row["decided_at"] is None:
        return None
    return Verdict(
        approved=row["approved"], by=row["by"], via=Via(row["via"]), at_us=us_of(row["decided_at"]),
        comment=row["comment"], address=row["address"],
    )  # fmt: skip
