"""The board of held requests loses none and answers each once, whatever order hints, reads and deadlines come in."""

from __future__ import annotations

import math
import random

import pytest

from seawall.kernel.metric import Metrics
from seawall.kernel.seam.ticket import Reply
from seawall.responder.setting import Settings
from seawall.responder.waiting import PER_TICKET_MAX, SLACK, Board, Place
from seawall.testing import ManualClock

REPLY = Reply(status=200, content_type="text/plain", body=b"")


def ticket(n: int) -> bytes:
    return n.to_bytes(16, "big")


class Rig:
    """A board and every answer that it gave."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.clock = ManualClock()
        self.board = Board(settings or Settings(), clock=self.clock, metrics=Metrics())
        self.answers: dict[bytes, list[Reply | None]] = {}  # of the latest that waits for a ticket
        self.all: list[list[Reply | None]] = []

    def hold(self, n: int, wait_ms: int = 10_000) -> bytes:
        id = ticket(n)
        said = self.answers[id] = []
        self.all.append(said)
        self.board.hold(id, wait_ms=wait_ms, answer=said.append)
        return id

    def drop(self, id: bytes) -> bool:
        """The latest one's client leaves; returns whether it still waited."""
        said = self.answers[id]
        self.board.drop(id, said.append)
        return not said


def test_looks_come_slower_and_slower_and_once_more_before_the_deadline() -> None:
    rig = Rig(Settings(first_look_ms=150, look_ms_max=2_000, last_look_ms=200))
    start = rig.clock.monotonic()
    rig.hold(1, 10_000)
    looks = []
    while (wait_s := rig.board.next_look_s()) != math.inf:
        rig.clock.advance(wait_s + 1e-6)
        looks.append(round((rig.clock.monotonic() - start) * 1000))
        rig.board.put_back(rig.board.take(1)[0])
    assert looks == [150, 450, 1050, 2250, 4250, 6250, 8250, 9800]
    rig.clock.advance(0.2)
    rig.board.expire()
    assert rig.answers[ticket(1)] == [None]


@pytest.mark.parametrize("wait_ms", [1, 20, 100, 300])
def test_a_short_wait_is_looked_up_at_least_once(wait_ms: int) -> None:
    rig = Rig()
    rig.hold(1, wait_ms)
    assert rig.board.next_look_s() * 1000 < wait_ms
    rig.clock.advance(rig.board.next_look_s())
    assert rig.board.take(1) == [ticket(1)]


def test_a_hint_during_a_read_makes_the_ticket_urgent_again() -> None:
    rig = Rig()
    id = rig.hold(1)
    rig.clock.advance(0.2)
    assert rig.board.take(1) == [id]
    rig.board.hint([id])
    assert rig.board.take(1) == [], "it is in hand"
    rig.board.put_back(id, event_id=id)
    assert rig.board.next_look_s() == 0.0 and rig.board.take(1) == [id]


def test_a_hint_that_came_before_we_knew_whose_it_was_counts_when_we_do() -> None:
    rig = Rig()
    copy, event = rig.hold(1), ticket(99)
    rig.board.hint([event])
    rig.clock.advance(0.2)
    assert rig.board.take(1) == [copy]
    rig.board.put_back(copy, event_id=event)
    assert rig.board.take(1) == [copy]


def test_one_hint_wakes_every_ticket_of_its_event() -> None:
    rig = Rig()
    copies, event = [rig.hold(n) for n in (1, 2, 3)], rig.hold(9)
    rig.clock.advance(0.2)
    for id in rig.board.take(10):
        rig.board.put_back(id, event_id=event)
    rig.board.hint([event])
    assert sorted(rig.board.take(10)) == sorted([*copies, event])


def test_between_the_last_look_and_the_deadline_a_hint_still_counts() -> None:
    rig = Rig()
    id = rig.hold(1, 1_000)
    rig.clock.advance(0.9)
    rig.board.put_back(rig.board.take(1)[0])
    assert rig.board.take(1) == []
    rig.board.hint([id])
    assert rig.board.take(1) == [id]


def test_hints_are_remembered_for_a_while_and_in_bounded_number() -> None:
    rig = Rig(Settings(hints_max=100, hint_keep_ms=1_000, first_look_ms=1_000))
    rig.board.hint(ticket(n) for n in range(150))
    rig.hold(1)
    assert rig.board.take(1) == [], "the oldest ones made room"
    rig.hold(149)
    assert rig.board.take(1) == [ticket(149)]
    rig.clock.advance(1.1)
    rig.board.hint([ticket(1000)])
    rig.hold(148)
    assert rig.board.take(1) != [ticket(148)], "too old"


def test_answered_tickets_leave_no_growing_heap_behind() -> None:
    rig = Rig()
    for n in range(20 * SLACK):
        id = rig.hold(n, 25_000)
        rig.board.answer(id, REPLY, outcome="reply")
    assert len(rig.board._looks) <= 2 * SLACK and len(rig.board._deadlines) <= 2 * SLACK
    assert all(said == [REPLY] for said in rig.answers.values())


def test_an_answer_that_raises_is_called_once_and_spoils_no_other() -> None:
    rig = Rig()

    def broken(_: Reply | None) -> None:
        calls.append(1)
        raise RuntimeError("the connection's own trouble")

    calls: list[int] = []
    rig.board.hold(ticket(1), wait_ms=10, answer=broken)
    rig.hold(2, 20)
    rig.clock.advance(1)
    with pytest.raises(RuntimeError):
        rig.board.expire()
    rig.board.expire()
    assert calls == [1] and rig.answers[ticket(2)] == [None]


def test_several_requests_wait_for_one_ticket_each_with_its_own_deadline() -> None:
    rig = Rig()
    id = rig.hold(1, 1_000)
    first = rig.answers[id]
    rig.hold(1, 5_000)
    second = rig.answers[id]
    rig.hold(1, 5_000)
    assert rig.drop(id), "its client left; the others wait on"
    rig.clock.advance(1.001)
    assert rig.board.take(9) == [id], "one look for all of them"
    rig.board.expire()
    assert (first, second) == ([None], [])
    rig.board.put_back(id, event_id=id)
    rig.board.hint([id])
    assert rig.board.take(9) == [id]
    rig.board.answer(id, REPLY, outcome="reply")
    assert (first, second, rig.answers[id]) == ([None], [REPLY], [])
    assert not rig.board._held


def test_each_of_several_requests_is_looked_up_before_its_own_deadline() -> None:
    rig = Rig(Settings(first_look_ms=150, look_ms_max=10_000, last_look_ms=200))
    start = rig.clock.monotonic()
    rig.hold(1, 9_000)
    rig.hold(1, 3_000)
    looks = []
    while (wait_s := rig.board.next_look_s()) != math.inf:
        rig.clock.advance(wait_s + 1e-6)
        looks.append(round((rig.clock.monotonic() - start) * 1000))
        for id in rig.board.take(9):
            rig.board.put_back(id)
    assert 2_800 in looks and 8_800 in looks


def test_one_ticket_can_not_fill_the_house() -> None:
    rig = Rig(Settings(held_max=PER_TICKET_MAX + 1))
    for _ in range(PER_TICKET_MAX):
        rig.hold(1)
    assert rig.all == [[]] * PER_TICKET_MAX
    rig.hold(1)
    assert rig.all[-1] == [None]
    rig.hold(2)
    rig.hold(3)
    assert rig.all[-2:] == [[], [None]], "all of them count"


@pytest.mark.parametrize("seed", range(25))
def test_no_ticket_is_ever_lost_or_answered_twice(seed: int) -> None:
    rng = random.Random(seed)
    rig = Rig(Settings(held_max=40, hints_max=100))
    dropped: list[list[Reply | None]] = []
    held: list[bytes] = []
    in_hand: list[bytes] = []
    for n in range(1_500):
        match rng.randrange(9):
            case 0 | 1:
                held.append(rig.hold(n, rng.choice((50, 500, 5_000))))
            case 8 if held:  # a client whose connection broke
                rig.hold(int.from_bytes(rng.choice(held[-20:]), "big"), rng.choice((50, 500, 5_000)))
            case 2 if held:
                id = rng.choice(held)
                if rig.drop(id):
                    dropped.append(rig.answers[id])
            case 3:
                rig.board.hint(ticket(rng.randrange(n + 1)) for _ in range(3))
            case 4:
                in_hand += rig.board.take(rng.randrange(1, 10))
            case 5 if in_hand:
                id = in_hand.pop(rng.randrange(len(in_hand)))
                if rng.random() < 0.3:
                    rig.board.answer(id, REPLY, outcome="reply")
                else:
                    rig.board.put_back(id, event_id=ticket(rng.randrange(n + 1)) if rng.random() < 0.3 else id)
            case 6:
                rig.clock.advance(rng.random() / 5)
                rig.board.expire()
            case 7 if rng.random() < 0.05:
                rig.board.look_at_all()
        reachable = {entry[2].ticket_id for entry in rig.board._looks if entry[2].look_at == entry[0]}
        reachable |= {one.ticket_id for one in rig.board._urgent} | set(in_hand)
        for id, one in rig.board._held.items():
            last = max(waiter.last_look for waiter in one.waiters)
            past = one.place is Place.IDLE and rig.clock.monotonic() >= last - 0.001
            assert id in reachable or past, f"seed {seed}: nobody will look at {id.hex()}"
    rig.clock.advance(10)
    rig.board.expire()
    for said in rig.all:
        assert len(said) == (0 if any(said is one for one in dropped) else 1), f"seed {seed}"
    assert not rig.board._held and not rig.board._by_event
