"""All runs are kept, and what has got worse is said by one rule."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from seawall.cli.history import history as command
from seawall.lab import history
from seawall.lab.record import Expectation, Record, Status
from seawall.lab.report import write

from .made_runs import leave, record

MISSED = [Expectation(claim="held requests are answered", held=False, said="3 of 640")]


def run(number: int, **more: Any) -> Record:
    """The run of minute ``number``."""
    return record(at=f"06{number:02}00", **more)


def last(*records: Record) -> tuple[str, ...]:
    """What is worse with the last one."""
    return tuple(history.judge(records)[-1].worse)


def test_one_that_was_as_expected_and_now_is_not_is_worse() -> None:
    missed = run(2, status=Status.NOT_AS_EXPECTED, expectations=MISSED)
    assert last(run(1), missed) == (
        "as expected in redis-listener-dies.on.20261123T060100, and now not: held requests are answered",
    )
    assert last(run(1), missed, run(3, status=Status.NOT_AS_EXPECTED, expectations=MISSED)) == (
        "as expected in redis-listener-dies.on.20261123T060100, and now not, nor in 1 before it: "
        "held requests are answered",
    ), "it isn't well again by being red a second time"
    assert last(missed) == () == last(run(1, status=Status.NOT_AS_EXPECTED), missed)
    assert last(run(1, on=False), missed) == (), "one without the protections is another thing"


@pytest.mark.parametrize("status", [Status.INVALID, Status.ABORTED])
def test_what_has_shown_nothing_is_neither_worse_nor_what_others_are_compared_with(status: Status) -> None:
    nothing = run(2, status=status)
    assert last(run(1), nothing) == ()
    assert last(run(1), nothing, run(3, status=Status.NOT_AS_EXPECTED, expectations=MISSED))[0].startswith(
        "as expected in redis-listener-dies.on.20261123T060100"
    )


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"detect_s": 6.1}, ()),  # not 1.5 times
        ({"detect_s": 6.4}, ("detect: after 6.4 s, and after 4.2 s before (median of 3)",)),
        ({"recover_s": 3.4}, ()),  # not 2 s
        ({"recover_s": 3.6}, ("recover: after 3.6 s, and after 1.5 s before (median of 3)",)),
        ({"mitigate_s": None}, ("mitigate: never, and after 2.1 s before (median of 3)",)),
    ],
)
def test_a_time_is_worse_by_half_and_two_seconds(now: dict[str, Any], said: tuple[str, ...]) -> None:
    assert last(run(1), run(2), run(3), run(4, **now)) == said


def test_times_need_two_runs_before_and_only_the_last_five_count() -> None:
    assert last(run(1), run(2, recover_s=50.0)) == ()
    slow = [run(number, recover_s=40.0) for number in range(1, 4)]
    quick = [run(number) for number in range(4, 9)]
    assert last(*slow, *quick, run(9, recover_s=40.0)) == (
        "recover: after 40.0 s, and after 1.5 s before (median of 5)",
    )
    assert last(run(1, detect_s=None), run(2), run(3, detect_s=50.0)) == (), "one of them had none"
    assert last(run(1, on=False), run(2, on=False), run(3, on=False, recover_s=90.0)) == (), "the incident's own times"


def test_runs_are_kept_when_their_folders_are_gone_and_found_when_their_runner_was_killed(tmp_path: Path) -> None:
    history.keep(tmp_path, run(1))
    killed = replace(run(2), status=Status.ABORTED)
    leave(tmp_path, killed)
    with (tmp_path / history.FILE).open("ab") as file:
        file.write(b'{"torn": ')
    assert [each.record.id for each in history.read(tmp_path)] == [run(1).id, killed.id]


def test_a_run_after_a_line_that_was_torn_is_kept(tmp_path: Path) -> None:
    (tmp_path / history.FILE).write_bytes(b'{"torn": ')
    for number in (1, 2):
        history.keep(tmp_path, run(number))
    assert [each.record.id for each in history.read(tmp_path)] == [run(1).id, run(2).id]


def test_a_line_that_says_it_anew_counts(tmp_path: Path) -> None:
    history.keep(tmp_path, run(1))
    history.keep(tmp_path, run(1, recover_s=9.0))
    (found,) = history.read(tmp_path)
    assert found.record.recover_s == 9.0 and found.record.faults and not found.record.moments


def test_a_file_that_is_too_long_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "FILE_BYTES_MAX", 10)
    history.keep(tmp_path, run(1))
    history.keep(tmp_path, run(2))
    assert [each.record.id for each in history.read(tmp_path)] == [run(2).id]


def test_the_command_shows_them_and_marks_what_is_worse(tmp_path: Path) -> None:
    empty = CliRunner().invoke(command, ["--folder", str(tmp_path)], standalone_mode=False)
    assert "has no run" in str(empty.exception)
    for number in (1, 2):
        history.keep(tmp_path, run(number))
    good = CliRunner().invoke(command, ["--folder", str(tmp_path)], standalone_mode=False)
    assert good.return_value == 0 and good.output.count("as expected") == 2
    history.keep(tmp_path, run(3, recover_s=30.0))
    shown = CliRunner().invoke(command, ["redis-listener-dies", "--folder", str(tmp_path)], standalone_mode=False)
    assert (
        shown.return_value == 1
        and "WORSE redis-listener-dies.on.20261123T060300: recover: after 30.0 s" in shown.output
    )
    told = CliRunner().invoke(command, ["--json", "--limit", "1", "--folder", str(tmp_path)], standalone_mode=False)
    found = json.loads(told.output)
    assert len(found["runs"]) == 1 and found["worse"][0]["worse"] and found["runs"][0]["status"] == "as_expected"


def test_the_report_marks_it(tmp_path: Path) -> None:
    for number in (1, 2):
        leave(tmp_path, run(number))
    leave(tmp_path, run(3, recover_s=30.0))
    made = write(tmp_path)
    page = made.html.read_text()
    assert "Worse than before:" in page and "recover: after 30.0 s" in page
    assert json.loads(made.json.read_text())["runs"][0]["worse"] == [
        "recover: after 30.0 s, and after 1.5 s before (median of 2)"
    ]
