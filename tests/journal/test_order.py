"""An ordered source's records reach Kafka in the order in which they came, whatever becomes of each on its way."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from journal.kafka_rig import record
from seawall.journal.cluster import Settings
from seawall.journal.spool.order import GROUP_MAX, Order
from seawall.kernel.error import Overloaded, SeawallError
from seawall.kernel.event import decode
from seawall.kernel.metric import Metrics
from seawall.kernel.seam.journal import Done, Outcome, Position
from seawall.testing import ManualClock

MINE, OTHER = b"\x01" * 16, b"\x02" * 16
KAFKA, LOCAL = b"k" * 16, b"l" * 16


@dataclass
class Send:
    """A record that was handed to the client library; a forwarder's copy has no ``done``."""

    payload: bytes
    done: Done | None = None


@dataclass
class World:
    """The client library with its queue, the topic behind it, the local log, and the forwarder; one step at a time."""

    flows: bool = True
    nearly_full: bool = False  # the library's queue has no room for large records: those with an odd number
    tries: bool = False  # while it doesn't flow, one record at a time is the breaker's trial
    refusal: SeawallError | None = None
    driver: deque[Send] = field(default_factory=deque)
    topic: list[bytes] = field(default_factory=list)
    unsynced: list[Send] = field(default_factory=list)
    local: list[bytes] = field(default_factory=list)
    forwarded: int = 0
    forwarding: bool = False

    def submit(self, payload: bytes, done: Done) -> None:
        if not self.offer(payload, done):
            self.keep(payload, done)

    def offer(self, payload: bytes, done: Done) -> bool:
        trial = self.tries and not any(send.done for send in self.driver)
        if not (self.flows or trial) or (self.nearly_full and int(decode(payload).body) % 2):
            return False
        self.driver.append(Send(payload, done))
        return True

    def keep(self, payload: bytes, done: Done) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.unsynced.append(Send(payload, done))

    def behind(self, position: Position) -> bool:
        return self.forwarded < position.offset_bytes if position.log_id == LOCAL else False

    # What may happen.
    def land(self) -> None:
        """Kafka takes the first in the queue, and says so."""
        if self.driver:
            send = self.driver.popleft()
            self.topic.append(send.payload)
            if send.done is not None:
                send.done(Position(KAFKA, 1, len(self.topic), b"", replicated=True))
            elif self.forwarding and send.payload is self.local[self.forwarded]:
                self.forwarded, self.forwarding = self.forwarded + 1, False

    def divert(self) -> None:
        """The ack deadline of all that are on their way passes; the library goes on with them."""
        for send in list(self.driver):
            done, send.done = send.done, None
            if done is not None:
                self.keep(send.payload, done)

    def expire(self) -> None:
        """The library forgets all it has."""
        self.divert()
        self.driver.clear()
        self.forwarding = False

    def sync(self) -> None:
        batch, self.unsynced = self.unsynced, []
        for send in batch:
            self.local.append(send.payload)
            assert send.done is not None
            send.done(Position(LOCAL, 1, len(self.local)))

    def forward(self) -> None:
        if not self.forwarding and self.forwarded < len(self.local):
            self.forwarding = True
            self.driver.append(Send(self.local[self.forwarded]))

    def turn(self) -> None:
        self.flows = not self.flows

    def fill(self) -> None:
        self.nearly_full = not self.nearly_full

    def attempt(self) -> None:
        self.tries = not self.tries


@dataclass
class Desk:
    world: World
    order: Order
    clock: ManualClock
    heard: list[Outcome] = field(default_factory=list)
    sent: int = 0

    def send(self, source_id: bytes = MINE) -> None:
        self.order.submit(record(b"%d" % self.sent, source_id), self.heard.append)
        self.sent += 1


def opened(*, sources: frozenset[bytes] = frozenset((MINE,)), **settings: int) -> Desk:
    world, clock = World(), ManualClock()
    order = Order(
        world, lambda: sources, spooled=lambda position: position.log_id == LOCAL, behind=world.behind,
        settings=Settings(**settings), clock=clock, metrics=Metrics(),
    )  # fmt: skip
    return Desk(world, order, clock)


def numbers(payloads: list[bytes]) -> list[int]:
    """Which record each is, in the order of their first appearance."""
    return list(dict.fromkeys(int(decode(payload).body) for payload in payloads))


def test_a_record_isnt_handed_on_before_kafka_has_answered_the_one_before() -> None:
    desk = opened()
    for _ in range(4):
        desk.send()
    assert [numbers([send.payload]) for send in desk.world.driver] == [[0]]
    desk.world.land()
    assert [numbers([send.payload]) for send in desk.world.driver] == [[1], [2], [3]], "those that waited, as a group"
    desk.send(OTHER)
    assert len(desk.world.driver) == 4, "other sources don't wait"


def test_what_came_after_a_record_of_uncertain_fate_goes_behind_it() -> None:
    """The race of decision 0010: the client gives the first up, and Kafka comes back just then for the second."""
    desk = opened()
    desk.send()
    desk.send()
    desk.world.divert()
    desk.world.sync()
    desk.send()
    assert numbers([send.payload for send in desk.world.driver]) == [0], "none but the first can be there late"
    desk.world.sync()
    assert numbers(desk.world.local) == [0, 1, 2]
    for count in range(1, 4):
        desk.world.expire()
        desk.send()
        assert not desk.world.driver, "also while it is being forwarded"
        desk.world.forward()
        desk.world.land()
        assert desk.world.forwarded == count
        desk.world.sync()
    while desk.world.forwarded < len(desk.world.local):
        desk.world.forward()
        desk.world.land()
    desk.send()
    desk.world.land()
    assert numbers(desk.world.topic) == list(range(desk.sent)), "and then straight to Kafka again"
    assert isinstance(desk.heard[-1], Position) and desk.heard[-1].replicated


def test_none_overtakes_one_that_kafka_had_no_room_for() -> None:
    """The queue to Kafka is bounded in bytes: it may refuse a large record, and take the small one behind it."""
    desk = opened()
    for _ in range(4):
        desk.send()
    desk.world.nearly_full = True
    desk.world.land()
    assert not desk.world.driver, "the large one goes to the local log, as none is on its way, and those behind it too"
    desk.world.sync()
    assert numbers(desk.world.local) == [1, 2, 3]


def test_one_that_kafka_has_no_room_for_waits_for_those_on_their_way() -> None:
    desk = opened()
    for source_id in (MINE, OTHER, MINE, MINE, MINE):
        desk.send(source_id)
    desk.world.nearly_full = True
    desk.world.land()
    assert numbers([send.payload for send in desk.world.driver]) == [1, 2]
    assert not desk.world.unsynced, "nobody knows yet whether the one before goes to the local log after all"
    desk.world.divert()
    desk.world.sync()
    desk.world.sync()
    assert numbers(desk.world.local) == [1, 2, 3, 4]


def test_nobody_goes_to_the_local_log_while_a_trial_is_on_its_way() -> None:
    desk = opened()
    desk.world.flows, desk.world.tries = False, True
    for _ in range(4):
        desk.send()
    desk.world.land()
    assert [numbers([send.payload]) for send in desk.world.driver] == [[1]]
    desk.world.sync()
    assert not desk.world.local, "those behind it wait until it is known where it goes"
    desk.world.divert()
    desk.world.sync()
    desk.world.sync()
    assert numbers(desk.world.local) == [1, 2, 3]


def test_whoever_waited_long_for_a_slow_group_doesnt_wait_for_kafka_again() -> None:
    desk = opened()
    desk.send()
    desk.send()
    desk.clock.advance(0.5)
    desk.world.land()
    assert not desk.world.driver and len(desk.world.unsynced) == 1


def test_a_group_is_bounded_and_so_is_what_waits() -> None:
    desk = opened(pending_records_max=GROUP_MAX + 10)
    for _ in range(GROUP_MAX + 11):
        desk.send()
    with pytest.raises(Overloaded):
        desk.send()
    desk.world.land()
    assert len(desk.world.driver) == GROUP_MAX


def test_stopping_sends_what_waits_to_the_local_log_in_order() -> None:
    desk = opened()
    for _ in range(5):
        desk.send()
    desk.world.divert()  # as Spool.stop does
    desk.order.stop()
    desk.world.sync()
    assert numbers(desk.world.local) == list(range(5))
    assert len(desk.heard) == 5


def test_a_local_log_that_refuses_is_told_to_each_that_waited() -> None:
    desk = opened()
    desk.send()
    desk.send()
    desk.world.divert()
    desk.world.sync()  # the first is in the local log, and the second on its way there
    desk.world.refusal = Overloaded("the journal's disk is full")
    with pytest.raises(Overloaded):
        desk.send()
    desk.world.refusal = None
    desk.world.sync()
    assert [type(each) for each in desk.heard] == [Position, Position]


def test_without_ordered_sources_nothing_stands_in_the_way() -> None:
    desk = opened(sources=frozenset())
    for _ in range(3):
        desk.send()
    assert len(desk.world.driver) == 3


STEPS: tuple[tuple[str, int], ...] = (
    ("send", 8), ("land", 8), ("sync", 4), ("forward", 4), ("divert", 1), ("expire", 1), ("turn", 1), ("fill", 1),
    ("attempt", 1),
)  # fmt: skip


def chaos(desk: Desk, send: Callable[[], None], rng: random.Random) -> list[int]:
    """Some hundred steps, then calm; in which order the topic has the records."""
    names, weights = zip(*STEPS, strict=True)
    for name in rng.choices(names, weights, k=300):
        desk.clock.advance(rng.choice((0.0, 0.0, 0.01, 0.3)))
        (send if name == "send" else getattr(desk.world, name))()
    desk.world.flows, desk.world.nearly_full = True, False
    while desk.world.driver or desk.world.unsynced or desk.world.forwarded < len(desk.world.local):
        desk.world.land()
        desk.world.sync()
        desk.world.forward()
    assert len(desk.heard) == desk.sent
    return numbers(desk.world.topic)


@pytest.mark.parametrize("seed", range(100))
def test_whatever_happens_the_topic_has_each_record_after_those_before_it(seed: int) -> None:
    desk = opened()
    assert chaos(desk, desk.send, random.Random(seed)) == list(range(desk.sent))


def test_the_steps_above_do_disorder_a_source_that_isnt_ordered() -> None:
    def disordered(seed: int) -> bool:
        desk = opened()
        return chaos(desk, lambda: desk.send(OTHER), random.Random(seed)) != list(range(desk.sent))

    assert sum(map(disordered, range(20))) > 10


def test_who_submits_while_an_answer_is_told_stands_behind_those_who_wait() -> None:
    """A sender that is answered goes on at once, with its next request; it overtook those who had come before."""
    desk = opened()
    first = record(b"0", MINE)

    def again(outcome: Outcome) -> None:
        desk.heard.append(outcome)
        desk.order.submit(record(b"2", MINE), desk.heard.append)

    desk.order.submit(first, again)
    desk.order.submit(record(b"1", MINE), desk.heard.append)
    while len(desk.heard) < 3:
        desk.world.land()
    assert [decode(payload).body for payload in desk.world.topic] == [b"0", b"1", b"2"]
