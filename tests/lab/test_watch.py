"""Whether somebody looked while something was broken."""

from __future__ import annotations

import pytest

from seawall.lab.expect import LATE
from seawall.lab.record import Fault, Sample
from seawall.lab.run import watch
from seawall.lab.run.sampler import BLIND

FAULTS = [Fault(name="a black hole", target="redis", began_s=10.0, ended_s=20.0)]
ALWAYS = [n / 2 for n in range(60)]


def samples(*at_s: float, **values: float) -> list[Sample]:
    return [Sample(each, {"intake.ok_rate": 80.0, **values}) for each in at_s]


def without(began: float, ended: float) -> list[float]:
    return [at for at in ALWAYS if not began < at < ended]


@pytest.mark.parametrize(
    ("looks", "longest_s"),
    [
        (ALWAYS, 0.5),
        (without(12, 18), 6.0),  # in the middle of it
        (without(5, 12), 7.0),  # it began unseen
        (without(15, 40), 5.0),  # it ended unseen: nobody knows what comes after the last look
        (without(0, 8), 0.5),  # before
        (without(21, 29), 0.5),  # after
        ([], 20.0),
    ],
)
def test_the_longest_time_without_a_look_counts_while_something_is_broken(looks: list[float], longest_s: float) -> None:
    assert watch.unseen_s(looks, FAULTS, 30.0) == longest_s


def test_what_still_is_broken_must_be_looked_at_until_now() -> None:
    there = [Fault(name="a black hole", target="redis", began_s=10.0)]
    assert watch.unseen_s(without(15, 99), there, 30.0) == 15.0
    assert watch.unseen_s(ALWAYS, [], 30.0) == 0.0


def test_a_sample_for_which_nobody_could_ask_the_rig_is_no_look() -> None:
    blind = [*samples(*without(11, 19)), *samples(*(at for at in ALWAYS if 11 < at < 19), **{BLIND: 1.0})]
    held, said = watch.look(sorted(blind, key=lambda each: each.at_s), ALWAYS, FAULTS, now_s=30.0)
    assert not held and said.startswith("8.0 s without a measurement, 0.5 s without a look at what aborts it")


def test_conditions_that_nobody_looked_at_are_no_better_than_none() -> None:
    held, said = watch.look(samples(*ALWAYS), without(11, 19), FAULTS, now_s=30.0)
    assert not held and "8.0 s without a look at what aborts it" in said
    assert watch.look(samples(*ALWAYS), ALWAYS, FAULTS, now_s=30.0)[0]


@pytest.mark.parametrize(
    ("at_s", "stood_s"),
    [(18.0, 6.0), (24.0, 6.0), (9.0, 0.0), (29.0, 0.0)],
    ids=["in", "over its end", "before", "after"],
)
def test_a_generator_that_stood_still_meanwhile_has_shown_nothing(at_s: float, stood_s: float) -> None:
    found = [Sample(at, {LATE: 6.0 if at == at_s else 0.0}) for at in ALWAYS]
    assert watch.stood_still_s(found, FAULTS) == stood_s
    held, said = watch.look(found, ALWAYS, FAULTS, now_s=30.0)
    assert held is not bool(stood_s) and f"{stood_s:.1f} s of a load generator that stood still" in said
