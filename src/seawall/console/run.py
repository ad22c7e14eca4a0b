"""Handlers of the endpoints that change runs."""

from __future__ import annotations

from typing import Final

from seawall.console.answer import Answer, json
from seawall.console.ask import Ask
from seawall.console.shape import CancelledRun, CancelWish
from seawall.kernel.clock import Clock
from seawall.kernel.error import Rejected
from seawall.kernel.seam.change import TEXT_MAX, Kind
from seawall.kernel.status import RunStatus
from seawall.store import cancel, report
from seawall.store.change import Author, record
from seawall.store.pool import Store

OVER: Final = frozenset(status.word for status in (RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.DEAD))


class RunDesk:
    """Each handler raises Rejected, Unavailable or Uncertain."""

    def __init__(self, store: Store, *, clock: Clock, query_s: float) -> None:
        self._store = store
        self._clock = clock
        self._query_s = query_s

    async def cancel(self, ask: Ask) -> Answer:
        run_id, wish = ask.run_id(), ask.parsed(CancelWish)
        if len(wish.why) > TEXT_MAX:
            raise Rejected(422, "Bad reason", f"why has at most {TEXT_MAX} characters")
        before = await self._status(run_id)
        if before in OVER:
            raise Rejected(409, "It has ended", f"run {run_id} is {before}")
        author = Author(ask.by, self._clock, wish.why.strip())
        async with self._store.transaction(timeout_s=self._query_s) as session:
            marked = await cancel.mark(session, [run_id], _said(author))
            if marked.ended or marked.cancelling:
                now = RunStatus.CANCELLED if marked.ended else RunStatus.CANCELLING
                await record(session, author.change(Kind.RUN, str(run_id), before, now.word))
        await cancel.settle(self._store, marked, timeout_s=self._query_s)
        return json(CancelledRun(id=str(run_id), before=before, after=await self._status(run_id)))

    async def _status(self, run_id: int) -> str:
        found = await report.run(self._store, run_id, timeout_s=self._query_s)
        if found is None:
            raise Rejected(404, "No such run", "there is none with this id")
        return found.status


def _said(author: Author) -> str:
    by = f"cancelled by {author.by}" if author.by else "cancelled"
    return f"{by}: {author.why}" if author.why else by
