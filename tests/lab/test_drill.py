"""Drills: what is drawn is a function of the seed and hidden; what people mark is timed, and all is told at the end."""

from __future__ import annotations

import io
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from seawall.cli.drill import drill as command
from seawall.cli.experiment import say_record
from seawall.kernel.error import Rejected
from seawall.lab import drill, experiment, history
from seawall.lab.arm import file
from seawall.lab.record import Drill, Fault, Mark, Record, Status
from seawall.lab.report import write as report
from seawall.lab.run.keys import take
from seawall.lab.run.place import Folder
from seawall.lab.run.runner import run
from seawall.lab.run.session import Options
from seawall.lab.run.show import graphs
from seawall.lab.target import file as files
from seawall.lab.target import plan

from . import made_runs, tiny
from .made_target import fault, installed, write
from .platform_server import FakePlatform
from .test_armoury import until
from .test_target_run import SEAWALL, said

NAMES = ("redis-slow", "redis-gone", "kafka-gone")


@pytest.fixture
def fake() -> Iterator[FakePlatform]:
    with FakePlatform() as made:
        yield installed(made)


def test_the_same_seed_draws_the_same_and_each_is_drawn_at_some_time() -> None:
    found = [experiment.find(name) for name in NAMES]
    drawn = [drill.draw(found, seed) for seed in range(30)]
    again = [drill.draw(list(reversed(found)), seed) for seed in range(30)]
    assert [(each.name, made.delay_s) for each, made in drawn] == [(each.name, made.delay_s) for each, made in again]
    assert {each.name for each, _ in drawn} == set(NAMES)
    assert all(drill.DELAY_S[0] <= made.delay_s <= drill.DELAY_S[1] for _, made in drawn)
    with pytest.raises(Rejected):
        drill.draw([], 1)


def test_a_fault_stays_where_its_file_would_undo_it_and_only_the_ledger_is_judged() -> None:
    found = drill.adapt(experiment.find("redis-slow"))
    (only,) = found.document["method"]
    assert only["provider"]["func"] == "slow" and "pauses" not in only
    assert {claim.func for claim in found.ours.expect.on} == {"verdict"} and not found.ours.seconds.min
    assert found.document["rollbacks"] and not found.ours.graph, "its own graphs would tell what it is"
    assert not drill.fit(experiment.find("zone-4-live")) and drill.fit(experiment.find("redis-slow"))


def test_what_is_asked_names_all_and_not_the_one() -> None:
    asked = "\n".join(drill.question([experiment.find(name) for name in NAMES]))
    assert all(name in asked for name in NAMES) and "ends it at once" in asked


def test_marks_are_taken_while_a_drill_goes_on_and_by_nobody_else(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="none goes on"):
        drill.mark(tmp_path, drill.SEEN, text="", by="me")
    desk = drill.Desk(tmp_path, clock=lambda: 100.0)
    desk.open()
    take(tmp_path, "\n")
    take(tmp_path, "failed it over\n")
    take(tmp_path, "done\n")
    shown = CliRunner().invoke(command, ["acted", "and", "told", "--folder", str(tmp_path)], standalone_mode=False)
    assert shown.return_value == 0, shown
    found = desk.look()
    assert [(each.word, each.text) for each in found] == [
        ("seen", ""), ("acted", "failed it over"), ("done", ""), ("acted", "and told"),
    ]  # fmt: skip
    assert all(99.0 < each.at_s <= 100.0 for each in found) and not desk.look()
    desk.close()
    desk.close()
    take(tmp_path, "too late\n")
    assert not desk.look()


def made(**more: object) -> Record:
    marks = [Mark(at_s=5.0, word="seen", by="a"), Mark(at_s=32.0, word="seen", text="late", by="a"),
             Mark(at_s=41.0, word="acted", text="restarted", by="b"), Mark(at_s=55.0, word="acted", text="failed over"),
             Mark(at_s=60.0, word="done")]  # fmt: skip
    found = made_runs.record(drill=Drill(candidates=list(NAMES), delay_s=20.0, marks=marks), **more)
    found.faults = [Fault(name="redis a black hole", target="redis", began_s=20.0, ended_s=61.0, ended_by="rollback")]
    drill.judge(found)
    return found


def test_times_count_from_the_fault_and_what_came_before_it_was_no_sight() -> None:
    found = made()
    assert found.drill is not None and (found.drill.seen_s, found.drill.acted_s) == (12.0, 21.0)
    found.drill.right = 2
    drill.judge(found)
    assert found.drill.acted_s == 35.0
    found.drill.right = 0
    drill.judge(found)
    assert found.drill.acted_s is None and drill.over(found)
    found.drill.right = 2
    found.drill.marks.insert(0, Mark(at_s=3.0, word="acted", text="nothing yet"))
    drill.judge(found)
    assert found.drill.acted_s == 35.0, "what was done before it came isn't counted"
    told = "\n".join(drill.reveal(found))
    assert "acted: nothing yet" in told and "acted 1: restarted" in told and "acted 2: failed over" in told
    found.drill.right = 0
    drill.judge(found)
    told = "\n".join(drill.reveal(found))
    assert "the drill was redis-listener-dies" in told and "+12.0 s  seen: late (a)" in told and "never" in told


def test_who_acts_has_seen() -> None:
    found = made()
    assert found.drill is not None
    found.drill.marks = [each for each in found.drill.marks if each.word == "acted"]
    drill.judge(found)
    assert (found.drill.seen_s, found.drill.acted_s) == (21.0, 21.0)


def test_which_act_was_right_is_said_after_it_and_the_report_shows_all(tmp_path: Path) -> None:
    found = made()
    made_runs.leave(tmp_path, found)
    made_runs.leave(tmp_path, made_runs.record(at="071500"))
    said = CliRunner().invoke(command, ["right", "2", "--folder", str(tmp_path)], standalone_mode=False)
    assert said.return_value == 0 and "first right act: after 35.0 s" in said.output
    wrong = CliRunner().invoke(command, ["right", "3", "--folder", str(tmp_path)], standalone_mode=False)
    assert "has 2 acts" in str(wrong.exception)
    (kept,) = [each.record for each in history.read(tmp_path) if each.record.drill is not None]
    assert kept.drill is not None and kept.drill.right == 2 and kept.drill.acted_s == 35.0
    page = report(tmp_path).html.read_text()
    assert "redis-listener-dies, a drill" in page and "people saw it after" in page and "12.0 s" in page


def test_a_drill_is_not_what_other_runs_are_compared_with() -> None:
    slow = [made_runs.record(at=f"06{number}00", recover_s=40.0) for number in (11, 12)]
    assert not history.judge([*slow, made(at="061300", recover_s=300.0)])[-1].worse


def test_the_screen_of_a_drill_shows_no_fault_and_always_how_to_end_it() -> None:
    faults = [Fault(name="redis a black hole", target="redis", began_s=0.0)]
    lines = graphs(["intake.p99_ms"], [], faults, columns=120, foot="Ctrl-C ends it")
    assert lines[-1] == "Ctrl-C ends it" and not any("redis" in each or "broken" in each for each in lines)


@pytest.mark.slow
def test_a_drill_hides_the_fault_holds_it_until_people_are_done_and_tells_it_then(
    tmp_path: Path, fake: FakePlatform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(drill, "DELAY_S", (0.5, 1.0))
    flag, place, shown = tmp_path / "flag", tmp_path / "lab", io.StringIO()
    target = files.load(write(tmp_path, fake.url, {"redis.hole": fault(flag)}))
    found = plan.fit(experiment.load(tiny.write(tmp_path, said())), target, file="staging.toml")
    chosen, drawn = drill.draw([found], 7)

    told = list[str]()

    def people() -> None:
        until(flag.exists, "it is broken", 60)
        told.extend(each.name for each in (place / "run").iterdir())
        holder = file.holder(place / "armed")
        told.append(Path(f"/proc/{holder.pid if holder else 0}/cmdline").read_text())
        for word in (drill.SEEN, drill.ACTED):
            drill.mark(place, word, text="looked", by="test")
        assert flag.exists()
        drill.mark(place, drill.DONE, text="", by="test")

    thread = threading.Thread(target=people)
    thread.start()
    options = Options(folder=Folder(place), seed=7, fetched=tmp_path, command="x", drill=drawn)
    record = run(chosen, options, screen_to=shown)
    thread.join()
    assert record.status is Status.AS_EXPECTED, record.why
    assert record.drill is not None and record.drill.seen_s is not None and record.drill.acted_s is not None
    assert not flag.exists() and file.read_all(place / "armed") == ([], [])
    assert len(told) == 2 and "silent-echo" not in "".join(told), "nor do the lists of runs and of processes"
    assert "redis" not in shown.getvalue() and "hole" not in shown.getvalue(), "nothing tells it before its end"
    with pytest.raises(Rejected):
        drill.mark(place, drill.SEEN, text="", by="late")
    say_record(record, place, err=False)
    assert "the drill was silent-echo" in capsys.readouterr().out


@pytest.mark.slow
def test_nothing_is_broken_after_people_were_done(
    tmp_path: Path, fake: FakePlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drill, "DELAY_S", (60.0, 60.0))
    place = tmp_path / "lab"
    target = files.load(write(tmp_path, fake.url, {"redis.hole": fault(tmp_path / "flag")}))
    found = plan.fit(experiment.load(tiny.write(tmp_path, said())), target, file="staging.toml")
    chosen, drawn = drill.draw([found], 7)

    def people() -> None:
        until((place / drill.FILE).exists, "it goes on", 60)
        drill.mark(place, drill.DONE, text="", by="test")

    thread = threading.Thread(target=people)
    thread.start()
    options = Options(folder=Folder(place), seed=7, fetched=tmp_path, command="x", drill=drawn)
    record = run(chosen, options, screen_to=io.StringIO())
    thread.join()
    assert record.status is Status.ABORTED and not record.faults and record.seconds < 60
    assert record.why == ["people were done before anything was broken"]


@pytest.mark.slow
def test_nothing_is_drawn_without_a_word(tmp_path: Path) -> None:
    path = tiny.write(tmp_path, said())
    target = write(tmp_path, "http://127.0.0.1:9", {"redis.hole": fault(tmp_path / "flag")})
    words = [*SEAWALL, "run", "--folder", str(tmp_path / "lab")]
    for more, why in (
        ([], "name an experiment"),
        (["--drill", str(path), "--target", str(target)], "a drill on staging"),
    ):
        done = subprocess.run([*words, *more], capture_output=True, text=True, timeout=60, check=False,
                              stdin=subprocess.DEVNULL)  # fmt: skip
        assert done.returncode == 2 and why in done.stderr, done
    assert not (tmp_path / "lab").exists()
