"""The room's main object: what the collector holds to let requests wait and to tell what became of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType

from seawall.guard import Heart, Supervisor
from seawall.guard.budget import Budget
from seawall.kernel.alert import Alerts
from seawall.kernel.approval import Claim
from seawall.kernel.clock import Clock, SystemClock
from seawall.kernel.error import Unavailable
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.approval import Asked, Decision
from seawall.kernel.seam.event import EventBrief
from seawall.kernel.seam.hint import HintChannel
from seawall.kernel.seam.ticket import Answer, Reply
from seawall.responder.answer import answer_of, forgotten, is_over
from seawall.responder.listener import Listener
from seawall.responder.reader import IDLE_S, Reader, answer
from seawall.responder.setting import Settings
from seawall.responder.waiting import Board
from seawall.store import approval, pool, ticket
from seawall.store.hint import NotifyHints
from seawall.store.pool import Store


class Responder:
    """Implements the seams ``Waiting``, ``Events`` and ``Approvals`` over PostgreSQL.

    Its connections are its own, and those that answer questions are apart from those that end waits: a flood of
    questions can't delay a held request.

    Args:
        store: How to reach the store; its bounds of number and time are replaced by the room's own.
        channels: What hints may come through beside PostgreSQL's own. Each has a listener; the caller closes it.
        listener: Makes a channel's listener.
    """

    def __init__(
        self,
        store: pool.Settings,
        settings: Settings | None = None,
        *,
        metrics: Metrics,
        clock: Clock | None = None,
        alerts: Alerts | None = None,
        channels: Sequence[HintChannel] = (),
        rng: random.Random | None = None,
        listener: type[Listener] = Listener,
    ) -> None:
        self._settings = settings or Settings()
        rng = rng or random.Random()
        read_s = self._settings.read_timeout_ms / 1000
        bounded = replace(store, connect_timeout_s=min(store.connect_timeout_s, read_s), statement_timeout_s=read_s)
        self._reading = Store(replace(bounded, connections_max=1), role="reader")
        self._asking = Store(replace(bounded, connections_max=self._settings.connections_max), role="responder")
        self._clock = clock or SystemClock()
        self._board = Board(self._settings, clock=self._clock, metrics=metrics)
        self._reader = Reader(self._board, self._reading, self._settings, clock=self._clock, metrics=metrics, rng=rng)
        # Its own: an echo that waits for a connection in use would be taken for one that was lost.
        self._echoing = Store(replace(bounded, connections_max=1), role="echo")
        alerts = alerts or Alerts(metrics, self._clock)
        self._listeners = {
            channel.name: listener(
                self._board, channel, self._settings, clock=self._clock, metrics=metrics, alerts=alerts, rng=rng
            )
            for channel in (NotifyHints(self._echoing), *channels)
        }

    async def __aenter__(self) -> Responder:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        await self._reading.close()
        await self._asking.close()
        await self._echoing.close()

    def register(self, supervisor: Supervisor) -> None:
        """Add the room's loops. None is essential: intake is ready without the store."""
        for name, listener in self._listeners.items():
            supervisor.add(f"responder.listener.{name}", listener.run, essential=False)
        supervisor.add("responder.reader", self._reader.run, essential=False)
        supervisor.add("responder.deadline", self._expire, essential=False)

    def reload(self, settings: Settings) -> None:
        """Go on with other bounds; requests that are held already keep the times they were given."""
        self._settings = self._board.settings = self._reader.settings = settings
        for listener in self._listeners.values():
            listener.settings = settings

    def hold(self, ticket_id: bytes, *, wait_ms: int, answer: Answer) -> None:
        """See ``Waiting``."""
        self._board.hold(ticket_id, wait_ms=wait_ms, answer=answer)

    def drop(self, ticket_id: bytes, answer: Answer) -> None:
        """See ``Waiting``."""
        self._board.drop(ticket_id, answer)

    async def look_up(self, ticket_id: bytes, *, timeout_s: float) -> Reply | None:
        """See ``Waiting``: any event's id is taken, also one whose sender didn't wait."""
        budget = Budget(timeout_s, self._clock)
        try:
            async with asyncio.timeout(timeout_s):
                [outcome] = await ticket.outcomes(self._asking, [ticket_id], timeout_s=budget.left_s)
                if outcome.status is None:
                    return None
                if outcome.forgotten:
                    return forgotten(outcome)
                if not is_over(outcome):
                    return answer_of(outcome)
                return await answer(self._asking, outcome, budget)
        except TimeoutError as error:
            raise Unavailable("PostgreSQL", f"no answer within {timeout_s:g} s") from error

    async def status(self, id: bytes, *, timeout_s: float) -> EventBrief | None:
        """See ``Events``."""
        try:
            async with asyncio.timeout(timeout_s):
                return await ticket.event_status(self._asking, id, timeout_s=timeout_s)
        except TimeoutError as error:
            raise Unavailable("PostgreSQL", f"no answer within {timeout_s:g} s") from error

    async def find(self, claim: Claim, *, timeout_s: float) -> Asked | None:
        """See ``Approvals``."""
        try:
            async with asyncio.timeout(timeout_s):
                return await approval.find(self._asking, claim, timeout_s=timeout_s)
        except TimeoutError as error:
            raise Unavailable("PostgreSQL", f"no answer within {timeout_s:g} s") from error

    async def decide(self, claim: Claim, decision: Decision, *, timeout_s: float) -> tuple[Asked | None, bool]:
        """See ``Approvals``."""
        return await approval.decide(self._asking, claim, decision, clock=self._clock, timeout_s=timeout_s)

    def stop(self) -> None:
        """End every wait with None (its request is answered 202 with its Location). Harmless when called twice."""
        self._board.stop()

    async def _expire(self, heart: Heart) -> None:
        """Ends waits on time, whatever the store and the other loops do."""
        while True:
            await heart.beat()
            self._board.deadline_wanted.clear()
            wait_s = min(IDLE_S, self._board.expire())
            try:
                async with asyncio.timeout(wait_s):
                    await self._board.deadline_wanted.wait()
            except TimeoutError:
                pass
