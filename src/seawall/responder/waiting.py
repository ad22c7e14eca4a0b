"""Which requests wait, when each is to be looked up next, and when its patience ends. No I/O, no task, no timer: two
heaps for thousands of tickets, asked by the loops beside this module.

A ticket is idle (its next look is in a heap), urgent (a hint named it), or in hand (``take`` … ``put_back``).
A hint for one in hand makes it urgent when it comes back: the read may have begun before the reply was there.

Several requests may wait for one ticket: whoever lost its connection asks again, and the old one may still stand. Each
has its own deadline; they are looked up together, and get the same answer.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from seawall.kernel.clock import Clock
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.ticket import Answer, Reply
from seawall.responder.setting import Settings

PER_TICKET_MAX: Final = 8
"""Requests that wait for one ticket: a few lost connections, and no way to fill the house with one id."""

SLACK: Final = 1024
"""Entries of answered tickets that a heap may keep beyond twice the living ones before it is swept."""


class Place(Enum):
    """Where a held ticket is."""

    IDLE = 1
    URGENT = 2
    IN_HAND = 3
    GONE = 4


@dataclass(slots=True, eq=False)
class Held:
    """A ticket that requests wait for."""

    ticket_id: bytes
    pace_s: float
    waiters: list[Waiter] = field(default_factory=list)  # never empty, but while it is made and forgotten
    place: Place = Place.IDLE
    look_at: float = math.inf  # its entry in the heap of looks counts only while it carries this moment
    hinted: bool = False  # while in hand: look again at once
    event_id: bytes = b""  # where the reply will be; known after the first look


@dataclass(slots=True, eq=False)
class Waiter:
    """One request that waits."""

    held: Held
    answer: Answer
    deadline: float
    last_look: float  # the look that must not be missed, shortly before the deadline
    gone: bool = False


class Board:
    """All held requests of one process. Every method runs on the event loop's thread and returns at once."""

    def __init__(self, settings: Settings, *, clock: Clock, metrics: Metrics) -> None:
        self.settings = settings
        self._clock = clock
        self._held: dict[bytes, Held] = {}
        self._waiting = 0  # requests, of all tickets
        self._by_event: dict[bytes, set[bytes]] = {}  # tickets of duplicates, by the event that runs
        self._looks: list[tuple[float, int, Held]] = []
        self._deadlines: list[tuple[float, int, Waiter]] = []
        self._urgent: deque[Held] = deque()
        self._early = Early()
        self._order = itertools.count()
        self._stopped = False
        self.look_wanted = asyncio.Event()
        self.deadline_wanted = asyncio.Event()
        metrics.gauge("seawall_tickets_held_count", "Requests that are held now.").read = lambda: self._waiting
        self._answers = {
            outcome: metrics.counter(
                "seawall_ticket_answers_total", "Held requests by how their wait ended.", outcome=outcome
            )
            for outcome in ("reply", "status", "deadline", "full", "stopped", "dropped")
        }

    def hold(self, ticket_id: bytes, *, wait_ms: int, answer: Answer) -> None:
        """See the seam ``Waiting``."""
        held = self._held.get(ticket_id)
        crowded = held is not None and len(held.waiters) >= PER_TICKET_MAX
        if self._stopped or crowded or self._waiting >= self.settings.held_max:
            self._answers["stopped" if self._stopped else "full"].value += 1
            answer(None)
            return
        now = self._clock.monotonic()
        deadline = now + wait_ms / 1000
        first_look_s = self.settings.first_look_ms / 1000
        fresh = held is None
        if held is None:
            held = self._held[ticket_id] = Held(ticket_id, first_look_s)
        last_look = deadline - min(self.settings.last_look_ms, wait_ms / 2) / 1000
        waiter = Waiter(held, answer, deadline, last_look)
        held.waiters.append(waiter)
        self._waiting += 1
        self._push_deadline(waiter)
        if fresh and ticket_id in self._early:
            self._make_urgent(held)
        elif held.place is Place.IDLE:
            held.pace_s = first_look_s
            self._look_later(held, now)

    def drop(self, ticket_id: bytes, answer: Answer) -> None:
        """See the seam ``Waiting``."""
        held = self._held.get(ticket_id)
        for waiter in held.waiters if held is not None else ():
            if waiter.answer == answer:
                self._forget(waiter)
                self._answers["dropped"].value += 1
                return

    def hint(self, event_ids: Iterable[bytes]) -> None:
        """Somebody says that these events have a reply, or an end."""
        now = self._clock.monotonic()
        for event_id in event_ids:
            tickets = [event_id, *self._by_event.get(event_id, ())]
            waiting = [held for id in tickets if (held := self._held.get(id)) is not None]
            for held in waiting:
                self._make_urgent(held)
            # Remembered in any case: a request for the same event may come to be held just after this.
            self._early.add(event_id, now)
        self._early.forget(before=now - self.settings.hint_keep_ms / 1000, most=self.settings.hints_max)

    def look_at_all(self) -> None:
        """The channel was away: whatever it would have said, read every ticket now."""
        for held in self._held.values():
            self._make_urgent(held)

    def take(self, count_max: int) -> list[bytes]:
        """Tickets whose look is due, urgent ones first. The caller must ``put_back`` or ``answer`` each."""
        now = self._clock.monotonic()
        taken: list[bytes] = []
        while self._urgent and len(taken) < count_max:
            held = self._urgent.popleft()
            if held.place is Place.URGENT:
                taken.append(_in_hand(held))
        while self._looks and self._looks[0][0] <= now and len(taken) < count_max:
            at, _, held = heapq.heappop(self._looks)
            if held.place is Place.IDLE and held.look_at == at:
                taken.append(_in_hand(held))
        return taken

    def put_back(self, ticket_id: bytes, *, event_id: bytes | None = None) -> None:
        """A look found nothing (or failed, without ``event_id``): look again later, at a slower pace."""
        held = self._held.get(ticket_id)
        if held is None or held.place is not Place.IN_HAND:
            return
        held.place = Place.IDLE
        if event_id is not None and event_id != held.event_id:
            self._leave_siblings(held)
            held.event_id = event_id
            if event_id != ticket_id:
                self._by_event.setdefault(event_id, set()).add(ticket_id)
                # The hint may have come before we knew that it is about this ticket.
                held.hinted = held.hinted or event_id in self._early
        if held.hinted:
            self._make_urgent(held)
            return
        held.pace_s = min(held.pace_s * 2, self.settings.look_ms_max / 1000)
        self._look_later(held, self._clock.monotonic())

    def answer(self, ticket_id: bytes, reply: Reply, *, outcome: str) -> None:
        """End a ticket's waits with an answer: ``outcome`` is ``reply`` or ``status``. Harmless when all are over."""
        held = self._held.get(ticket_id)
        if held is not None:
            self._end_all(held, reply, outcome)

    def expire(self) -> float:
        """End every wait whose deadline has passed; returns seconds to the next one (inf: there is none)."""
        now = self._clock.monotonic()
        while self._deadlines:
            at, _, waiter = self._deadlines[0]
            if not waiter.gone and at > now:
                return at - now
            heapq.heappop(self._deadlines)
            if not waiter.gone:
                self._end(waiter, None, "deadline")
        return math.inf

    def next_look_s(self) -> float:
        """Seconds until a look is due, 0.0 when one is."""
        if self._urgent:
            return 0.0
        return max(0.0, self._looks[0][0] - self._clock.monotonic()) if self._looks else math.inf

    def stop(self) -> None:
        """End every wait without an answer, and let none begin."""
        self._stopped = True
        for held in list(self._held.values()):
            self._end_all(held, None, "stopped")

    def _end_all(self, held: Held, reply: Reply | None, outcome: str) -> None:
        for waiter in list(held.waiters):
            self._end(waiter, reply, outcome)

    def _end(self, waiter: Waiter, reply: Reply | None, outcome: str) -> None:
        # Forgotten before its callback runs: one that raises must not be called twice.
        self._forget(waiter)
        self._answers[outcome].value += 1
        waiter.answer(reply)

    def _forget(self, waiter: Waiter) -> None:
        held = waiter.held
        waiter.gone = True
        held.waiters.remove(waiter)
        self._waiting -= 1
        if not held.waiters:
            held.place = Place.GONE
            del self._held[held.ticket_id]
            self._leave_siblings(held)

    def _leave_siblings(self, held: Held) -> None:
        siblings = self._by_event.get(held.event_id)
        if siblings is not None:
            siblings.discard(held.ticket_id)
            if not siblings:
                del self._by_event[held.event_id]

    def _make_urgent(self, held: Held) -> None:
        if held.place is Place.IN_HAND:
            held.hinted = True
        elif held.place is Place.IDLE:
            held.place = Place.URGENT
            self._urgent.append(held)
            self.look_wanted.set()

    def _look_later(self, held: Held, now: float) -> None:
        """After its pace, but once shortly before each deadline; after that only a hint makes it worth a look."""
        last = min([waiter.last_look for waiter in held.waiters if waiter.last_look > now], default=math.inf)
        if last == math.inf:
            held.look_at = math.inf
            return
        held.look_at = min(now + held.pace_s, last)
        first = not self._looks or held.look_at < self._looks[0][0]
        heapq.heappush(self._looks, (held.look_at, next(self._order), held))
        if first:
            self.look_wanted.set()
        if len(self._looks) > 2 * len(self._held) + SLACK:
            self._looks = [e for e in self._looks if e[2].place is Place.IDLE and e[2].look_at == e[0]]
            heapq.heapify(self._looks)

    def _push_deadline(self, waiter: Waiter) -> None:
        first = not self._deadlines or waiter.deadline < self._deadlines[0][0]
        heapq.heappush(self._deadlines, (waiter.deadline, next(self._order), waiter))
        if first:
            self.deadline_wanted.set()
        if len(self._deadlines) > 2 * self._waiting + SLACK:
            self._deadlines = [e for e in self._deadlines if not e[2].gone]
            heapq.heapify(self._deadlines)


class Early:
    """Hints that came before the request that they are for, kept for a while and in bounded number."""

    def __init__(self) -> None:
        self._at: dict[bytes, float] = {}  # oldest first

    def __contains__(self, event_id: bytes) -> bool:
        return event_id in self._at

    def add(self, event_id: bytes, now: float) -> None:
        self._at.pop(event_id, None)
        self._at[event_id] = now

    def forget(self, *, before: float, most: int) -> None:
        """Those from ``before``, and the oldest beyond ``most``."""
        excess = len(self._at) - most
        stale: list[bytes] = []
        for event_id, at in self._at.items():
            if at >= before and len(stale) >= excess:
                break
            stale.append(event_id)
        for event_id in stale:
            del self._at[event_id]


def _in_hand(held: Held) -> bytes:
    held.place = Place.IN_HAND
    held.hinted = False
    return held.ticket_id
