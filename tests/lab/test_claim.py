"""Claims of single experiments, over records that a test makes up."""

from __future__ import annotations

import pytest

from seawall.lab.claim import hears_again
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
