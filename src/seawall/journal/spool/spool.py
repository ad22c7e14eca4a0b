"""Joins Kafka and the local log into one journal that no outage of Kafka stops (decision 0010).

A record goes to Kafka while Kafka answers well: its breaker is closed, and an ack of the topic means replicated. Else,
or when Kafka's ack isn't there in time, it goes to the local log, is answered from there (``fsync``), and the forwarder
brings it to Kafka later. A send that timed out may have arrived all the same: both copies carry one event id, and the
router collapses them. What Kafka refuses for the record's own sake is parked in a log apart, where it blocks nobody.

Nobody's request is the trial of an open breaker: the forwarder's records are, since they are safe already. Only where
no record can be spooled, or none is forwarded though the cluster answers questions, a fresh one has to be it: else the
breaker could never close again.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from seawall.guard.breaker import Breaker, Cause, Limits, Permit, State
from seawall.guard.dependency import fallbacks
from seawall.guard.supervisor import Heart
from seawall.journal.cluster import Settings
from seawall.kernel.alert import Alerts
from seawall.kernel.clock import Clock
from seawall.kernel.error import Overloaded, Rejected, SeawallError, Unavailable, Uncertain
from seawall.kernel.log import fields, logger
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.flag import Switch, always
from seawall.kernel.seam.journal import Done, Journal, Outcome, Position

log = logger("journal")

TICK_S = 0.05
FSYNC_SHARE = 0.1
"""Of the ack deadline: kept for the local log's sync, so that both together keep it."""

SILENCE_SHARE = 0.8
"""Of the ack deadline: when nothing at all came back for so long, records that wait are counted one by one."""

LIMITS = Limits(
    window_s=10.0, calls_min=20, failure_rate=0.5, slow_rate=0.5, slow_s=0.5, in_a_row=3, open_min_s=1.0,
    open_max_s=15.0, trials=3, trial_s=3.0,
)  # fmt: skip
"""Failures come when the ack deadline has passed, so few of them must do. The breaker takes those within a tenth of a
second as one, rightly where some acks still come; but senders that wait for their answers come back all at once, each
second, and three of such rounds are three seconds. So ``_silent`` opens it after as many records, however they came."""

WITHOUT = "events go to the local log and are forwarded later"
STATES = {State.CLOSED: 0, State.HALF_OPEN: 1, State.OPEN: 2, State.FORCED_CLOSED: 3, State.FORCED_OPEN: 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where records may go."""

    kafka: Journal
    local: Journal
    parked: Journal
    confirmed: Callable[[], bool]  # whether Kafka's ack means replicated now
    forwarding: Switch = always  # whether what is spooled is forwarded, and so a trial
    answers: Callable[[], bool] = lambda: True  # whether the newest look at the topic found it


class _Send:
    """One fresh record on its way to Kafka. Answered once: by Kafka's ack, or by the local log."""

    __slots__ = ("_payload", "_spool", "began", "done", "permit")

    def __init__(self, spool: Spool, payload: bytes, done: Done, began: float, permit: Permit | None = None) -> None:
        self._spool = spool
        self._payload: bytes | None = payload
        self.done = done
        self.began = began
        self.permit = permit  # it is a trial

    @property
    def waits(self) -> bool:
        return self._payload is not None

    def __call__(self, outcome: Outcome) -> None:
        """Kafka's word."""
        payload, self._payload = self._payload, None
        if payload is None:
            self._spool.late(outcome)
        elif isinstance(outcome, Position):
            self._spool.landed(self, payload, outcome)
        else:
            self._spool.sank(self, payload, outcome)

    def divert(self, why: SeawallError) -> bool:
        """It takes too long; False when it was answered already."""
        payload, self._payload = self._payload, None
        if payload is None:
            return False
        self._spool.sank(self, payload, why)
        return True


# Size: each record is in one of a few states, and all that may happen to it in them stands here.
class Spool:
    """Implements ``Journal``."""

    def __init__(
        self, places: Places, settings: Settings, *, clock: Clock, metrics: Metrics, alerts: Alerts, rng: random.Random
    ) -> None:  # fmt: skip
        self._places = places
        self._to_kafka = places.kafka.submit
        self._monotonic = clock.monotonic
        self._alerts = alerts
        self._limit_s, self._silence_s = (settings.ack_timeout_s * share for share in (1 - FSYNC_SHARE, SILENCE_SHARE))
        self._flight: deque[_Send] = deque()
        self._stopping = False
        self._flows = False
        self._now = clock.monotonic()  # as of the last tick
        self._slow_before = self._now - LIMITS.slow_s
        self._passed = self._slow = 0  # acks that the breaker wasn't told of yet
        self._heard_at = self._now  # when a send was last answered in time, by the tick after it
        self._unheard = 0  # sends diverted since then
        self.breaker = Breaker("kafka", LIMITS, clock=clock, rng=rng, changed=self._changed)
        counter = metrics.counter
        self.replicated = counter("seawall_journal_replicated_total", "Events answered by Kafka's ack.")
        self.spooled = counter("seawall_journal_spooled_total", "Events answered by the local log in Kafka's place.")
        self.parked = counter("seawall_journal_parked_total", "Events that Kafka won't take, kept apart.")
        self.parked_fresh = counter(
            "seawall_journal_parked_fresh_total", "Events that Kafka won't take, and that no log had before."
        )
        self._diverted = counter("seawall_kafka_diverted_total", "Sends that failed or took too long.")
        self._fallbacks = fallbacks(metrics, "kafka")
        self._late = counter("seawall_kafka_late_total", "Acks that came after their event had been spooled.")
        state = metrics.gauge(
            "seawall_breaker_state_code", "0 closed, 1 half open, 2 open, 3 and 4 forced closed and open.", to="kafka"
        )
        state.read = lambda: STATES[self.breaker.state]
        self._opened = counter("seawall_breaker_opened_total", "Times a breaker opened.", to="kafka")

    @property
    def flows(self) -> bool:
        """Whether fresh records go to Kafka now; what an ack is worth, as of the last tick."""
        return self._flows

    @property
    def refusal(self) -> SeawallError | None:
        if self._stopping:
            return Overloaded("the journal is stopping")
        if (self.flows or self._may_try) and self._places.kafka.refusal is None:
            return None
        return self._places.local.refusal

    def submit(self, payload: bytes, done: Done) -> None:
        if not self.offer(payload, done):
            self.keep(payload, done)

    def offer(self, payload: bytes, done: Done) -> bool:
        """Send a record to Kafka; False: it takes none now, or has no room for this one, and nothing was done with it.

        Raises:
            Overloaded: As ``submit``.
        """
        permit = None
        if not self._flows:
            if self._stopping:
                raise Overloaded("the journal is stopping")
            permit = self.breaker.admit() if self._may_try else None
            if permit is None:
                self._fallbacks[Cause.REJECTED].value += 1
                return False
        send = _Send(self, payload, done, self._monotonic(), permit)
        try:
            self._to_kafka(payload, send)
        except SeawallError as error:
            if permit is not None:
                self.breaker.abandoned(permit)
            if isinstance(error, Rejected):
                self._park(payload, done, error)
                return True
            # Its queue is full, or it can't send at all: nothing of this record was sent.
            self._diverted.value += 1
            self._fallbacks[Cause.REJECTED].value += 1
            return False
        self._flight.append(send)
        return True

    async def watch(self, heart: Heart) -> None:
        """Keep the ack deadline; for a supervisor."""
        while True:
            self.tick()
            refusal = self.refusal
            if refusal is None:
                await heart.beat()
            else:
                heart.unready(str(refusal))
            await asyncio.sleep(TICK_S)

    def tick(self) -> None:
        """Spool what waits for Kafka too long, and judge anew where fresh records go."""
        self._now = self._monotonic()
        self._slow_before = self._now - LIMITS.slow_s
        if self._passed:
            self.breaker.passed(self._passed, slow=self._slow)
            self._passed = self._slow = self._unheard = 0
            self._heard_at = self._now
        latest = self._now - self._limit_s
        flight = self._flight
        while flight and (flight[0].began <= latest or not flight[0].waits):
            self._unheard += flight.popleft().divert(Uncertain("Kafka's ack didn't come in time"))
        if self._silent and self.breaker.state is State.CLOSED:
            self.breaker.trip()
            self._unheard = 0
            while flight:
                # Nothing says that the others would fare better.
                flight.popleft().divert(Uncertain("Kafka doesn't answer"))
        self._judge()

    @property
    def _silent(self) -> bool:
        """Whether sends wait in vain, and nothing at all comes back."""
        return self._unheard >= LIMITS.in_a_row and self._now - self._heard_at >= self._silence_s

    @property
    def _may_try(self) -> bool:
        """Whether a fresh record has to be the trial of an open breaker."""
        closed = self.breaker.state in (State.CLOSED, State.FORCED_CLOSED)
        if closed or self._stopping or not self.breaker.admits or not self._places.confirmed():
            return False
        if self._places.local.refusal is not None:
            return True
        # A cluster that doesn't even say what its topic is like holds forwarding back (guard/declared.py): that is
        # no reason to let a sender wait. It is tried with spooled records again as soon as it answers.
        return self._places.answers() and not self._places.forwarding()

    def _answered(self, send: _Send) -> None:
        """Kafka said what it will do with a record."""
        if send.permit is not None:
            self.breaker.succeeded(send.permit)
            return
        self._passed += 1
        if send.began < self._slow_before:
            self._slow += 1

    def _judge(self) -> None:
        closed = self.breaker.state in (State.CLOSED, State.FORCED_CLOSED)
        self._flows = closed and not self._stopping and self._places.confirmed()

    def stop(self) -> None:
        """Take nothing new, and spool at once what waits for Kafka: stopping waits for no network. The local log must
        be open still. Harmless when repeated."""
        self._stopping, self._flows = True, False
        while self._flight:
            self._flight.popleft().divert(Uncertain("the journal stopped before Kafka's ack"))

    def landed(self, send: _Send, payload: bytes, position: Position) -> None:
        """Kafka has it."""
        self._answered(send)
        if position.replicated:
            self.replicated.value += 1
            send.done(position)
        else:
            # The confirmation ran out while it was on its way: nobody knows whose memory it is in. The forwarder makes
            # a copy of it, under the same event id.
            self._keep_instead(payload, send.done, Uncertain("Kafka's ack could not be called replicated"))

    def sank(self, send: _Send, payload: bytes, error: SeawallError) -> None:
        """Kafka hasn't, or not yet."""
        if isinstance(error, Rejected):
            self._answered(send)
            self._park(payload, send.done, error)
            return
        self._diverted.value += 1
        self._fallbacks[Cause.TIMEOUT if isinstance(error, Uncertain) else Cause.ERROR].value += 1
        self.breaker.failed(send.permit or Permit(send.began))
        self._keep_instead(payload, send.done, error)

    def _keep_instead(self, payload: bytes, done: Done, why: SeawallError) -> None:
        try:
            self.keep(payload, done)
        except SeawallError as refusal:
            # It may be in Kafka all the same, unless Kafka said that it certainly isn't.
            done(refusal if isinstance(why, Unavailable) else why)

    def late(self, outcome: Outcome) -> None:
        """Kafka's word on a record that was spooled meanwhile: a copy, if anything."""
        if isinstance(outcome, Position):
            self._late.value += 1

    def park(self, payload: bytes, why: Rejected, done: Done) -> None:
        """Put a spooled record aside that Kafka won't take.

        Raises:
            Overloaded, Unavailable: The log for it refuses. Nothing was kept there.
        """
        self._places.parked.submit(payload, done)
        self.parked.value += 1
        log.error("a record is parked", extra=fields(bytes=len(payload), cause=str(why)))
        self._alerts.raised(
            "records-parked", f"Kafka refuses records for their own sake, the last one: {why.detail}",
            unaffected="all other events", cure="raise the topic's max.message.bytes, then restart the collector",
        )  # fmt: skip

    def _park(self, payload: bytes, done: Done, why: Rejected) -> None:
        def kept(outcome: Outcome) -> None:
            self.parked_fresh.value += isinstance(outcome, Position)
            done(outcome)

        try:
            self.park(payload, why, kept)
        except SeawallError as error:
            done(error)

    def keep(self, payload: bytes, done: Done) -> None:
        """Put a record into the local log, past Kafka; also while stopping, for what was taken before.

        Raises:
            Overloaded, Unavailable: As the local log. Nothing was kept.
        """

        def kept(outcome: Outcome) -> None:
            self.spooled.value += isinstance(outcome, Position)
            done(outcome)

        self._places.local.submit(payload, kept)

    def _changed(self, breaker: Breaker, before: State, after: State) -> None:
        self._judge()
        said = fields(breaker=breaker.name, before=before.value, after=after.value)
        if after in (State.OPEN, State.FORCED_OPEN):
            self._opened.value += before is not State.HALF_OPEN
            log.warning("a breaker opened", extra=said)
            self._alerts.raised(
                "breaker-open", f"Kafka doesn't answer in time; {WITHOUT}", unaffected="accepting events",
                cure="seawall breakers list", breaker="kafka",
            )  # fmt: skip
        elif after in (State.CLOSED, State.FORCED_CLOSED):
            log.info("a breaker closed", extra=said)
            self._alerts.cleared("breaker-open", breaker="kafka")
