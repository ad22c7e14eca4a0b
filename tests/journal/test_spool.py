"""Where a record goes, and when its sender hears of it, whatever Kafka does: in steps of a clock of our own."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

import pytest

from seawall.guard.breaker import State
from seawall.journal.cluster import Settings
from seawall.journal.spool.spool import TICK_S, Places, Spool
from seawall.kernel.alert import Alerts
from seawall.kernel.error import Overloaded, SeawallError, Uncertain
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.journal import Done, Outcome, Position
from seawall.testing import ManualClock

SYNC_S = 0.01
ACK_S = 0.01
ANSWER_S = 1.1
OPEN_S = 2.0
KAFKA, LOCAL = b"k" * 16, b"l" * 16


@dataclass
class Away:
    """A journal that answers so much later, or never."""

    clock: ManualClock
    log_id: bytes
    after_s: float | None
    replicated: bool = False
    refusal: SeawallError | None = None
    sent: deque[tuple[float | None, Done]] = field(default_factory=deque)

    def submit(self, payload: bytes, done: Done) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.sent.append((None if self.after_s is None else self.clock.monotonic() + self.after_s, done))

    def answer(self) -> None:
        due, self.sent = self.sent, deque()
        for at, done in due:
            if at is not None and at <= self.clock.monotonic() + 1e-9:
                done(Position(self.log_id, 1, 1, b"", self.replicated))
            else:
                self.sent.append((at, done))


@dataclass
class Answer:
    """One sender's."""

    took_s: float
    outcome: Outcome


class World:
    """A spool, Kafka, and the local log."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.kafka = Away(self.clock, KAFKA, ACK_S, replicated=True)
        self.local, self.parked = (Away(self.clock, LOCAL, SYNC_S) for _ in range(2))
        metrics = Metrics()
        self.forwarding = self.topic_found = True
        places = Places(
            kafka=self.kafka, local=self.local, parked=self.parked, confirmed=lambda: True,
            forwarding=lambda **_: self.forwarding, answers=lambda: self.topic_found,
        )  # fmt: skip
        self.spool = Spool(
            places, Settings(), clock=self.clock, metrics=metrics, alerts=Alerts(metrics, self.clock),
            rng=random.Random(7),
        )  # fmt: skip
        self.metrics = metrics
        self.answers: list[Answer] = []
        self.waiting = 0
        self._tick_at = 0.0
        self.spool.tick()

    @property
    def opened(self) -> bool:
        return self.spool.breaker.state is State.OPEN

    def send(self, count: int = 1) -> None:
        began = self.clock.monotonic()

        def done(outcome: Outcome) -> None:
            self.waiting -= 1
            self.answers.append(Answer(self.clock.monotonic() - began, outcome))

        for _ in range(count):
            self.waiting += 1
            self.spool.submit(b"x", done)

    def step(self, seconds: float = 0.001) -> None:
        self.clock.advance(seconds)
        self.kafka.answer()
        self.local.answer()
        if self.clock.monotonic() >= self._tick_at:
            self._tick_at = self.clock.monotonic() + TICK_S
            self.spool.tick()

    def run(self, seconds: float, *, every_s: float, count: int = 1) -> None:
        """Send so many every so often."""
        end = due = self.clock.monotonic()
        end += seconds
        while self.clock.monotonic() < end:
            if self.clock.monotonic() >= due:
                self.send(count)
                due += every_s
            self.step()

    def positions(self) -> list[Position]:
        for each in self.answers:
            assert isinstance(each.outcome, Position), each.outcome
        return [each.outcome for each in self.answers if isinstance(each.outcome, Position)]


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize(("every_s", "count"), [(0.1, 1), (0.02, 1), (0.001, 1), (0.005, 10), (1.0, 10), (0.5, 5)])
def test_a_black_hole_opens_the_breaker_in_two_seconds_however_records_come(
    world: World, every_s: float, count: int
) -> None:
    """Ten a second at least; and ten at once each second, as senders come that wait for their answers."""
    world.run(5.0, every_s=every_s, count=count)
    assert not any(not position.replicated for position in world.positions())
    world.kafka.after_s, began = None, world.clock.monotonic()
    while not world.opened:
        world.run(max(every_s, 0.05), every_s=every_s, count=count)
        assert world.clock.monotonic() - began <= OPEN_S
    world.run(1.0, every_s=every_s, count=count)
    assert max(answer.took_s for answer in world.answers) <= ANSWER_S
    assert world.positions(), "nobody was refused"


def test_senders_that_each_wait_for_their_answer_open_it_as_soon(world: World) -> None:
    world.run(1.0, every_s=0.05, count=10)
    world.kafka.after_s, began = None, world.clock.monotonic()
    while not world.opened:
        if world.waiting < 10:
            world.send(10 - world.waiting)
        world.step()
        assert world.clock.monotonic() - began <= OPEN_S
    assert max(answer.took_s for answer in world.answers) <= ANSWER_S


def test_when_it_opens_those_who_wait_still_are_answered_at_once(world: World) -> None:
    world.kafka.after_s = None
    while not world.opened:
        world.run(0.05, every_s=0.01)
    world.step(SYNC_S)
    assert world.waiting == 0
    assert not any(position.replicated for position in world.positions())


def test_one_broker_of_three_that_is_silent_is_no_silence(world: World) -> None:
    """Two thirds are acknowledged in time; the others wait their second and go to the local log."""
    for n in range(300):
        world.kafka.after_s = None if n % 3 == 0 else ACK_S
        world.run(0.02, every_s=0.02)
    assert not world.opened
    assert max(answer.took_s for answer in world.answers) <= ANSWER_S


def test_one_slow_ack_after_an_idle_hour_opens_nothing(world: World) -> None:
    world.run(1.0, every_s=0.1)
    world.step(3600.0)
    world.kafka.after_s = None
    world.send()
    world.kafka.after_s = ACK_S
    world.run(3.0, every_s=0.5)
    assert not world.opened and len(world.positions()) == len(world.answers)


def test_a_breaker_that_closed_again_begins_anew(world: World) -> None:
    world.kafka.after_s = None
    while not world.opened:
        world.run(0.05, every_s=0.01)
    world.kafka.after_s = ACK_S
    world.step(60.0)
    for _ in range(world.spool.breaker.limits.trials):
        permit = world.spool.breaker.admit()
        assert permit is not None
        world.spool.breaker.succeeded(permit)
    world.run(0.5, every_s=0.01)
    assert not world.opened
    assert world.positions()[-1].replicated


def test_forced_closed_everybody_waits_a_second_and_nobody_less(world: World) -> None:
    world.spool.breaker.force(State.FORCED_CLOSED)
    world.kafka.after_s = None
    world.run(4.0, every_s=0.1)
    assert min(answer.took_s for answer in world.answers) > 0.85
    world.kafka.after_s = ACK_S
    world.run(1.0, every_s=0.1)
    assert world.positions()[-1].replicated


def test_an_ack_that_cant_be_called_replicated_is_made_durable_here(world: World) -> None:
    """The look at the topic grew old while the record was on its way; its sender gets a 2xx all the same, in time."""
    world.kafka.after_s, world.kafka.replicated = 0.5, False
    world.send(3)
    world.run(1.0, every_s=9.0)
    answers = world.answers[:3]
    assert [answer.outcome for answer in answers] == [Position(LOCAL, 1, 1)] * 3
    assert not any(position.replicated for position in world.positions())
    assert max(answer.took_s for answer in answers) <= ANSWER_S
    assert world.spool.breaker.state is State.CLOSED, "Kafka did answer"


def test_such_an_ack_is_uncertain_only_when_the_local_log_takes_nothing_either(world: World) -> None:
    world.kafka.replicated = False
    world.send()
    world.local.refusal = Overloaded("the disk is full")
    world.step(ACK_S)
    assert isinstance(world.answers[0].outcome, Uncertain)


def test_a_spool_that_stops_takes_nothing_new_and_keeps_what_waits(world: World) -> None:
    world.kafka.after_s = None
    world.send(5)
    world.spool.stop()
    world.spool.tick()
    with pytest.raises(Overloaded):
        world.send()
    world.step(SYNC_S)
    assert [position.log_id for position in world.positions()] == [LOCAL] * 5


def test_what_went_to_the_local_log_is_counted_by_cause(world: World) -> None:
    def causes() -> dict[str, float]:
        name = "seawall_dependency_fallbacks_total"
        return {dict(s.labels)["cause"]: s.value for s in world.metrics.samples() if s.name == name}

    world.run(1.0, every_s=0.05)
    assert not any(causes().values())
    world.kafka.after_s = None
    while not world.opened:
        world.run(0.05, every_s=0.05)
    late = causes()["timeout"]
    assert late > 0
    assert causes()["error"] == 0
    world.run(0.5, every_s=0.05)
    assert causes()["rejected"] >= 9, "the breaker is open: nobody asks"
    assert causes()["timeout"] == late
    world.spool.breaker.force(State.FORCED_CLOSED)
    world.kafka.refusal, before = Overloaded("its queue is full"), causes()["rejected"]
    world.run(0.2, every_s=0.05)
    assert causes()["rejected"] > before


@pytest.mark.parametrize("why", ["nothing can be spooled", "nothing is forwarded"])
def test_where_no_spooled_record_can_be_the_trial_a_fresh_one_is(world: World, why: str) -> None:
    """Else a breaker that a short outage opened would stay open for as long as the disk is full."""
    world.run(1.0, every_s=0.05)
    world.kafka.after_s = None
    if why == "nothing is forwarded":
        world.forwarding = False
    while not world.opened:
        world.run(0.05, every_s=0.05)
    if why == "nothing can be spooled":
        world.local.refusal = Overloaded("the disk is full")
    refused = 0
    world.kafka.after_s = ACK_S
    for _ in range(200):
        if world.spool.refusal is None:
            world.send()
        else:
            refused += 1
        for _ in range(50):
            world.step()
    assert world.spool.breaker.state is State.CLOSED
    assert refused < 100
    before = len(world.answers)
    world.run(1.0, every_s=0.05)
    assert all(answer.outcome.replicated for answer in world.answers[before:] if isinstance(answer.outcome, Position))


def test_such_a_trial_that_fails_costs_one_sender_a_second_and_the_others_nothing(world: World) -> None:
    world.kafka.after_s, world.forwarding = None, False
    while not world.opened:
        world.run(0.05, every_s=0.05)
    world.run(2.0, every_s=0.05)
    world.answers.clear()
    world.run(60.0, every_s=0.05)
    slow = [answer for answer in world.answers if answer.took_s > 2 * SYNC_S]
    assert 0 < len(slow) < 12, "trials become rare"
    assert max(answer.took_s for answer in slow) <= ANSWER_S
    assert all(isinstance(answer.outcome, Position) for answer in world.answers)


def test_no_sender_waits_for_a_cluster_that_does_not_even_say_what_its_topic_is_like(world: World) -> None:
    """Forwarding is held back then, too, since it needs the topic: one event in a few seconds was the trial, and waited
    the whole ack deadline."""
    world.kafka.after_s = None
    while not world.opened:
        world.run(0.05, every_s=0.05)
    world.topic_found = world.forwarding = False
    world.run(2.0, every_s=0.05)
    world.answers.clear()
    world.run(30.0, every_s=0.05)
    assert max(answer.took_s for answer in world.answers) <= 2 * SYNC_S
    world.kafka.after_s, world.topic_found = ACK_S, True
    world.run(60.0, every_s=0.05)
    assert world.spool.breaker.state is State.CLOSED, "switched off by hand, forwarding makes no trials"
