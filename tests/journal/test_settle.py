"""What may be in one machine's memory only is kept until that machine has surely written it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from seawall.journal.spool.settle import BACKS_MAX, SETTLE_S, STEP_S, Settling
from seawall.kernel.seam.journal import Position
from seawall.testing import ManualClock

LOG = b"l" * 16


def at(offset: int) -> Position:
    return Position(LOG, 1, offset)


def test_what_is_replicated_is_final_at_once() -> None:
    settling = Settling(at(0), ManualClock())
    settling.passed(at(5), replicated=True)
    assert (settling.settled, settling.waits, settling.back()) == (at(5), False, None)


def test_what_is_not_is_final_after_a_while_and_all_behind_it_waits_for_it() -> None:
    clock = ManualClock()
    settling = Settling(at(0), clock)
    settling.passed(at(5), replicated=False)
    clock.advance(SETTLE_S / 2)
    settling.passed(at(9), replicated=True)
    settling.settle()
    assert settling.settled == at(0)
    clock.advance(SETTLE_S / 2)
    settling.settle()
    assert (settling.settled, settling.waits) == (at(9), False)


def test_trouble_begins_again_where_nothing_was_final_but_not_for_ever() -> None:
    clock = ManualClock()
    settling = Settling(at(3), clock)
    for _ in range(BACKS_MAX):
        settling.passed(at(8), replicated=False)
        clock.advance(SETTLE_S - 1)
        assert settling.back() == at(3), "however old it is: nobody knows when the trouble began"
    settling.passed(at(8), replicated=False)
    assert settling.back() is None
    clock.advance(SETTLE_S)
    settling.settle()
    assert settling.settled == at(8)
    settling.passed(at(12), replicated=False)
    assert settling.back() == at(8)


def test_each_of_a_steady_stream_is_final_soon_after_its_time() -> None:
    clock = ManualClock()
    settling, tick_s = Settling(at(0), clock), 0.25
    for n in range(1, int(3 * SETTLE_S / tick_s)):
        settling.passed(at(n), replicated=False)
        clock.advance(tick_s)
        settling.settle()
        late = n - settling.settled.offset_bytes - SETTLE_S / tick_s
        assert late <= 2 * STEP_S / tick_s, f"{late * tick_s} s late"
        assert len(settling._later) <= 2 * SETTLE_S / STEP_S + 2


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans(), st.floats(0, 90)), max_size=60))
def test_nothing_is_final_too_early_and_little_is_remembered(steps: list[tuple[int, bool, float]]) -> None:
    clock = ManualClock()
    settling, end, sent = Settling(at(0), clock), 0, []
    for size, replicated, pause_s in steps:
        end += size
        settling.passed(at(end), replicated=replicated)
        sent.append((at(end), replicated, clock.monotonic()))
        clock.advance(pause_s)
        settling.settle()
        for position, firm, when in sent:
            if not firm and clock.monotonic() - when < SETTLE_S:
                assert settling.settled < position
        assert len(settling._later) <= SETTLE_S + 2
    clock.advance(SETTLE_S)
    settling.settle()
    assert settling.settled == at(end)
