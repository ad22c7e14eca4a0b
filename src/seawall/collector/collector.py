"""The collector itself: the listening socket, its connections, their deadlines, and stopping in order."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import TracebackType

from seawall.collector.admission import Admission
from seawall.collector.alarm import SnapshotAlarm
from seawall.collector.approval import ApprovalPages
from seawall.collector.certificate import Certificate
from seawall.collector.deadline import breach_of, now_for_clients
from seawall.collector.door import Door
from seawall.collector.duplicate import Duplicates
from seawall.collector.exchange import ANSWERED, HELD, SUBMITTED, Exchange
from seawall.collector.hold import Holds
from seawall.collector.intake import Ids, Intake
from seawall.collector.look_up import LookUps
from seawall.collector.network import Networks
from seawall.collector.parser import Connection
from seawall.collector.rate import Rates
from seawall.collector.receipt import Receipts
from seawall.collector.reception import Reception
from seawall.collector.route import Routes
from seawall.collector.setting import Settings
from seawall.collector.share import Shares
from seawall.collector.snapshot import Snapshot
from seawall.guard import Heart, Supervisor
from seawall.guard.budget import Budget
from seawall.guard.limiter import LocalLimiter
from seawall.guard.pressure import LOOP_LAG, MEMORY
from seawall.guard.shed import ShedList, declared
from seawall.guard.supervisor import LoopHealth
from seawall.kernel.alert import Alerts
from seawall.kernel.approval import Links
from seawall.kernel.clock import Clock
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Counter, Metrics
from seawall.kernel.seam.approval import Approvals
from seawall.kernel.seam.backlog import Backlog
from seawall.kernel.seam.event import Events
from seawall.kernel.seam.flag import Switch, always
from seawall.kernel.seam.journal import Journal
from seawall.kernel.seam.limiter import Limiter
from seawall.kernel.seam.ticket import Waiting

log = logger("collector")

STOP_POLL_S = 0.01
LAST_WORDS_S = 0.5
"""Part of the stopping budget that is kept for sending the last answers."""

_Done = Callable[[Connection], bool]


# Size: it builds and joins all parts of the room, and is what connections tell.
class Collector:
    """Takes events in over HTTP. ``async with`` listens; leaving stops with a budget of one second.

    Args:
        listen: HOST:PORT (port 0 picks a free one), or a socket that listens already: then clients wait in its queue
            while this process is started again.
        journal, waiting, events: Seams of other rooms. None of them is ever waited for, except the journal.
        random: For jitter only.
        limiter: Counts what sources, tenants and readers send; None: in this process alone.
        backlog: Says what waits on our disk; None: no share of it is ever used up.
        kept_days: For how long the store keeps an event at least.
        approvals, links: Who decides requests to people, and opens their links; None: no link is one of ours.
    """

    def __init__(
        self, settings: Settings, *, listen: str | socket.socket, journal: Journal, snapshot: Snapshot,
        waiting: Waiting, events: Events, clock: Clock, metrics: Metrics, ids: Ids, random: Random | None = None,
        limiter: Limiter | None = None, alerts: Alerts | None = None, shed: ShedList | None = None,
        backlog: Backlog | None = None, holding: Switch = always, kept_days: int = 30,
        approvals: Approvals | None = None, links: Links | None = None,
    ) -> None:  # fmt: skip
        self.settings = settings
        self.now = 0.0
        self.stopping = False
        random = random or Random()
        self.receipts = Receipts(clock, random)
        self._clock = clock
        self._snapshot = snapshot
        self._opened = False
        self._supervisor: Supervisor | None = None
        self._rates = Rates(
            settings, limiter=limiter or LocalLimiter(clock), snapshot=snapshot, receipts=self.receipts,
            metrics=metrics, random=random,
        )  # fmt: skip
        alerts = alerts or Alerts(metrics, clock)
        self._shares = Shares(
            settings, backlog, snapshot=snapshot, receipts=self.receipts, clock=clock, metrics=metrics, alerts=alerts,
            random=random,
        )  # fmt: skip
        self._alarm = SnapshotAlarm(settings, snapshot, alerts=alerts, clock=clock)
        self._admission = Admission(
            snapshot=snapshot, journal=journal, receipts=self.receipts, rates=self._rates,
            body_bytes_max=settings.body_bytes_max, clock=clock, shares=self._shares,
        )  # fmt: skip
        self._holds = Holds(waiting, self.receipts, stopping=lambda: self.stopping, holding=holding)
        self._intake = Intake(
            admission=self._admission, rates=self._rates, journal=journal, holds=self._holds, snapshot=snapshot,
            receipts=self.receipts, duplicates=Duplicates(settings.duplicates_max), ids=ids, clock=clock,
            metrics=metrics, shares=self._shares,
        )  # fmt: skip
        self._look_ups = LookUps(
            settings, events=events, waiting=waiting, receipts=self.receipts, rates=self._rates, ids=ids, clock=clock,
            holds=self._holds, kept_days=kept_days,
            wanted=declared(
                shed, "look-ups", rank=50, eases=(LOOP_LAG, MEMORY),
                without="GET /in/events/ID and /in/tickets/ID answer 202 without asking the store",
            ),
        )  # fmt: skip
        self._approvals = ApprovalPages(
            settings, approvals=approvals, links=links, receipts=self.receipts, rates=self._rates, clock=clock,
            metrics=metrics,
        )  # fmt: skip
        routes = Routes(
            admission=self._admission, intake=self._intake, look_ups=self._look_ups, receipts=self.receipts,
            journal=journal, health=self._health, snapshot=snapshot, approvals=self._approvals,
        )  # fmt: skip
        self._metrics = metrics
        self._answers: dict[bytes, Counter] = {}
        self._reception = reception = Reception(self, begin=routes.begin, metrics=metrics)
        self._connections = reception.crowd
        self._certificate = _certificate(settings, alerts, clock, metrics)
        self._door = Door(
            self, reception.crowd, listen=listen, certificate=self._certificate, proxies=Networks(settings.proxies),
            refused=reception.turned_away,
        )  # fmt: skip
        self.begin, self.complete = reception.begin, routes.complete
        self.settled, self.gone = self._intake.settled, self._intake.gone
        self.opened, self.closed, self.keep = reception.opened, reception.crowd.leave, reception.keep
        self._measure(metrics)

    def _measure(self, metrics: Metrics) -> None:
        self._truncated = metrics.counter("seawall_truncated_total", "Requests whose client left before their end.")
        self._cut = metrics.counter("seawall_connections_cut_total", "Connections that passed a deadline.")
        metrics.gauge("seawall_held_count", "Requests that wait for a reply.").read = lambda: self._holds.count

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def register(self, supervisor: Supervisor) -> None:
        """Add the sweep over connections, the snapshot's loops, and who tells of their failures."""
        self._supervisor = supervisor
        supervisor.add("collector.sweep", self._sweep)
        if self._certificate is not None:
            supervisor.add("collector.certificate", self._certificate.watch, essential=False)
        self._snapshot.register(supervisor)
        self._alarm.register(supervisor)
        self._shares.register(supervisor)

    def reload(self, settings: Settings, *, kept_days: int | None = None) -> None:
        """Go on with other limits and deadlines, at once and without touching a connection, and load the certificate
        again. ``duplicates_max`` and who is trusted stay as they were at the start.

        Args:
            kept_days: As at the start; None: as it was.
        """
        if self._certificate is not None:
            self._certificate.reload()
        self.settings = self._look_ups.settings = self._approvals.settings = self._shares.settings = (
            self._alarm.settings
        ) = settings
        if kept_days is not None:
            self._look_ups.kept_days = kept_days
        self._admission.body_bytes_max = settings.body_bytes_max
        self._rates.reload(settings)
        self._snapshot.reload(settings)

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._door.port

    async def __aenter__(self) -> Collector:
        await self._snapshot.open()
        await self._door.open()
        self._opened = True
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
        if not self._opened or self.stopping:
            return
        budget = Budget(budget_s, self._clock)
        self.stopping = self._admission.stopping = True
        self._door.close()
        for x in self._exchanges():
            self._intake.let_go(x)
        for connection in self._connections:
            connection.leave()
        await self._until(lambda c: not c.queue and c.exchange is None, budget.part(keep_s=LAST_WORDS_S))
        await self._look_ups.close(budget.part(keep_s=LAST_WORDS_S))
        await self._approvals.close(budget.part(keep_s=LAST_WORDS_S))
        self._last_words()
        await self._until(lambda c: c.quiet, budget.part(LAST_WORDS_S))
        for connection in self._connections:
            connection.abort()
        self._reception.overflow.close()
        await self._snapshot.close()

    async def _until(self, done: _Done, budget: Budget) -> None:
        # Polled, since part of what is waited for (sent bytes) gives no event of its own.
        while not budget.spent and not all(map(done, self._connections)):  # noqa: ASYNC110
            await asyncio.sleep(STOP_POLL_S)

    def _last_words(self) -> None:
        for x in self._exchanges():
            if x.stage == SUBMITTED:
                x.answer(self._intake.uncertain("this collector stops before the journal has answered"))
            elif x.stage == HELD:
                self._intake.let_go(x)  # its event is safe: never a 503
            elif x.stage != ANSWERED:
                x.answer(self.receipts.unavailable("stopping"))
        for connection in self._connections:
            connection.cut(self.receipts.unavailable("stopping", "this collector is stopping"))

    def _exchanges(self) -> list[Exchange]:
        return [x for connection in self._connections for x in connection.queue]

    def _health(self) -> list[LoopHealth]:
        return self._supervisor.health() if self._supervisor is not None else []

    # ── connections tell ─────────────────────────────────────────────────────────────────────────────────────────

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
        at = self._clock.monotonic()
        while True:
            last, at = at, self._clock.monotonic()
            self.now = self._intake.now = now_for_clients(self.now, at - last, self.settings.sweep_s)
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


def _certificate(settings: Settings, alerts: Alerts, clock: Clock, metrics: Metrics) -> Certificate | None:
    if not settings.tls_certificate:
        return None
    files = Path(settings.tls_certificate), Path(settings.tls_key)
    return Certificate(*files, alerts=alerts, clock=clock, metrics=metrics)
