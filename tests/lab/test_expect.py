"""What a run should show, over what it left; when an incident was seen, mitigated and over; what that makes of it."""

from __future__ import annotations

import pytest

from seawall.lab import expect
from seawall.lab.expect import Seen, Window
from seawall.lab.experiment import Claim
from seawall.lab.record import Expectation, Fault, Moment, Proof, Record, Sample, Status
from seawall.lab.run import judge, times
from seawall.lab.run.sentry import Order

FAULTS = [
    Fault(name="redis a black hole", target="redis", began_s=10, ended_s=20),
    Fault(name="kafka refuses", target="kafka", began_s=15, ended_s=30),
]


def seen(*, verdict: dict[str, int] | None = None, moments: list[Moment] | None = None) -> Seen:
    """40 s: p99 is 10 before, 200 while something is broken, 20 after."""
    made = Record(id="r", name="r", title="r", faults=FAULTS, verdict=verdict or {}, moments=moments or [])
    values = [(at / 2, 10.0 if at < 20 else 200.0 if at <= 60 else 20.0) for at in range(80)]
    samples = [Sample(at_s, {"p99": p99, expect.STEADY: float(p99 < 100)}) for at_s, p99 in values]
    return Seen(made, samples)


@pytest.mark.parametrize(
    ("during", "windows"),
    [
        ("before", [Window(0, 10)]),
        ("fault", [Window(10, 20), Window(15, 30)]),
        ("fault:kafka", [Window(15, 30)]),
        ("fault:mysql", []),
        ("after", [Window(30, float("inf"))]),
    ],
)
def test_moments_have_names(during: str, windows: list[Window]) -> None:
    assert seen().windows(during) == windows


@pytest.mark.parametrize("during", ["later", "before:kafka", ""])
def test_a_moment_that_nobody_knows_is_refused(during: str) -> None:
    with pytest.raises(ValueError, match="during"):
        seen().windows(during)


def test_the_ledgers_words_are_numbers_or_ranges() -> None:
    found = seen(verdict={"lost": 0, "accepted": 500})
    assert expect.verdict(found, lost=0, accepted=[100, 1000]).held
    assert not expect.verdict(found, lost=0, accepted=[501, 1000]).held
    assert not expect.verdict(found, wrong=0).held, "a word that nobody counted isn't 0"
    assert not expect.verdict(seen(), lost=0).held, "no verdict isn't a good one"


def test_a_sample_stays_reaches_and_becomes() -> None:
    found = seen()
    assert expect.stays(found, "p99", at_most=10, during="before").held
    assert not expect.stays(found, "p99", at_most=100, during="fault").held
    assert expect.stays(found, "p99", at_most=100, during="all", share=0.4).held
    assert expect.stays(found, "p99", at_most=20, during="after", skip_s=0.5).held
    assert not expect.stays(found, "p50", at_most=1).held, "what nobody measured doesn't hold"
    assert expect.reaches(found, "p99", at_least=200).held
    assert not expect.reaches(found, "p99", at_least=201).held
    assert expect.becomes(found, "p99", least=19, most=21, during="fault").held
    assert not expect.becomes(found, "p99", most=2).held
    assert expect.steady(found, during="after", at_least=0.9).held
    assert expect.steady(found, during="fault", at_least=0, at_most=0.1).held


def test_an_alert_is_told_in_time_or_not_at_all() -> None:
    found = seen(moments=[Moment(at_s=5, kind="alert", text="early"), Moment(at_s=13, kind="alert", text="redis-away")])
    assert expect.told(found, "redis", within_s=3).held
    assert not expect.told(found, "redis", within_s=2).held
    assert not expect.told(found, "early").held, "before anything was broken it tells nothing about it"
    assert expect.untold(found, "kafka").held and not expect.untold(found, "redis").held
    assert expect.untold(found, during="after").held


def test_times_are_counted_from_the_first_fault_and_the_last_ones_end() -> None:
    moments = [Moment(at_s=4, kind="alert", text="a"), Moment(at_s=12.5, kind="alert", text="b")]
    assert times.detect_s(FAULTS, moments) == 2.5 and times.detect_s(FAULTS, moments[:1]) is None
    states = [(9.0, True), (11.0, False), (18.0, True), (25.0, True), (31.0, False), (33.0, True), (40.0, True)]
    assert times.mitigate_s(FAULTS, states) == 8.0
    assert times.recover_s(FAULTS, states) == 3.0
    assert times.mitigate_s(FAULTS, [(11.0, True), (40.0, False)]) == 0.0, "it never left its steady state"
    assert times.mitigate_s(FAULTS, [(11.0, False), (40.0, True)]) is None
    assert times.recover_s(FAULTS, [(31.0, False)]) is None
    open_fault = Fault(name="f", target="t", began_s=1)
    assert times.recover_s([open_fault], states) is None and times.detect_s([], moments) is None


ABORT, FAIL = Order(Status.ABORTED, "Ctrl-C"), Order(Status.INVALID, "an action failed")
MISSED = Expectation(claim="nothing is lost", held=False, said="lost 2")
UNPROVEN = Proof(claim="the path is dead", at_s=1, held=False, said="it is alive")


@pytest.mark.parametrize(
    ("record", "orders", "invalid", "broken", "status"),
    [
        ({}, [], [], [], Status.AS_EXPECTED),
        ({"expectations": [MISSED]}, [], [], [], Status.NOT_AS_EXPECTED),
        ({"expectations": [MISSED]}, [], ["the gate"], [], Status.INVALID),
        ({"expectations": [MISSED], "proofs": [UNPROVEN]}, [], [], [], Status.INVALID),
        ({}, [FAIL], [], [], Status.INVALID),
        ({"proofs": [UNPROVEN]}, [FAIL, ABORT], ["the gate"], [], Status.ABORTED),
        ({}, [], [], ["redis a black hole"], Status.NOT_AS_EXPECTED),
    ],
)
def test_only_a_run_that_proved_itself_and_held_is_green(
    record: dict[str, list[object]], orders: list[Order], invalid: list[str], broken: list[str], status: Status
) -> None:
    made = Record(id="r", name="r", title="r", **record)  # type: ignore[arg-type]
    judge.conclude(made, orders=orders, invalid=invalid, broken=broken)
    assert made.status is status and bool(made.why) == (status is not Status.AS_EXPECTED)


def test_of_several_runs_the_worst_one_decides() -> None:
    assert judge.EXIT[judge.worst([])] == 0
    assert judge.worst([Status.AS_EXPECTED, Status.INVALID, Status.NOT_AS_EXPECTED]) is Status.INVALID


def test_a_claim_that_raises_does_not_hold() -> None:
    claims = [Claim(claim="c", func="stays", arguments={"name": "p99", "during": "never"}),
              Claim(claim="d", func="stays", arguments={"name": "p99", "at_most": 300})]  # fmt: skip
    found = judge.find(claims, seen())
    assert [each.held for each in found] == [False, True] and "during" in found[0].said


def blind(share: float, *, name: str = "p99") -> Seen:
    """Of 40 samples while something is broken, the last ones don't have it: nobody was answered."""
    made = Record(id="r", name="r", title="r", faults=[Fault(name="f", target="t", began_s=10, ended_s=30)])
    samples = [Sample(at / 2, {name: 5.0} if at < 60 - 40 * share else {"other": 1.0}) for at in range(60)]
    return Seen(made, samples)


def test_where_nobody_is_answered_nobody_is_answered_in_time() -> None:
    assert expect.stays(blind(0.05), "p99", at_most=10).held, "a look that came too late is no outage"
    found = expect.stays(blind(0.5), "p99", at_most=10)
    assert not found.held and "20 more have none" in found.said
    assert expect.stays(blind(0.5), "p99", at_most=10, share=0.5).held


def test_nothing_is_untold_in_a_time_that_never_was_or_in_which_nobody_looked() -> None:
    assert not expect.untold(seen(), "redis", during="fault:mysql").held
    assert expect.untold(blind(0.0), "redis").held
    made = blind(0.0)
    deaf = Seen(made.record, [Sample(each.at_s, {expect.UNREAD: 1.0}) for each in made.samples])
    found = expect.untold(deaf, "redis")
    assert not found.held and "nobody could say" in found.said
    assert expect.untold(deaf, "taken out", kind="balancer").held, "who looks at that is somebody else"


def test_what_every_run_is_to_show_needs_no_line_in_its_file() -> None:
    good = {"accepted": 5, "lost": 0, "unknown": 0, "wrong": 0}
    asked = [Claim(claim="c", func="verdict", arguments={"lost": [0, 3]})]
    assert all(each.held for each in judge.safe(good, []))
    for word in ("lost", "invented", "corrupted", "duplicated", "wrong", "unknown"):
        assert not all(each.held for each in judge.safe({**good, word: 1}, [])), word
    assert all(each.held for each in judge.safe({**good, "lost": 1}, asked)), "its file says how many there may be"
    assert not all(each.held for each in judge.safe({**good, "wrong": 1}, asked))
