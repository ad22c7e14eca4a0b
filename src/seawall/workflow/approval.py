"""What a run asks people, and what they decided. A request is open when its link can be sent; it is awaited apart."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from seawall.kernel.approval import ANYBODY, PEOPLE_MAX, PERSON_CHARS_MAX, QUESTION_CHARS_MAX
from seawall.kernel.error import Unstorable
from seawall.kernel.seam import approval as seam
from seawall.kernel.seam.approval import AskingRun, Question
from seawall.workflow.branch import Branch, current
from seawall.workflow.child import Children
from seawall.workflow.wait import LOOK_S, SLEEP_MAX_S, checked_name

DAY = timedelta(days=1)

_encode = msgspec.json.Encoder().encode


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a request. True when it was approved: declined and expired are both False."""

    approved: bool
    expired: bool = False
    """Nobody decided in time."""
    by: str = ""
    """Who decided."""
    via: str = ""
    """How that is known: ``link`` (it was made for this person), ``form`` (whoever had the link gave this name),
    ``api`` (an operator said so)."""
    at: datetime | None = None
    comment: str = ""
    address: str = ""
    """Of the client that had the link."""

    def __bool__(self) -> bool:
        return self.approved


_decode = msgspec.json.Decoder(seam.Request).decode


class ApprovalRequest:
    """A request to people. Send its link in a step, then ``await`` it: the run holds no slot meanwhile.

    ::

        request = await ctx.approval("deploy to production?")
        await ctx.step(tell_the_team, request.link)
        if await request: ...
    """

    __slots__ = ("_at", "_branch", "_done", "_question", "_run", "_standing")

    def __init__(
        self, run: AskingRun, branch: Branch, at: tuple[str, int], question: Question, standing: seam.Request, *,
        done: bool = False,
    ) -> None:  # fmt: skip
        self._run = run
        self._branch = branch
        self._at = at
        self._question = question
        self._standing = standing
        self._done = done  # its end is kept

    @property
    def question(self) -> str:
        """What is asked."""
        return self._standing.question

    @property
    def expires_at(self) -> datetime:
        """When its links end, and the wait for it."""
        return _moment(self._standing.expires_us)

    @property
    def link(self) -> str:
        """The address at which it is decided; the same in each execution of the run. Whoever has it may decide.

        Raises:
            RuntimeError: It is for several people: take ``links``.
        """
        people = self._standing.people
        if len(people) > 1:
            raise RuntimeError(f"each of {len(people)} people has a link of his own: take request.links[name]")
        return self._run.link(self._standing, 0 if people else ANYBODY)

    @property
    def links(self) -> Mapping[str, str]:
        """By person; empty when it is for whoever has the link."""
        return {name: self._run.link(self._standing, n) for n, name in enumerate(self._standing.people)}

    def __await__(self) -> Generator[Any, None, Approval]:
        return self._end().__await__()

    async def _end(self) -> Approval:
        """Its end, kept.

        Raises:
            RuntimeError: A step called it.
        """
        here = current.get() or self._branch
        if here.nth >= 0:
            raise RuntimeError(f"{self._at[0]}: a step can't wait without its slot: let the workflow wait for it")
        if not self._done:
            here.busy += 1  # as for other waits: nothing beside it may put the run away before it has looked
            try:
                await self._wait()
            finally:
                here.busy -= 1
        return _said(self._standing)

    async def _wait(self) -> None:
        run, (key, nth), standing = self._run, self._at, self._standing
        while not _is_over(standing):
            standing = await run.ask(key, nth, self._question)
            if not _is_over(standing):
                await run.rest(standing.expires_us, look_s=LOOK_S)
        if self._done:  # another task of the run has awaited it too, and was first
            return
        self._standing, self._done = standing, True
        done = run.keep(key, nth, _encode(standing), failed=False, attempt=1, started_us=standing.asked_us, wait=True)
        assert done is not None
        try:
            await done
        except Unstorable as error:
            raise RuntimeError(f"what was decided can't be kept: {error}") from error


class Approvals(Children):
    """The part of a context that asks people."""

    __slots__ = ()
    _run: AskingRun

    async def approval(
        self, question: str, *, to: Sequence[str] = (), within: timedelta | float = DAY, name: str = "ctx.approval"
    ) -> ApprovalRequest:
        """Ask people, and go on at once: what comes back has the link to send them, and is awaited for their word.

        Args:
            question: One line, at most 500 characters. It stays as it was asked first.
            to: Names of at most 20 people, each with a link of his own; whoever decides first decides for all. Empty:
                one link, and whoever has it gives his name.
            within: How long it may be decided (seconds, or a timedelta), at most 366 days.
            name: Under which it is remembered, as for a step.

        Raises:
            ValueError, TypeError: That can't be asked.
            RuntimeError: A step called it.

        Durability: it is open before return, once in the run's life: each execution of it has the same link.
        """
        asked = _question(name, question, to, within)
        branch = self._waiting(name)
        key, nth = branch.occurrence(checked_name(name))
        memo = self._run.recall(key, nth)
        if memo is not None:
            return ApprovalRequest(self._run, branch, (key, nth), asked, _decode(memo.result), done=True)
        branch.busy += 1
        try:
            standing = await self._run.ask(key, nth, asked)
        finally:
            branch.busy -= 1
        return ApprovalRequest(self._run, branch, (key, nth), asked, standing)

    async def approve(
        self, question: str, *, to: Sequence[str] = (), within: timedelta | float = DAY, name: str = "ctx.approval"
    ) -> Approval:
        """Ask people and wait, without a slot, for their word: as ``approval``, where no link has to be sent: it is
        decided by ``seawall runs approve`` or the API.

        ::

            if await ctx.approve("deploy to production?", within=3600): ...

        Returns:
            What was decided, or that nobody did in time, which is no error. A replay gets the same.
        """
        return await (await self.approval(question, to=to, within=within, name=name))


def _question(name: str, text: object, to: object, within: object) -> Question:
    if not isinstance(text, str) or not 0 < len(text) <= QUESTION_CHARS_MAX or not text.isprintable():
        raise ValueError(f"{name}: question={text!r}: 1 to {QUESTION_CHARS_MAX} printable characters are needed")
    if isinstance(to, str) or not isinstance(to, Sequence) or len(to) > PEOPLE_MAX or len({*to}) < len(to):
        raise ValueError(f"{name}: to={to!r}: a list of at most {PEOPLE_MAX} different names is needed")
    for person in to:
        if not isinstance(person, str) or not 0 < len(person) <= PERSON_CHARS_MAX or not person.isprintable():
            raise ValueError(f"{name}: to={person!r}: names of 1 to {PERSON_CHARS_MAX} printable characters are needed")
    seconds = within.total_seconds() if isinstance(within, timedelta) else within
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= SLEEP_MAX_S:
        raise ValueError(f"{name}: within={within!r}: more than 0 and at most {SLEEP_MAX_S:g} seconds are possible")
    return Question(text=text, people=tuple(to), within_us=max(1, int(seconds * 1_000_000)))


def _is_over(standing: seam.Request) -> bool:
    return standing.over or standing.verdict is not None


def _said(standing: seam.Request) -> Approval:
    verdict = standing.verdict
    if verdict is None:
        return Approval(approved=False, expired=True)
    return Approval(
        approved=verdict.approved, by=verdict.by, via=verdict.via.value, at=_moment(verdict.at_us),
        comment=verdict.comment, address=verdict.address,
    )  # fmt: skip


def _moment(us: int) -> datetime:
    return datetime.fromtimestamp(us / 1_000_000, tz=UTC)
