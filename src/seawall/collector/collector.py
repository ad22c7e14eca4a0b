"""The collector itself: the listening socket, its connections, their deadlines, and stopping in order."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from random import Random
from types import TracebackType

from seawall.collector.admission import Admission
from seawall.collector.crowd import Crowd
from seawall.collector.deadline import breach_of
from seawall.collector.duplicate import Duplicates
from seawall.collector.exchange import ANSWERED, SUBMITTED, Exchange
from seawall.collector.intake import Ids, Intake
from seawall.collector.look_up import LookUps
from seawall.collector.overflow import Overflow
from seawall.collector.parser import Connection
from seawall.collector.rate import Rates
from seawall.collector.receipt import Receipts
from seawall.collector.route import Routes
from seawall.collector.setting import Settings
from seawall.collector.snapshot import Snapshot
from seawall.guard import Heart, Supervisor
from seawall.guard.limiter import LocalLimiter
from seawall.guard.supervisor import LoopHealth
from seawall.kernel.clock import Clock, Deadline
from seawall.kernel.error import Misconfigured
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Counter, Metrics
from seawall.kernel.seam.event import Events
from seawall.kernel.seam.journal import Journal
from seawall.kernel.seam.limiter import Limiter
from seawall.kernel.seam.ticket import Waiting

log = logger("collector")

BACKLOG = 1024
STOP_POLL_S = 0.01
LAST_WORDS_S = 0.5
"""Part of the stopping budget that is kept for sending the last answers."""

_Done = Callable[[Connection], bool]


class Collector:
    """Takes events in over HTTP. ``async with`` listens; leaving stops with a budget of one second.

    Args:
        listen: HOST:PORT (port 0 picks a free one), or a socket that listens already: then clients wait in its queue
            while this process is started again.
        journal, waiting, events: Seams of other rooms. None of them is ever waited for, except the journal.
        random: For jitter only.
        limiter: Counts what sources, tenants and readers send; None: in this process alone.
    """

    def __init__(
        self, settings: Settings, *, listen: str | socket.socket, journal: Journal, snapshot: Snapshot,
        waiting: Waiting, events: Events, clock: Clock, metrics: Metrics, ids: Ids, random: Random | None = None,
        limiter: Limiter | None = None,
    ) -> None:  # fmt: skip
        self.settings = settings
        self.now = clock.monotonic()
        self.stopping = False
        random = random or Random()
        self.receipts = Receipts(clock, random)
        self._listen = listen
        self._clock = clock
        self._snapshot = snapshot
        self._server: asyncio.Server | None = None
        self._connections = Crowd()
        self._bodies_bytes = 0
        self._supervisor: Supervisor | None = None
        self._rates = Rates(
            settings, limiter=limiter or LocalLimiter(clock), snapshot=snapshot, receipts=self.receipts,
            metrics=metrics, random=random,
        )  # fmt: skip
        self._admission = Admission(
            snapshot=snapshot, journal=journal, receipts=self.receipts, rates=self._rates,
            body_bytes_max=settings.body_bytes_max,
        )  # fmt: skip
        self._intake = Intake(
            admission=self._admission, rates=self._rates, journal=journal, waiting=waiting, snapshot=snapshot,
            receipts=self.receipts, duplicates=Duplicates(settings.duplicates_max), ids=ids, clock=clock,
            metrics=metrics,
        )  # fmt: skip
        self._look_ups = LookUps(
            settings, events=events, waiting=waiting, receipts=self.receipts, rates=self._rates, clock=clock
        )
        routes = Routes(
            admission=self._admission, intake=self._intake, look_ups=self._look_ups, receipts=self.receipts,
            journal=journal, health=self._health,
        )  # fmt: skip
        self.begin, self.complete = routes.begin, routes.complete
        self.settled, self.gone = self._intake.settled, self._intake.gone
        self._metrics = metrics
        self._answers: dict[bytes, Counter] = {}
        self._overflow = Overflow(self.count)
        self._measure(metrics)

    def _measure(self, metrics: Metrics) -> None:
        self._truncated = metrics.counter("seawall_truncated_total", "Requests whose client left before their end.")
        self._closed_early = metrics.counter("seawall_connections_refused_total", "Connections over a cap.")
        self._cut = metrics.counter("seawall_connections_cut_total", "Connections that passed a deadline.")
        metrics.gauge("seawall_connections_count", "Open connections.").read = lambda: len(self._connections)
        metrics.gauge("seawall_held_count", "Requests that wait for a reply.").read = lambda: self._intake.held
        metrics.gauge("seawall_bodies_bytes", "Bodies being received.").read = lambda: self._bodies_bytes

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def register(self, supervisor: Supervisor) -> None:
        """Add the sweep over connections, and the snapshot's loops."""
        self._supervisor = supervisor
        supervisor.add("collector.sweep", self._sweep)
        self._snapshot.register(supervisor)

    def reload(self, settings: Settings) -> None:
        """Go on with other limits and deadlines, at once and without touching a connection. ``duplicates_max`` stays
        as it was at the start."""
        self.settings = self._look_ups.settings = settings
        self._admission.body_bytes_max = settings.body_bytes_max
        self._rates.reload(settings)
        self._snapshot.reload(settings)

    @property
    def port(self) -> int:
        """The port that is listened on."""
        assert self._server is not None and self._server.sockets, "the collector isn't open"
        return int(self._server.sockets[0].getsockname()[1])

    async def __aenter__(self) -> Collector:
        await self._snapshot.open()
        self.now = self._clock.monotonic()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), sock=_bound(self._listen), backlog=BACKLOG)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop(1.0)

    async def stop(self, budget_s: float) -> None:
        """Stop in order: no new connections, holds end with 202 and Location, requests in flight are finished, and what
        isn't done in time is told so. Nobody is reset without an answer. Harmless when called twice.

        Cancelled: connections that are left are closed by the loop's end; nothing that was acknowledged is touched.
        """
        if self._server is None or self.stopping:
            return
        deadline = Deadline.after(budget_s, self._clock)
        self.stopping = self._admission.stopping = True
        self._server.close()
        for x in self._exchanges():
            self._intake.let_go(x)
        for connection in self._connections:
            connection.leave()
        await self._until(lambda c: not c.queue and c.exchange is None, deadline.left_s(self._clock) - LAST_WORDS_S)
        await self._look_ups.close()
        self._last_words()
        await self._until(lambda c: c.quiet, min(LAST_WORDS_S, deadline.left_s(self._clock)))
        for connection in self._connections:
            connection.abort()
        self._overflow.close()
        await self._snapshot.close()

    async def _until(self, done: _Done, budget_s: float) -> None:
        deadline = Deadline.after(budget_s, self._clock)
        # Polled, since part of what is waited for (sent bytes) gives no event of its own.
        while deadline.left_s(self._clock) and not all(map(done, self._connections)):  # noqa: ASYNC110
            await asyncio.sleep(STOP_POLL_S)

    def _last_words(self) -> None:
        for x in self._exchanges():
            if x.stage == SUBMITTED:
                x.answer(self._intake.uncertain("this collector stops before the journal has answered"))
            elif x.stage != ANSWERED:
                x.answer(self.receipts.unavailable("stopping"))
        for connection in self._connections:
            connection.cut(self.receipts.unavailable("stopping", "this collector is stopping"))

    def _exchanges(self) -> list[Exchange]:
        return [x for connection in self._connections for x in connection.queue]

    def _health(self) -> list[LoopHealth]:
        return self._supervisor.health() if self._supervisor is not None else []

    # ── connections tell ─────────────────────────────────────────────────────────────────────────────────────────

    def opened(self, connection: Connection) -> bool:
        limits = self.settings
        welcome = not self.stopping and self._connections.enter(
            connection, all_max=limits.connections_max, each_max=limits.connections_per_ip_max
        )
        if not welcome:
            self._closed_early.value += 1
            assert connection.transport is not None, "it was just made"
            self._overflow.take(connection.transport)
        return welcome

    def closed(self, connection: Connection) -> None:
        self._connections.leave(connection)

    def keep(self, count_bytes: int) -> bool:
        total = self._bodies_bytes + count_bytes
        if count_bytes > 0 and total > self.settings.bodies_bytes_max:
            return False
        self._bodies_bytes = total
        return True

    def count(self, status: bytes) -> None:
        counter = self._answers.get(status)
        if counter is None:
            counter = self._metrics.counter("seawall_answers_total", "Answers by status.", status=status.decode())
            self._answers[status] = counter
        counter.value += 1

    def truncated(self) -> None:
        self._truncated.value += 1

    def too_large(self, x: Exchange) -> bytes:
        return self._admission.too_large(x, x.body_bytes_max)

    # ── deadlines ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _sweep(self, heart: Heart) -> None:
        while True:
            self.now = self._intake.now = self._clock.monotonic()
            self.receipts.tick()
            unacknowledged = sum([self._hold_to_deadline(connection) for connection in self._connections])
            if unacknowledged:
                log.error("the journal didn't answer in time", extra=fields(requests=unacknowledged))
            await heart.beat()
            await asyncio.sleep(self.settings.sweep_s)

    def _hold_to_deadline(self, c: Connection) -> int:
        """Returns how many requests were given up since the journal didn't answer."""
        breach = breach_of(c, self.settings, self.now)
        if breach is not None:
            self._cut.value += not c.lingering
            if breach:
                c.fail(408, "request timeout", breach)
            else:
                c.abort()
        late = [x for x in c.queue if x.stage == SUBMITTED and self.now - x.submitted_at > self.settings.ack_s]
        for x in late:
            x.answer(self._intake.uncertain("the journal didn't answer in time"))
        return len(late)


def _bound(listen: str | socket.socket) -> socket.socket:
    if isinstance(listen, socket.socket):
        return listen
    host, _, port = listen.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), int(port)), family=family, backlog=BACKLOG)
    except (OSError, ValueError, OverflowError) as error:
        raise Misconfigured([f"listen = {listen!r}: {error}"]) from error
