"""``/approve/TOKEN``: where people decide what a run asks them. GET shows, and only POST decides: programs that look at
mail and chat follow every link.

A token that we didn't make is 404 without a question to the store, so nothing is told by how long that takes. While the
store is away it is 503, and nothing is decided.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

from seawall.collector import page
from seawall.collector.exchange import PARKED, Exchange
from seawall.collector.rate import Rates
from seawall.collector.receipt import Receipts
from seawall.collector.setting import Settings
from seawall.guard.budget import Budget
from seawall.kernel.approval import ANYBODY, COMMENT_CHARS_MAX, PATH, PERSON_CHARS_MAX, Claim, Links
from seawall.kernel.clock import Clock
from seawall.kernel.error import SeawallError, Uncertain
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.approval import Approvals, Asked, Decision, State, Via

log = logger("collector")

FORM_BYTES_MAX: Final = 16 * 1024
"""A name and a comment of four bytes a character, each written as %XX: with room to spare."""

FIELDS_MAX: Final = 8
CLOSE_S: Final = 1.0
PREFIX: Final = PATH.encode()
_FORM: Final = b"application/x-www-form-urlencoded"
_ALLOW: Final = b"Allow: GET, POST\r\n"
_ENDS: Final = ("shown", "approved", "declined", "late", "refused", "unsure")


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent with a form."""

    approved: bool | None  # None: neither button
    name: str
    comment: str
    trouble: str = ""


class ApprovalPages:
    """Shows requests to whoever has a link, and takes their decisions; a bounded number at once."""

    def __init__(
        self, settings: Settings, *, approvals: Approvals | None, links: Links | None, receipts: Receipts, rates: Rates,
        clock: Clock, metrics: Metrics,
    ) -> None:  # fmt: skip
        self.settings = settings
        self._approvals = approvals
        self._links = links
        self._receipts = receipts
        self._rates = rates
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        self._count = {
            end: metrics.counter("seawall_approval_pages_total", "Requests to links of approvals, by end.", end=end)
            for end in _ENDS
        }

    def begin(self, x: Exchange) -> None:
        """Judge a head."""
        if x.method == b"POST":
            x.body_bytes_max = FORM_BYTES_MAX
            if x.length > FORM_BYTES_MAX:
                x.refuse(self._page(413, "Too large", "A name and a comment are all that is taken here."))
        elif x.method != b"GET":
            x.refuse(self._page(405, "Not possible", "This is a page for people.", headers=_ALLOW))

    def complete(self, x: Exchange) -> None:
        """The whole request is there."""
        token = x.target.partition(b"?")[0][len(PREFIX) :].decode("latin-1")
        if (refusal := self._rates.read_by(x.peer or x.connection.peer)) is not None:
            self._count["refused"].value += 1
            x.answer(refusal)
            return
        claim = self._links.opened(token) if self._links is not None else None
        sent = _sent(x) if x.method == b"POST" else None
        if claim is None or self._approvals is None:
            self._count["refused"].value += 1
            x.answer(self._page(404, "No such link", "It is incomplete, or doesn't count any more."))
        elif len(self._tasks) >= self.settings.look_ups_max:
            x.answer(self._away("There are too many requests at once; nothing was decided."))
        else:
            x.stage = PARKED
            task = asyncio.create_task(self._run(x, self._approvals, claim, sent), name="collector.approval")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self, budget: Budget) -> None:
        """Cancel what is under way: their people try again."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=budget.grant_s(CLOSE_S))

    async def _run(self, x: Exchange, approvals: Approvals, claim: Claim, sent: Sent | None) -> None:
        try:
            async with asyncio.timeout(self.settings.approve_s):
                answer = await self._answer(x, approvals, claim, sent)
        except Uncertain:
            answer = self._unsure()
        except TimeoutError:
            answer = self._unsure() if sent is not None else self._away("The store doesn't answer.")
        except SeawallError:
            answer = self._away("The store doesn't answer; nothing was decided.")
        except asyncio.CancelledError:
            x.answer(self._unsure() if sent is not None else self._away("Please try again."))
            raise
        except Exception:
            # A bug, or a row that a newer Seawall wrote. Nobody else hears of it, and a person waits for the page.
            log.exception("an approval can't be shown or decided", extra=fields(run=claim.run))
            answer = self._unsure() if sent is not None else self._away("It can't be shown now.")
        x.answer(answer)

    async def _answer(self, x: Exchange, approvals: Approvals, claim: Claim, sent: Sent | None) -> bytes:
        budget = Budget(self.settings.approve_s, self._clock)
        # With time left for the decision: what takes so long as to be cut off may have happened.
        asked = await approvals.find(claim, timeout_s=budget.left_s / 2)
        if asked is None or asked.state is not State.OPEN:
            return self._closed(asked, decides=sent is not None)
        person = None if claim.person == ANYBODY else asked.people[claim.person]
        if sent is None:
            return self._form(200, page.form(asked, person), end="shown")
        name = person or sent.name
        trouble = sent.trouble or (
            "Choose one of both." if sent.approved is None else "" if name else "Give your name."
        )
        if trouble:
            again = page.form(asked, person, trouble=trouble, name=sent.name, comment=sent.comment)
            return self._form(422, again, end="refused")
        decision = Decision(
            approved=bool(sent.approved), by=name, via=Via.LINK if person else Via.FORM, comment=sent.comment,
            address=(x.peer or x.connection.peer).decode("latin-1"),
        )  # fmt: skip
        now, won = await approvals.decide(claim, decision, timeout_s=budget.left_s)
        if now is not None and not won and now.state is State.OPEN:
            return self._away("The run that asks is being ended or begun again; nothing was decided.")
        if now is None or not won:
            return self._closed(now, decides=True)
        via = decision.via.value
        log.info("an approval was decided", extra=fields(run=claim.run, approved=decision.approved, via=via))
        self._count[now.state.value].value += 1
        return self._page(200, now.question, page.standing(now), "Thank you; you may close this page.")

    def _closed(self, asked: Asked | None, *, decides: bool) -> bytes:
        """Nobody decides it any more. Who tried to, and came second, has met somebody else's decision."""
        self._count["late"].value += 1
        if asked is None:
            return self._page(410, "This link has ended", "What it was for isn't kept any more.")
        return self._page(409 if decides and asked.verdict is not None else 410, asked.question, page.standing(asked))

    def _form(self, status: int, form: bytes, *, end: str) -> bytes:
        self._count[end].value += 1
        return self._receipts.whole(status, page.HEADERS, form)

    def _page(self, status: int, title: str, *text: str, headers: bytes = b"") -> bytes:
        return self._receipts.whole(status, page.HEADERS + headers, page.page(title, *text))

    def _unsure(self) -> bytes:
        self._count["unsure"].value += 1
        return self._retry("It may have been decided: open the link again to see.")

    def _away(self, text: str) -> bytes:
        self._count["refused"].value += 1
        return self._retry(text)

    def _retry(self, text: str) -> bytes:
        return self._page(503, "Not now", text, headers=b"Retry-After: 2\r\n")


def _sent(x: Exchange) -> Sent:
    """What a form says; more, and other things, than ours has are no form of ours."""
    if x.headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != _FORM:
        return Sent(None, "", "", "This takes what its form sends.")
    try:
        given = parse_qs(
            x.body().decode("ascii"), keep_blank_values=True, strict_parsing=True, max_num_fields=FIELDS_MAX,
            errors="replace",
        )  # fmt: skip
    except (ValueError, UnicodeDecodeError):
        return Sent(None, "", "", "This takes what its form sends.")
    answers, names, comments = (given.get(field, [""]) for field in ("answer", "name", "comment"))
    name, comment = _plain(names[0]), _plain(comments[0])
    trouble = ""
    if len(answers) > 1 or len(names) > 1 or len(comments) > 1:
        trouble = "Say each thing once."
    elif len(name) > PERSON_CHARS_MAX or len(comment) > COMMENT_CHARS_MAX:
        trouble = f"A name has at most {PERSON_CHARS_MAX} characters, a comment {COMMENT_CHARS_MAX}."
    return Sent(
        {"yes": True, "no": False}.get(answers[0]), name[:PERSON_CHARS_MAX], comment[:COMMENT_CHARS_MAX], trouble
    )


def _plain(text: str) -> str:
    """Text that stands on one line and shows what it is: whatever can't be printed (line ends, text that is turned
    around) becomes a space."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
