"""Each step has one effect for each event: a copy under its own key is allowed, another effect or none isn't."""

from __future__ import annotations

from pathlib import Path

from seawall.lab.checker.effect import Effect, judge, read
from seawall.lab.checker.ledger import Attempt, Run
from seawall.lab.checker.verdict import Verdict

KEYS = ("r_0", "r_1")


def _judge(*effects: tuple[str, str, str], ended: tuple[str, ...] = KEYS) -> Verdict:
    attempts = [Attempt(key, n, 0, "x", 1, 1, 202) for n, key in enumerate(KEYS)]
    verdict = Verdict(sent=2, accepted=2, finished=2, ended=set(ended))
    judge(verdict, [Run("r", {}, attempts)], [Effect(*each, 1) for each in effects])
    return verdict


def _all(step: str = "a") -> list[tuple[str, str, str]]:
    return [(key, step, f"{key}.{step}") for key in KEYS]


def test_one_effect_of_each_step_is_well() -> None:
    verdict = _judge(*_all("a"), *_all("b"))
    assert verdict.holds and (verdict.effects, verdict.repeated) == (4, 0)


def test_a_copy_under_the_same_idempotency_key_is_counted_and_allowed() -> None:
    verdict = _judge(*_all(), ("r_0", "a", "r_0.a"))
    assert verdict.holds and (verdict.effects, verdict.repeated) == (3, 1)


def test_a_second_effect_under_another_key_is_duplicated() -> None:
    verdict = _judge(*_all(), ("r_0", "a", "other"))
    assert verdict.duplicated == 1 and not verdict.holds


def test_a_missing_effect_of_a_finished_event_is_lost_also_where_it_has_none_at_all() -> None:
    assert _judge(*_all("a"), ("r_0", "b", "k")).lost == 1
    assert _judge(("r_0", "a", "k")).lost == 1


def test_a_missing_effect_of_an_event_that_is_not_at_its_end_is_no_finding_of_its_own() -> None:
    assert _judge(("r_0", "a", "k"), ended=("r_0",)).lost == 0


def test_an_effect_for_what_was_never_sent_is_invented() -> None:
    assert _judge(*_all(), ("x_9", "a", "k")).invented == 1


def test_a_torn_line_was_never_done(tmp_path: Path) -> None:
    file = tmp_path / "effects"
    file.write_text('["effect","r_0","a","k",5]\n["effect","r_1","a",\n')
    assert list(read(file)) == [Effect("r_0", "a", "k", 5)]
    assert list(read(tmp_path / "none")) == []


def test_where_each_step_writes_down_what_it_does_none_at_all_is_a_loss() -> None:
    attempts = [Attempt(key, n, 0, "x", 1, 1, 202) for n, key in enumerate(KEYS)]
    for must in (False, True):
        verdict = Verdict(sent=2, accepted=2, finished=2, ended=set(KEYS))
        judge(verdict, [Run("r", {}, attempts)], [], must=must)
        assert verdict.lost == (2 if must else 0)
