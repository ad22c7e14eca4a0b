"""The checker sees each thing that it claims to see: every case fabricates a platform that did it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from seawall.lab.checker.ledger import Attempt, Run
from seawall.lab.checker.verdict import SeenEvent, SeenRun, Verdict, judge
from seawall.lab.traffic.payload import body, sha256

ABOUT = {"source_id": "s", "seed": 5, "type": "t", "bytes_max": 500}


def _sha(n: int) -> str:
    return sha256(body(5, n, type="t", bytes_max=500))


def _attempt(n: int, *, status: int = 202, attempt: int = 0, event_id: str | None = None) -> Attempt:
    known = f"e{n}" if status == 202 else ""
    return Attempt(f"r_{n}", n, attempt, _sha(n), 1, 1, status, known if event_id is None else event_id, 2, "")


def _event(n: int, *, status: str = "routed", run: str = "succeeded") -> SeenEvent:
    runs = (SeenRun(id=f"run{n}", workflow="w", status=run),)
    return SeenEvent(id=f"e{n}", key=f"r_{n}", sha256=_sha(n), status=status, runs=runs)


def _judge(attempts: list[Attempt], events: list[SeenEvent], workflows: tuple[str, ...] = ()) -> Verdict:
    return judge([Run("r", ABOUT, attempts)], {"s": events}, workflows=workflows)


def _words(verdict: Verdict) -> dict[str, int]:
    return {word: count for word, count in verdict.counts().items() if count and word != "sent"}


def test_all_well() -> None:
    verdict = _judge([_attempt(n) for n in range(5)], [_event(n) for n in range(5)])
    assert _words(verdict) == {"accepted": 5, "finished": 5}
    assert verdict.holds


def test_an_acked_event_that_is_not_there_is_lost() -> None:
    verdict = _judge([_attempt(0), _attempt(1)], [_event(0)])
    assert _words(verdict) == {"accepted": 2, "finished": 1, "lost": 1}
    assert not verdict.holds
    assert "r_1" in verdict.examples["lost"][0]


def test_an_acked_event_without_the_run_that_its_like_have_is_lost() -> None:
    verdict = _judge([_attempt(0), _attempt(1)], [_event(0), replace(_event(1), runs=())])
    assert _words(verdict) == {"accepted": 2, "finished": 1, "lost": 1}


def test_a_run_that_was_asked_for_and_that_no_event_has_is_lost() -> None:
    assert _judge([_attempt(0)], [replace(_event(0), runs=())], workflows=("w",)).lost == 1


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_run_that_failed_is_finished_and_where_all_must_succeed_it_is_lost(status: str) -> None:
    """Innocents that somebody else's code had failed passed for finished."""
    seen = {"s": [_event(0), _event(1, run=status)]}
    sent = [Run("r", ABOUT, [_attempt(0), _attempt(1)])]
    assert judge(sent, seen).holds
    verdict = judge(sent, seen, must_succeed=True)
    assert _words(verdict) == {"accepted": 2, "finished": 1, "lost": 1}
    assert f"ended as {status}" in verdict.examples["lost"][0]


@pytest.mark.parametrize("status", ["dead", "conflict"])
def test_an_acked_event_that_ended_as_a_dead_letter_is_lost(status: str) -> None:
    assert _words(_judge([_attempt(0)], [_event(0, status=status)])) == {"accepted": 1, "lost": 1}


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_run_that_ended_badly_is_finished_all_the_same(status: str) -> None:
    assert _judge([_attempt(0)], [_event(0, run=status)]).finished == 1


def test_a_run_that_could_not_be_run_is_lost() -> None:
    """Else a storm of kills that buries innocent runs would be called well."""
    verdict = _judge([_attempt(0)], [_event(0, run="dead")])
    assert _words(verdict) == {"accepted": 1, "lost": 1}
    assert not verdict.holds


@pytest.mark.parametrize("event", [_event(0, run="queued"), _event(0, run="waiting"), _event(0, status="held")])
def test_what_is_not_at_its_end_is_unknown_and_red(event: SeenEvent) -> None:
    verdict = _judge([_attempt(0)], [event])
    assert _words(verdict) == {"accepted": 1, "unknown": 1}
    assert not verdict.holds


def test_other_bytes_are_corrupted() -> None:
    assert _words(_judge([_attempt(0)], [replace(_event(0), sha256=_sha(1))])) == {"accepted": 1, "corrupted": 1}


def test_an_answer_that_names_another_event_is_corrupted() -> None:
    assert _judge([_attempt(0, event_id="e7")], [_event(0)]).corrupted == 1


def test_bytes_that_nobody_could_read_are_unknown() -> None:
    assert _judge([_attempt(0)], [replace(_event(0), sha256="")]).unknown == 1


def test_an_event_that_nobody_sent_is_invented() -> None:
    verdict = _judge([_attempt(0)], [_event(0), _event(1)])
    assert _words(verdict) == {"accepted": 1, "finished": 1, "invented": 1}
    assert not verdict.holds


def test_a_refused_event_that_is_there_is_invented() -> None:
    assert _words(_judge([_attempt(0, status=401)], [_event(0)])) == {"invented": 1}


def test_a_refused_event_that_is_not_there_is_fine() -> None:
    assert _judge([_attempt(0, status=413)], []).holds


@pytest.mark.parametrize("status", [0, 503])
def test_an_unsure_answer_is_recovered_when_the_event_is_there_and_nothing_when_it_is_not(status: int) -> None:
    assert _words(_judge([_attempt(0, status=status)], [_event(0)])) == {"recovered": 1}
    assert _words(_judge([_attempt(0, status=status)], [])) == {}


def test_an_unsure_event_must_come_to_its_end_too() -> None:
    assert _words(_judge([_attempt(0, status=0)], [_event(0, run="queued")])) == {"unknown": 1}


def test_two_events_for_one_id_are_duplicated() -> None:
    twice = [_event(0), replace(_event(0), id="e9")]
    tries = [_attempt(0, status=0), _attempt(0, attempt=1, event_id="e9")]
    assert _words(_judge(tries, twice)) == {"accepted": 1, "finished": 1, "duplicated": 1}


def test_two_runs_of_one_workflow_are_duplicated() -> None:
    run = _event(0).runs[0]
    assert _judge([_attempt(0)], [replace(_event(0), runs=(run, replace(run, id="other")))]).duplicated == 1


def test_a_repeat_that_was_collapsed_into_the_first_event_is_finished() -> None:
    tries = [_attempt(0, status=0), _attempt(0, attempt=1, event_id="e5")]
    assert _words(_judge(tries, [_event(0)])) == {"accepted": 1, "finished": 1}


def test_a_ledger_that_was_changed_is_not_believed() -> None:
    changed = _attempt(0)
    changed.sha256 = _sha(3)
    assert _judge([changed], [replace(_event(0), sha256=_sha(3))]).unknown == 1


def test_runs_of_other_sources_do_not_answer_for_this_one() -> None:
    assert judge([Run("r", ABOUT, [_attempt(0)])], {"other": [_event(0)]}).lost == 1


def _held(n: int, *, whose: str = "", ticket: str = "", status: int = 200) -> Attempt:
    return replace(_attempt(n), status=status, event_id=f"e{n}" if status else "", whose=whose, ticket=ticket)


def _judge_held(attempt: Attempt, tickets: dict[str, str] | None = None) -> dict[str, int]:
    run = Run("r", {**ABOUT, "wait_s": 8}, [attempt])
    verdict = judge([run], {"s": [_event(attempt.n)]}, tickets=tickets or {})
    assert verdict.holds == (not verdict.wrong and not verdict.unknown)
    words = _words(verdict)
    return {word: count for word, count in words.items() if word not in ("accepted", "finished", "recovered", "held")}


def test_a_held_request_that_got_its_own_answer() -> None:
    assert _judge_held(_held(0, whose="r_0")) == {"own": 1}


def test_a_held_request_that_got_anothers_answer_is_wrong_and_red() -> None:
    assert _judge_held(_held(0, whose="r_1")) == {"wrong": 1}


def test_a_held_request_that_found_its_own_answer_under_its_ticket_is_late() -> None:
    assert _judge_held(_held(0, status=202, ticket="/in/tickets/e0"), {"r_0": "r_0"}) == {"late": 1}


def test_a_ticket_under_which_anothers_answer_lies_is_wrong() -> None:
    assert _judge_held(_held(0, status=202, ticket="/in/tickets/e0"), {"r_0": "r_7"}) == {"wrong": 1}


def test_a_ticket_under_which_nothing_comes_is_unknown() -> None:
    assert _judge_held(_held(0, status=202, ticket="/in/tickets/e0")) == {"ticket": 1, "unknown": 1}


@pytest.mark.parametrize("status", [0, 503])
def test_a_held_request_without_an_answer_is_silent_and_its_event_recovered(status: int) -> None:
    assert _judge_held(_held(0, status=status)) == {"silent": 1}


def test_a_ledger_without_held_requests_says_nothing_of_them() -> None:
    assert "own" not in _judge([_attempt(0)], [_event(0)]).counts()
