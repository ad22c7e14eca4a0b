"""Handlers of the endpoints of workflows and their versions, and what they take and give."""

from __future__ import annotations

import msgspec

from seawall.console.answer import Answer, json
from seawall.console.ask import Ask
from seawall.kernel.clock import Clock
from seawall.kernel.error import Rejected
from seawall.kernel.seam.change import TEXT_MAX
from seawall.store import history, version
from seawall.store.change import Author
from seawall.store.pool import Store
from seawall.store.report import RUN_ID_MAX
from seawall.store.version import Missed, WorkflowLine


class Workflows(msgspec.Struct, frozen=True, kw_only=True):
    """All registered workflows."""

    items: list[WorkflowLine]


class WorkflowWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be changed of a workflow: exactly one of these."""

    version: str | None = None  # new runs take it
    rollback: bool = False  # they take the one before it
    automatic: bool = False  # they take the newest that workers have
    frozen: bool | None = None  # they are held, or not any more
    why: str = ""


class WorkflowChange(msgspec.Struct, frozen=True, kw_only=True):
    """What was in force, and what is."""

    name: str
    before: str
    after: str


class MoveWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which runs are to go on with another version of their workflow."""

    ids: list[str]
    to_version: str
    why: str = ""


class MovedRuns(msgspec.Struct, frozen=True, kw_only=True):
    """Which were moved, and why others weren't."""

    moved: list[str]
    missed: list[Missed]


class VersionDesk:
    """Each handler raises Rejected, Unavailable or Uncertain."""

    def __init__(self, store: Store, *, clock: Clock, query_s: float) -> None:
        self._store = store
        self._clock = clock
        self._query_s = query_s

    async def page(self, ask: Ask) -> Answer:
        return json(Workflows(items=await version.lines(self._store, timeout_s=self._query_s)))

    async def put(self, ask: Ask) -> Answer:
        name, wish = ask.path["name"], ask.parsed(WorkflowWish)
        asked = [wish.version is not None, wish.rollback, wish.automatic, wish.frozen is not None]
        if sum(asked) != 1:
            raise Rejected(422, "Bad wish", "say one of version, rollback, automatic and frozen")
        author = self._author(ask, wish.why)
        if wish.frozen is not None:
            work = version.freeze(self._store, name, author, frozen=wish.frozen, timeout_s=self._query_s)
        else:
            work = version.choose(self._store, name, _choice(wish), author, timeout_s=self._query_s)
        before, after = await work
        return json(WorkflowChange(name=name, before=before, after=after))

    async def history(self, ask: Ask) -> Answer:
        found = await history.history(self._store, ask.run_id(), timeout_s=self._query_s)
        if found is None:
            raise Rejected(404, "No such run", "there is none with this id, or its event is gone")
        return json(found)

    async def move(self, ask: Ask) -> Answer:
        wish = ask.parsed(MoveWish)
        ids = list(dict.fromkeys(map(_run_id, wish.ids)))
        if not 0 < len(ids) <= version.MOVE_MAX:
            raise Rejected(422, "Bad number", f"1 to {version.MOVE_MAX} runs can be moved at once, not {len(ids)}")
        author = self._author(ask, wish.why)
        done = await version.move(self._store, ids, wish.to_version, author, timeout_s=self._query_s)
        missed = [Missed(id=str(id), why=why) for id, why in done.missed.items()]
        return json(MovedRuns(moved=[str(id) for id in done.moved], missed=missed))

    def _author(self, ask: Ask, why: str) -> Author:
        if len(why) > TEXT_MAX:
            raise Rejected(422, "Bad reason", f"why has at most {TEXT_MAX} characters")
        return Author(ask.by, self._clock, why.strip())


def _choice(wish: WorkflowWish) -> version.Choice:
    if wish.version is not None:
        return version.version(wish.version)
    return version.previous if wish.rollback else version.automatic


def _run_id(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= RUN_ID_MAX):
        raise Rejected(422, "Bad id", f"{text[:64]!r} is no run's id")
    return int(text)
