"""The figures of storms are kept where the benchmarks' are."""

from __future__ import annotations

from typing import Any

from storms import BEGIN, END, block, replaced

RUN: dict[str, Any] = {
    "seed": 1, "began": "2026-11-23T07:00:00", "command": "seawall lab storm --seed 1 --minutes 0.5",
    "as_expected": True, "status": "as_expected", "why": [], "faults": [{}, {}], "recover_s": 2.5,
    "verdict": {"accepted": 1500, "lost": 0, "recovered": 3},
}  # fmt: skip


def test_it_says_what_was_accepted_what_was_lost_and_how_sure_that_is() -> None:
    said = block([RUN, {**RUN, "seed": 2, "recover_s": 4.0}])
    for row in (
        "| storms | 2, seeds 1 to 2 |",
        "| faults | 4 |",
        "| accepted | 3,000 |",
        "| lost | 0 |",
        "(3/n) | 1000.0 |",
    ):
        assert row in said
    assert "- seed" not in said


def test_a_storm_that_failed_is_named_with_its_cause() -> None:
    said = block([{**RUN, "as_expected": False, "status": "not_as_expected", "why": ["lost 1"],
                   "verdict": {"accepted": 9, "lost": 1}}])  # fmt: skip
    assert "- seed 1: not_as_expected: lost 1" in said and "some were lost" in said


def test_a_storm_that_nobody_judged_to_its_end_leaves_no_bound() -> None:
    for other in ({"status": "aborted", "verdict": {}}, {"verdict": {"accepted": 9, "unknown": 1, "lost": 0}}):
        said = block([RUN, {**RUN, **other, "as_expected": False, "why": ["w"]}])
        assert "(3/n) | unknown: not every storm" in said


def test_a_page_has_one_block_the_newest() -> None:
    first = replaced("# Results\n", f"{BEGIN}\none\n{END}\n")
    assert replaced(first, f"{BEGIN}\ntwo\n{END}\n") == f"# Results\n\n{BEGIN}\ntwo\n{END}\n"
