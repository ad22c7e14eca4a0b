"""The approval seam: what a run asks people, and what people may do about it who have a link.

A request is a row. Who decides it, and the run whose time is over, each write that row where it is still open: exactly
one of them finds it so.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol

import msgspec

from seawall.kernel.approval import Claim
from seawall.kernel.seam.child import ParentRun


class Via(Enum):
    """How it is known who decided."""

    LINK = "link"  # the link was made for this person
    FORM = "form"  # whoever had the link gave this name
    API = "api"  # an operator said so


class State(Enum):
    """How a request stands."""

    OPEN = "open"
    APPROVED = "approved"
    DECLINED = "declined"
    EXPIRED = "expired"  # nobody decided in time
    ENDED = "ended"  # its run has ended, or is being cancelled


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided. This is remembered of a request by its run."""

    approved: bool
    by: str
    via: Via
    at_us: int  # by the store's clock
    comment: str = ""
    address: str = ""  # the client's, of one who had a link


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a run asks."""

    text: str
    people: tuple[str, ...]  # (): whoever has the link
    within_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as its run sees it."""

    id: int
    nonce: bytes
    question: str  # as it was asked first
    key: int  # number of the key that signs its links
    people: tuple[str, ...]
    asked_us: int  # by the store's clock
    expires_us: int
    verdict: Verdict | None = None
    over: bool = False  # nobody decided in time: final


class AskingRun(ParentRun, Protocol):
    """One execution of one run that may also ask people."""

    async def ask(self, name: str, nth: int, question: Question) -> Request:
        """Open a request, once for each (name, nth) of this run, or see how it stands; one whose time has passed is
        over from then on.

        Durability: what is said is committed. A verdict and an end are final.
        Cancelled: the run is being put away; the request may be open.
        """

    def link(self, request: Request, person: int) -> str:
        """The address by which a person decides: always the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What somebody wants."""

    approved: bool
    by: str
    via: Via
    comment: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request as people see it."""

    question: str
    people: tuple[str, ...]
    state: State
    expires_at: datetime
    verdict: Verdict | None = None
    run_status: str = ""  # how its run has ended; "": it hasn't, or nobody knows


class Approvals(Protocol):
    """What whoever has a link may do."""

    async def find(self, claim: Claim, *, timeout_s: float) -> Asked | None:
        """How the request stands; None: it isn't kept (any more).

        Raises:
            Unavailable: The store didn't answer in time.
        """

    async def decide(self, claim: Claim, decision: Decision, *, timeout_s: float) -> tuple[Asked | None, bool]:
        """Decide it, if it is open.

        Returns:
            How it stands now (None as above), and whether this call decided it.

        Raises:
            Unavailable: Nothing was decided.
            Uncertain: It may have been; ask again, and repeat it then.

        Durability: a decision is committed with the waking of its run before return.
        Cancelled: as Uncertain.
        """
