"""Virtual time is fair between tenants and to fresh work, and its memory is bounded."""

from __future__ import annotations

from collections import Counter

from seawall.kernel import placement
from seawall.kernel.clock import SystemClock
from seawall.kernel.event import EventIds
from seawall.kernel.placement import COST, Placement, Turns, shard_of


def test_a_tenant_with_a_long_line_does_not_delay_another() -> None:
    place = Placement()
    noisy = [place.next(1, "noisy", backlog=False) for _ in range(1000)]
    assert noisy == sorted(set(noisy))
    place.observe({1: noisy[99]})
    quiet = place.next(1, "quiet", backlog=False)
    assert noisy[99] < quiet <= noisy[100] + COST


def test_two_busy_tenants_take_turns() -> None:
    place = Placement()
    runs = [(place.next(1, "a", backlog=False), "a") for _ in range(100)]
    runs += [(place.next(1, "b", backlog=False), "b") for _ in range(100)]
    served = [tenant for _, tenant in sorted(runs)]
    assert all(set(served[n : n + 2]) == {"a", "b"} for n in range(0, 200, 2))


def test_fresh_runs_do_not_queue_behind_the_backlog_of_their_own_tenant() -> None:
    place = Placement()
    old = [place.next(1, "a", backlog=True) for _ in range(1000)]
    place.observe({1: old[0]})
    assert place.next(1, "a", backlog=False) <= old[1]


def test_an_empty_queue_starts_everybody_even_and_time_never_goes_back() -> None:
    place = Placement()
    last = [place.next(1, "a", backlog=False) for _ in range(50)][-1]
    place.observe({1: None})
    assert place.next(1, "b", backlog=False) == last + COST
    place.observe({1: 7})
    assert place.next(1, "c", backlog=False) == last + COST


def test_queues_have_clocks_of_their_own() -> None:
    place = Placement()
    place.observe({1: 10**9, 2: 5})
    assert place.next(2, "a", backlog=False) == 5 + COST


def test_streams_in_memory_are_bounded(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(placement, "STREAMS_MAX", 100)
    place = Placement()
    for number in range(1000):
        place.next(1, f"t{number}", backlog=False)
    assert len(place._last) <= 100


def test_turns_of_who_woke_are_known_until_the_clock_has_passed_them_and_bounded() -> None:
    turns = Turns()
    turns.saw([(1, "a", 5000, 1000), (1, "a", 9000, 1000), (2, "a", 3000, 0)])
    assert turns.columns() == ([1, 2], ["a", "a"], [9000, 3000])
    turns.saw([(1, "b", 10_000, 9000)])
    assert turns.columns() == ([2, 1], ["a", "b"], [3000, 10_000])
    turns.saw((3, f"t{n}", 1000, 0) for n in range(1000))
    assert len(turns.columns()[0]) == placement.TURNS_MAX


def test_shards_are_evenly_used_also_by_a_single_tenant() -> None:
    ids = EventIds(SystemClock())
    used = Counter(shard_of(ids.next(), b"acme", 4) for _ in range(4000))
    assert set(used) == {0, 1, 2, 3}
    assert min(used.values()) > 800
    assert shard_of(ids.next(), b"acme", 0) == 0


def test_a_tenant_of_weight_four_has_four_turns_for_each_of_anothers() -> None:
    place = Placement()
    place.observe({1: None}, {1: {"acme": 4}})
    runs = [(place.next(1, "acme", backlog=False), "acme") for _ in range(400)]
    runs += [(place.next(1, "other", backlog=False), "other") for _ in range(400)]
    served = [tenant for _, tenant in sorted(runs)][:250]
    assert 49 <= served.count("other") <= 51
    place.observe({1: 0}, {})
    assert place.next(1, "acme", backlog=False) - max(vt for vt, tenant in runs if tenant == "acme") == COST


def test_a_priority_puts_runs_before_others_by_a_bounded_number_of_turns_and_never_starves() -> None:
    place = Placement()
    plain = [place.next(1, "a", backlog=False) for _ in range(500)]
    urgent = [place.next(1, "b", backlog=False, priority=2) for _ in range(1000)]
    place_of_last = sorted([*plain, *urgent]).index(plain[-1])
    assert sum(vt <= plain[0] for vt in urgent) == 201, "two hundred turns, and its own"
    assert place_of_last in (500 + 698, 500 + 699), "and then they take turns"
    assert place.next(1, "b", backlog=False) > urgent[-1] + 100 * COST, "it charges nothing"


def test_runs_of_low_priority_that_are_alone_do_not_move_the_clock() -> None:
    place = Placement()
    low = [place.next(1, "a", backlog=False, priority=-5) for _ in range(10)]
    place.observe({1: low[0] - 5 * placement.STEP})  # as the store says it
    assert place.next(1, "b", backlog=False) < low[0]


def test_a_line_of_its_own_takes_no_turns_from_its_tenants_other_runs() -> None:
    place = Placement()
    for _ in range(1000):
        place.next(1, "a", backlog=False, apart="deploy")
    assert place.next(1, "a", backlog=False) == COST
