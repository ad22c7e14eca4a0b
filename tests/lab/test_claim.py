"""Claims of single experiments, over records that a test makes up."""

from __future__ import annotations

import pytest

from seawall.lab.claim import hears_again, holds_after
from seawall.lab.expect import Seen
from seawall.lab.record import Fault, Record, Sample

NAME = "listener.redis_age_s"


@pytest.mark.parametrize(
    ("ages", "held", "said"),
    [
        # At 10 s the way is open again; at 11.5 s the last echo was 0.3 s ago.
        ([(9.0, 4.0), (10.5, 5.5), (11.5, 0.3), (12.0, 0.8)], True, "after 1.20 s"),
        ([(9.0, 4.0), (10.5, 5.5), (12.5, 0.1)], False, "after 2.40 s"),
        ([(9.0, 4.0), (12.0, 7.0)], False, "it heard nothing any more"),
    ],
)
def test_a_listener_hears_again_when_its_echo_says_so_not_when_somebody_looked(
    ages: list[tuple[float, float]], held: bool, said: str
) -> None:
    faults = [Fault(name="the new primary, out of reach", target="redis.r2", began_s=5.0, ended_s=10.0)]
    record = Record(id="x", name="x", title="x", faults=faults)
    found = hears_again(Seen(record, [Sample(at, {NAME: age}) for at, age in ages]), "out of reach", 2.0)
    assert (found.held, found.said) == (held, said)


def test_without_an_end_of_the_fault_nothing_is_claimed() -> None:
    assert not hears_again(Seen(Record(id="x", name="x", title="x"), []), "out of reach", 2.0).held


def refusals(*rates: float) -> Seen:
    """A second apart, from 0 s on. One fault ends at 4 s and the other, around it, at 10 s."""
    faults = [
        Fault(name="a black hole", target="postgres", began_s=0.0, ended_s=10.0),
        Fault(name="its volume has no room", target="journal", began_s=2.0, ended_s=4.0),
    ]
    samples = [Sample(float(n), {"intake.failed_rate": rate}) for n, rate in enumerate(rates)]
    return Seen(Record(id="x", name="x", title="x", faults=faults), samples)


@pytest.mark.parametrize(
    ("rates", "held", "said"),
    [
        # What is refused before 6 s, and when the store is back at 10 s, is no matter of this claim.
        ((0, 0, 50, 50, 50, 9, 0, 0, 0, 0, 7), True, "from 0 to 0, 100% of 4 samples"),
        ((0, 0, 50, 50, 50, 9, 0, 0, 3, 0, 0), False, "from 0 to 3, 75% of 4 samples"),
        ((0, 0, 50, 50, 50, 9, 0, 0), False, "was measured 2 times"),
    ],
)
def test_what_holds_after_one_fault_is_looked_at_as_long_as_another_lasts(
    rates: tuple[float, ...], held: bool, said: str
) -> None:
    found = holds_after(refusals(*rates), "no room", "intake.failed_rate", within_s=2.0, at_most=0.0)
    assert found.held == held and said in found.said


def test_what_follows_a_fault_that_never_ended_is_not_claimed() -> None:
    assert "has ended" in holds_after(refusals(0), "no such", "intake.failed_rate", within_s=0.0).said
