"""What workflows say of their own work, read on at each look."""

from __future__ import annotations

import json
import time
from pathlib import Path

from seawall.lab.rig.work import LATELY_S, Work


def line(word: str, lane: str, seconds: float, age_s: float = 0.0) -> str:
    return json.dumps([word, lane, seconds, int((time.time() - age_s) * 1e6)]) + "\n"


def test_each_lane_has_its_waits_its_rate_and_how_long_it_took(tmp_path: Path) -> None:
    file = tmp_path / "work"
    work = Work(file)
    assert work.sample() == {}
    file.write_text("".join([*(line("began", "runbook", n) for n in (1, 2, 3)), line("ended", "runbook", 4)]))
    waits = {"begun.runbook_p99_s": 3.0, "took.runbook_mean_s": 4.0}
    assert work.sample() == waits, "a rate of five seconds isn't known before they are over"
    file.write_text("".join([line("began", "runbook", 9, age_s=LATELY_S + 1), file.read_text()]))
    assert Work(file).sample() == {"begun.runbook_rate": 3 / LATELY_S, **waits}


def test_a_lane_in_which_nothing_begins_any_more_has_the_rate_0_and_no_waits(tmp_path: Path) -> None:
    file = tmp_path / "work"
    file.write_text(line("began", "runbook", 1, age_s=LATELY_S + 1) + line("ended", "runbook", 1, age_s=LATELY_S + 1))
    assert Work(file).sample() == {"begun.runbook_rate": 0.0}


def test_a_line_is_read_when_it_is_whole_and_a_torn_one_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "work"
    whole = line("began", "a", 1)
    file.write_text(line("began", "a", 1, age_s=LATELY_S + 1) + whole + '["began", "a"\n' + whole[:10])
    work = Work(file)
    assert work.sample()["begun.a_rate"] == 1 / LATELY_S
    with file.open("a") as more:
        more.write(whole[10:])
    assert work.sample()["begun.a_rate"] == 2 / LATELY_S
