"""``GET /in/events/ID`` and ``GET /in/tickets/ID``: what became of an event, for whoever was given its id.

They read the store for a quarter of a second at most; a store that is away or doesn't know the event yet makes them say
``202``: an event whose id we gave out is accepted, whatever the store knows. A ticket's reader may wait for the reply
like its sender did (``Prefer: wait=N``). The id is the right to read; that is why it has 74 random bits.

An id that we can't have given out is 404: one of another form, and one from the future that neither this process nor
the store knows. (A clock that was set back leaves true ones there.) One that the store doesn't know isn't routed yet,
however old it is, until it is so old that the store may have let it go.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from seawall.collector.admission import wished_ms
from seawall.collector.exchange import PARKED, Exchange
from seawall.collector.hold import Holds
from seawall.collector.rate import Rates
from seawall.collector.receipt import Receipts
from seawall.collector.setting import Settings
from seawall.guard.budget import Budget
from seawall.guard.shed import Wanted
from seawall.kernel import limit
from seawall.kernel.clock import Clock
from seawall.kernel.error import SeawallError
from seawall.kernel.event import id_text
from seawall.kernel.log import fields, logger
from seawall.kernel.seam.event import EventBrief, Events
from seawall.kernel.seam.ticket import Waiting

log = logger("collector")

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
CLOSE_S = 1.0
AHEAD_MS_MAX = 60_000
"""How far in the future an id may lie: another collector's clock may be ahead of ours."""

DAY_MS = 24 * 3600 * 1000


class Given(Protocol):
    """Who gives ids out (kernel.event.EventIds)."""

    @property
    def latest_ms(self) -> int:
        """The time in the newest one, milliseconds; 0: none yet."""


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of an id."""

    answer: bytes  # whole
    final: bool = True  # False: a ticket whose reply is still to come


_Read = Callable[[bytes, Budget], Awaitable[Found | None]]
"""None: nobody knows the id."""


class LookUps:
    """Answers reads of events and tickets, a bounded number at once.

    Args:
        settings, kept_days: May be replaced at any time.
    """

    def __init__(
        self, settings: Settings, *, events: Events, waiting: Waiting, receipts: Receipts, rates: Rates,
        ids: Given, clock: Clock, holds: Holds, kept_days: int, wanted: Wanted = lambda: True,
    ) -> None:  # fmt: skip
        self.settings = settings
        self._holds = holds
        self.kept_days = kept_days
        self._rates = rates
        self._events = events
        self._waiting = waiting
        self._receipts = receipts
        self._ids = ids
        self._clock = clock
        self._wanted = wanted
        self._tasks: set[asyncio.Task[None]] = set()

    def event(self, x: Exchange, text: str) -> None:
        """Answer with the event's status and runs."""
        self._start(x, text, self._event, ticket=False)

    def ticket(self, x: Exchange, text: str) -> None:
        """Answer with the reply, as the held request would have been, if wished when it is there."""
        x.wait_ms = min(wished_ms(x), limit.WAIT_MS_MAX)
        self._start(x, text, self._ticket, ticket=True)

    async def close(self, budget: Budget) -> None:
        """Cancel what is under way: their clients ask again."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=budget.grant_s(CLOSE_S))

    def _start(self, x: Exchange, text: str, read: _Read, *, ticket: bool) -> None:
        id = _id_of(text)
        if (refusal := self._rates.read_by(x.peer or x.connection.peer)) is not None:
            x.answer(refusal)
        elif id is None:
            x.answer(self._never_given_out())
        elif not self._wanted():
            x.answer(self._unlooked(id, ticket=ticket))
        elif len(self._tasks) >= self.settings.look_ups_max:
            x.answer(self._receipts.unavailable("too busy", "too many reads at once"))
        else:
            x.stage, x.id = PARKED, id
            patience = Budget(x.wait_ms / 1000, self._clock)
            task = asyncio.create_task(self._run(x, read, patience, ticket=ticket), name="collector.look_up")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, x: Exchange, read: _Read, patience: Budget, *, ticket: bool) -> None:
        id, budget = x.id, Budget(self.settings.look_up_s, self._clock)
        known: Found | None = None
        away = False
        try:
            async with asyncio.timeout(budget.left_s):
                known = await read(id, budget)
        except (SeawallError, TimeoutError):
            away = True
        except Exception:
            # A bug, or a row that a newer Seawall wrote. Nobody else hears of it, and the client waits for its answer.
            log.exception("an event or ticket can't be read", extra=fields(id=id_text(id)))
            away = True
        except asyncio.CancelledError:
            x.answer(self._receipts.unavailable("stopping"))
            raise
        if known is not None and known.final:
            x.answer(known.answer)
        elif not away and known is None and (refusal := self._unknown(id, ticket=ticket)) is not None:
            x.answer(refusal)
        elif patience.spent or self._is_ahead(id):
            x.answer(known.answer if known is not None else self._unlooked(id, ticket=ticket))
        elif x.stage == PARKED:  # else its client is gone
            again_max = self.settings.look_ups_held_max
            self._holds.hold_again(x, wait_ms=int(patience.left_s * 1000), again_max=again_max)

    def _unknown(self, id: bytes, *, ticket: bool) -> bytes | None:
        """The answer when the store doesn't know an id; None: it may still come."""
        if self._is_ahead(id):
            return self._never_given_out()
        if ticket and self._clock.wall_us() // 1000 - _ms(id) > self.kept_days * DAY_MS:
            return self._receipts.problem(404, "unknown id", "replies are kept for 24 hours")
        return None

    def _unlooked(self, id: bytes, *, ticket: bool) -> bytes:
        """What is true without the store: an id that we gave out is accepted, and its reply may be asked for again."""
        if self._is_ahead(id):
            return self._receipts.unavailable("unknown id", "only the store can say whether this id was given out")
        if ticket:
            return self._receipts.waiting(id_text(id).encode())
        return self._receipts.json(202, {"id": id_text(id), "status": "accepted"}, headers=b"Retry-After: 1\r\n")

    def _is_ahead(self, id: bytes) -> bool:
        """Whether it lies further in the future than any clock of ours is known to have been."""
        return _ms(id) > max(self._ids.latest_ms, self._clock.wall_us() // 1000 + AHEAD_MS_MAX)

    def _never_given_out(self) -> bytes:
        return self._receipts.problem(404, "unknown id", "this is no id that was given out here")

    async def _event(self, id: bytes, budget: Budget) -> Found | None:
        brief = await self._events.status(id, timeout_s=budget.left_s)
        return None if brief is None else Found(self._receipts.json(200, _shown(id, brief)))

    async def _ticket(self, id: bytes, budget: Budget) -> Found | None:
        reply = await self._waiting.look_up(id, timeout_s=budget.left_s)
        if reply is None:
            return None
        text = id_text(id).encode()
        if not reply.final:
            return Found(self._receipts.waiting(text), final=False)
        return Found(self._receipts.reply(text, reply))


def _shown(id: bytes, brief: EventBrief) -> dict[str, object]:
    shown: dict[str, object] = {"id": id_text(id), "status": brief.status}
    if brief.id != id:
        shown["duplicate_of"] = id_text(brief.id)
    shown["runs"] = [{"id": str(r.id), "workflow": r.workflow, "status": r.status} for r in brief.runs]
    return shown


def _id_of(text: str) -> bytes | None:
    return bytes.fromhex(text.replace("-", "")) if _ID.fullmatch(text) is not None else None


def _ms(id: bytes) -> int:
    return int.from_bytes(id[:6], "big")
