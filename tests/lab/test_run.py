"""What a run of an experiment says, and that nothing stays broken, whatever becomes of it. On a rig of almost nothing
(`tiny.py`): a server, two lines through the fault proxy, and a client."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from seawall.journal.filesystem import LocalFilesystem
from seawall.kernel.error import Misconfigured
from seawall.lab import experiment, history, record
from seawall.lab.arm import file, leftover
from seawall.lab.arm.armoury import settle
from seawall.lab.part.process import gone, identity
from seawall.lab.part.proxy import FaultProxy
from seawall.lab.record import Record, Status
from seawall.lab.run import judge, toolkit, watch
from seawall.lab.run.place import Folder
from seawall.lab.run.runner import run
from seawall.lab.run.sentry import Sentry
from seawall.lab.run.session import Options, current
from seawall.machine import folder as data_folder

from . import tiny
from .test_armoury import REVERTED_S, until
from .tiny import action, document, write

TESTS = Path(__file__).resolve().parents[1]
SEAWALL = [sys.executable, "-m", "seawall", "lab"]
CHAOS = Path(sys.executable).with_name("chaos")
WHILE_S = 60.0


def ran(folder: Path, said: Mapping[str, Any], *, on: bool = True) -> Record:
    """One run in this process; nothing is broken or armed after it."""
    found = experiment.load(write(folder, said))
    options = Options(folder=Folder(folder / "lab"), on=on, seed=7, fetched=folder, command="x")
    made = run(found, options, screen_to=io.StringIO())
    assert file.read_all(folder / "lab" / "armed") == ([], [])
    assert made.status is not Status.RUNNING
    assert record.load(folder / "lab" / "run" / made.id) == made, "the record in the folder is whole"
    return made


def test_what_is_expected_is_green_and_its_record_tells_it(tmp_path: Path) -> None:
    made = ran(tmp_path, document())
    assert made.status is Status.AS_EXPECTED and judge.EXIT[made.status] == 0, made.why
    assert [(fault.name, fault.target, fault.ended_by) for fault in made.faults] == [
        ("echo a black hole", "echo", "method")
    ]
    held = {proof.claim for proof in made.proofs if proof.held}
    assert held >= {"the traffic calls echo", "the path to echo is dead", "the path to other is alive"}
    assert "the path to echo is still dead" in held
    assert made.detect_s is not None and made.recover_s is not None and made.verdict["lost"] == 0
    samples = list(record.samples(tmp_path / "lab" / "run" / made.id))
    assert any(sample.values["lab.faults_count"] for sample in samples)
    assert [each.record.id for each in history.read(tmp_path / "lab")] == [made.id]
    assert [m.text for m in made.moments if m.kind == "step"] == ["hole", "wait 0.6", "mend"]
    journal = json.loads((tmp_path / "lab" / "run" / made.id / record.JOURNAL).read_text())
    assert [each["status"] for each in journal["run"]] == ["succeeded"] * 3


def test_the_journal_that_is_kept_has_no_secrets(tmp_path: Path) -> None:
    toolkit.keep({"experiment": {"title": "t", "secrets": {"shop": {"token": "s3cret"}}}}, tmp_path)
    said = (tmp_path / record.JOURNAL).read_text()
    assert "s3cret" not in said and json.loads(said)["experiment"]["secrets"] == {"shop": "(hidden)"}


@pytest.mark.slow
def test_a_missed_expectation_is_red(tmp_path: Path) -> None:
    made = ran(tmp_path, document(options={"lost": 2}))
    assert made.status is Status.NOT_AS_EXPECTED and judge.EXIT[made.status] == 1
    assert made.why == ["nothing is lost: lost 2"]


@pytest.mark.slow
@pytest.mark.parametrize("word", ["invented", "corrupted", "duplicated", "wrong", "unknown"])
def test_what_no_line_of_the_file_asks_for_is_red_all_the_same(word: str, tmp_path: Path) -> None:
    made = ran(tmp_path, document(options={"words": {word: 1}}))
    assert made.status is Status.NOT_AS_EXPECTED and f"{word} 1" in made.why[0], made.why


@pytest.mark.slow
def test_who_is_told_to_end_while_nobody_takes_it_has_not_come_out_as_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentry may be in the middle of a look that takes long."""

    def deaf(self: Sentry, due: float) -> None:
        time.sleep(0.05)

    def finish(self: tiny.TinyRig, timeout_s: float) -> Mapping[str, int]:
        session = current()
        assert session is not None
        session.sentry.end("Ctrl-C")
        return {"accepted": 100, "unknown": 0, "lost": 9}

    monkeypatch.setattr(Sentry, "_next", deaf)
    monkeypatch.setattr(tiny.TinyRig, "finish", finish)
    made = ran(tmp_path, document())
    assert made.status is Status.ABORTED and made.why == ["Ctrl-C"], made


@pytest.mark.slow
def test_without_the_protection_the_incident_is_what_is_expected(tmp_path: Path) -> None:
    off = [{"claim": "something is lost", "func": "verdict", "arguments": {"lost": [1, 100]}}]
    said = document(options={"lost": 2}, without=["deaf"], expect={"on": tiny.EXTENSION["expect"]["on"], "off": off})
    made = ran(tmp_path, said, on=False)
    assert made.status is Status.AS_EXPECTED and made.protections == "off" and made.facts["weak"] == "deaf"
    assert made.id.startswith("silent-echo.off.")


@pytest.mark.slow
def test_the_gate_waits_for_a_good_moment(tmp_path: Path) -> None:
    made = ran(tmp_path, document(probe="unsteady"))
    assert made.status is Status.AS_EXPECTED, made.why


STEADY = {"on": [{"claim": "steady", "func": "stays", "arguments": {"name": "echo.ok_ratio", "at_least": 0.0}}]}
INVALID = {
    "the gate": (document(probe="never", seconds={"warm": 0.3}), "the steady state doesn't hold before the fault"),
    "an open alert": (document(options={"alert": "store-away"}, seconds={"warm": 0.3}), "an alert is open: store-away"),
    "a stranger": (document(options={"away": "192.0.2.7:6379"}), "only what is on this machine, or named"),
    "no call": (document(options={"deaf": True}), "the traffic calls echo"),
    "no such sample": (
        document(abort=[{"claim": "too silent", "name": "echo.ok_ration", "below": 0.5}]),
        "what aborts it is measured (too silent): echo.ok_ration was measured 0 times",
    ),
    "no landing": (document(action("hole", claim=False)), "the path to echo is dead: it is alive"),
    "too much": (document(action("too_much")), "the path to other is alive: it is dead"),
    "too soon over": (document(action("blink")), "it was undone before anybody could look"),
    "a failed action": (document(action("fail")), "it can't be done"),
    "no verdict": (document(options={"unjudged": True}, expect=STEADY), "there is no verdict: ValueError: the ledger"),
    "nothing accepted": (document(options={"words": {"accepted": 0}}), "something was accepted: 0 events"),
    "mended by somebody": (
        document(action("hole"), action("flush"), action("mend")), "the path to echo is still dead: it is alive",
    ),
    "mended by somebody, undone by rollbacks": (
        document(action("hole"), action("flush")), "the path to echo is still dead: it is alive",
    ),
    "nothing": (document(action("wait", seconds=0.01)), "nothing was broken"),
    "too short": (document(action("hole"), action("mend"), seconds={"min": 20}), "the faults lasted 20 s at least"),
    "no effect": (
        document(effects=[{"claim": "it falls", "func": "becomes", "arguments": {"name": "echo.ok", "most": 0.5}}]),
        "it falls: echo.ok was measured 0 times",
    ),
}  # fmt: skip


@pytest.mark.slow
def test_who_looked_away_while_something_was_broken_has_shown_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seawall.lab.run.watch.STALL_S", 2.0)
    made = ran(tmp_path, document(action("hole"), action("wait", seconds=4.5), action("mend"), options={"blind_s": 4}))
    assert made.status is Status.INVALID and len(made.why) == 1, made.why
    assert made.why[0].startswith(watch.CLAIM), made.why
    unseen_s = made.why[0].partition("at the longest ")[2].partition(" s without a measurement")[0]
    assert 4.0 <= float(unseen_s) < WHILE_S


@pytest.mark.slow
@pytest.mark.parametrize("name", INVALID)
def test_a_rig_that_does_not_prove_itself_shows_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seawall.lab.run.faults.LAND_S", 0.5)
    monkeypatch.setattr("seawall.lab.run.preflight.CALLED_S", 0.5)
    said, why = INVALID[name]
    made = ran(tmp_path, said)
    assert made.status is Status.INVALID and judge.EXIT[made.status] == 6, made.why
    assert any(why in each for each in made.why), made.why


ABORTED = {
    "the longest time": (document(action("hole"), action("wait", seconds=60), seconds={"max": 1}), "have lasted 1 s"),
    "the file's own": (
        document(
            action("hole"), action("wait", seconds=60),
            abort=[{"claim": "too silent", "name": "echo.ok_ratio", "below": 0.5, "for_s": 0.4}],
        ),
        "too silent: echo.ok_ratio is 0",
    ),
    "the generator": (
        document(action("hole"), action("wait", seconds=60), options={"dies_s": 2.5}), "the client is gone",
    ),
    "memory": (document(action("hole"), action("wait", seconds=60), memory_mb=1), "MiB of memory"),
    "a pause": (
        document({**action("hole"), "pauses": {"after": 60}}, seconds={"max": 1}), "the longest that was allowed",
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ABORTED)
def test_an_abort_condition_reverts_and_ends_the_run(name: str, tmp_path: Path) -> None:
    said, why = ABORTED[name]
    began = time.monotonic()
    made = ran(tmp_path, said)
    assert time.monotonic() - began < WHILE_S / 2
    assert made.status is Status.ABORTED and judge.EXIT[made.status] == 7, made.why
    assert why in made.why[0] and all(fault.ended_s is not None for fault in made.faults)


@pytest.mark.slow
def test_a_full_disk_aborts_before_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seawall.lab.run.session.DISK_FREE_MB_MIN", 1e12)
    made = ran(tmp_path, document(action("hole"), action("wait", seconds=60)))
    assert made.status is Status.ABORTED and "MiB are free" in made.why[0]


@pytest.mark.slow
def test_a_record_that_can_not_be_written_keeps_nothing_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = experiment.load(write(tmp_path, document(action("hole"), action("wait", seconds=0.5))))

    def full(self: Record, folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Record, "save", full)
    out = io.StringIO()
    made = run(found, Options(folder=Folder(tmp_path / "lab"), fetched=tmp_path, command="x"), screen_to=out)
    assert made.status is Status.AS_EXPECTED and made.faults[0].ended_by == "rollback"
    assert "the record can't be written" in out.getvalue() and file.read_all(tmp_path / "lab" / "armed") == ([], [])


# ── In a process of its own ────────────────────────────────────────────────────────────────────────────────────────
LONG = document(action("hole"), action("wait", seconds=60))


class Running:
    """`seawall lab run` in mid-fault."""

    def __init__(self, folder: Path, command: list[str]) -> None:
        self.folder = folder / "lab"
        self.log = folder / "out"
        with self.log.open("ab") as out:
            self.child = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                env={**os.environ, "PYTHONPATH": str(TESTS)},
            )  # fmt: skip
        until(lambda: self.faults() or self.child.poll() is not None, "it is broken", WHILE_S)
        assert self.child.poll() is None, self.log.read_text()

    def faults(self) -> object:
        """What is wrong with the line; None: nobody can say."""
        try:
            return FaultProxy(self.folder / "rig" / "proxy").links()["echo"]["faults"]
        except Exception:
            return None

    def whole(self) -> bool:
        return self.faults() == []

    def ends(self) -> int:
        return self.child.wait(WHILE_S)

    def record(self) -> Record:
        (found,) = (self.folder / "run").iterdir()
        return record.load(found)


@contextmanager
def running(folder: Path, said: Mapping[str, Any] = LONG, command: list[str] | None = None) -> Iterator[Running]:
    path = write(folder, said)
    made = Running(folder, command or [*SEAWALL, "run", str(path), "--yes", "--folder", str(folder / "lab")])
    try:
        yield made
    finally:
        made.child.kill()
        made.child.wait()
        holder = file.holder(made.folder / "armed")
        if holder is not None and (watchdog := holder.watchdog) is not None:
            os.kill(watchdog.pid, signal.SIGTERM)
            assert gone(watchdog, WHILE_S), "the watchdog has ended what the runner left"
        assert FaultProxy(made.folder / "rig" / "proxy").pid("proxy") is None, "nothing runs on"


@pytest.mark.slow
def test_kill_9_of_the_runner_in_mid_fault_reverts(tmp_path: Path) -> None:
    with running(tmp_path) as lab:
        lab.child.kill()
        assert until(lab.whole, "the line is whole") < REVERTED_S
        until(lambda: lab.record().status is not Status.RUNNING, "its record is ended")
        found = lab.record()
        assert found.status is Status.ABORTED and "was killed" in found.why[0]
        assert (found.faults[0].name, found.faults[0].ended_by) == ("echo a black hole", "watchdog")


@pytest.mark.slow
def test_when_both_are_killed_the_next_run_begins_with_undoing(tmp_path: Path) -> None:
    with running(tmp_path) as lab:
        holder = file.holder(lab.folder / "armed")
        assert holder is not None
        os.kill(lab.child.pid, signal.SIGSTOP)
        os.kill(holder.pid, signal.SIGKILL)
        lab.child.kill()
        lab.child.wait()
        assert not lab.whole()
        (first,) = (lab.folder / "run").iterdir()
        with Folder(lab.folder).held():
            assert record.load(first).status is Status.ABORTED
            settle(lab.folder / "armed")
            assert lab.whole() and file.read_all(lab.folder / "armed") == ([], [])
        leftover.end(lab.folder / "rig", lambda line: None)


@pytest.mark.slow
def test_a_stopped_runner_reverts_and_says_so_when_it_goes_on(tmp_path: Path) -> None:
    with running(tmp_path) as lab:
        lab.child.send_signal(signal.SIGSTOP)
        assert until(lab.whole, "the line is whole") < REVERTED_S
        lab.child.send_signal(signal.SIGCONT)
        assert lab.ends() == 7
        found = lab.record()
        assert found.status is Status.ABORTED and "the runner was silent" in found.why[0]
        assert found.faults[0].ended_by.startswith("watchdog")


@pytest.mark.slow
def test_without_its_watchdog_the_runner_reverts_by_itself(tmp_path: Path) -> None:
    with running(tmp_path) as lab:
        holder = file.holder(lab.folder / "armed")
        assert holder is not None
        os.kill(holder.pid, signal.SIGKILL)
        assert lab.ends() == 7
        assert lab.record().why == ["the watchdog is gone"] and lab.record().faults[0].ended_by == "abort"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_reverts_and_ends_it(number: signal.Signals, tmp_path: Path) -> None:
    with running(tmp_path) as lab:
        lab.child.send_signal(number)
        assert lab.ends() == 7, lab.log.read_text()
        assert lab.record().status is Status.ABORTED and lab.record().faults[0].ended_s is not None


@pytest.mark.slow
def test_many_a_ctrl_c_still_reverts(tmp_path: Path) -> None:
    with running(tmp_path) as lab:
        for _ in range(4):
            lab.child.send_signal(signal.SIGINT)
            time.sleep(0.05)
        assert lab.ends() == 7, lab.log.read_text()
        assert lab.record().faults[0].ended_s is not None and file.read_all(lab.folder / "armed") == ([], [])


@pytest.mark.slow
def test_what_is_broken_is_kept_so_for_its_shortest_time(tmp_path: Path) -> None:
    made = ran(tmp_path, document(action("hole"), seconds={"min": 1.5}))
    (fault,) = made.faults
    assert made.status is Status.AS_EXPECTED and fault.ended_by == "rollback", made.why
    assert fault.ended_s is not None and fault.ended_s - fault.began_s >= 1.5


@pytest.mark.slow
def test_twice_says_both_and_prints_nothing_but_json(tmp_path: Path) -> None:
    off = [{"claim": "the same", "func": "verdict", "arguments": {"lost": 0}}]
    path = write(tmp_path, document(without=["deaf"], expect={"on": off, "off": off}))
    done = subprocess.run(
        [*SEAWALL, "run", str(path), "--yes", "--twice", "--json", "--folder", str(tmp_path / "lab")],
        capture_output=True, text=True, timeout=WHILE_S, check=False, env={**os.environ, "PYTHONPATH": str(TESTS)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["runs"]
    assert [(each["protections"], each["as_expected"], each["weak"]) for each in found] == [
        ("on", True, []), ("off", True, ["deaf"]),
    ]  # fmt: skip


@pytest.mark.slow
def test_panic_mends_and_ends_the_run(tmp_path: Path) -> None:
    with running(tmp_path) as lab:
        done = subprocess.run(
            [*SEAWALL, "panic", "--folder", str(lab.folder)], capture_output=True, text=True, timeout=WHILE_S,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0 and "echo a black hole" in done.stdout, done
        assert lab.ends() == 7 and lab.record().why == ["panic"]
    done = subprocess.run(
        [*SEAWALL, "panic", "--folder", str(lab.folder)], capture_output=True, text=True, timeout=WHILE_S,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "nothing was broken\n")


@pytest.mark.slow
def test_one_experiment_at_a_time_in_a_folder(tmp_path: Path) -> None:
    with running(tmp_path) as lab:
        command = [*SEAWALL, "run", str(tmp_path / "silent-echo.yaml"), "--yes", "--folder", str(lab.folder)]
        other = subprocess.run(command, capture_output=True, text=True, timeout=WHILE_S, check=False,
                               env={**os.environ, "PYTHONPATH": str(TESTS)})  # fmt: skip
        assert other.returncode == 2 and f"process {lab.child.pid} runs an experiment" in other.stderr
        assert not lab.whole() and identity(lab.child.pid) is not None


@pytest.mark.slow
def test_plain_chaos_run_does_the_same(tmp_path: Path) -> None:
    path = write(tmp_path, document())
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    for command in ("validate", "run"):
        done = subprocess.run([CHAOS, command, path], cwd=tmp_path, capture_output=True, text=True, env=environment,
                              timeout=WHILE_S, check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr
    (found,) = (tmp_path / "build" / "lab" / "run").iterdir()
    made = record.load(found)
    assert made.status is Status.AS_EXPECTED and made.faults[0].ended_by == "method"
    path = write(tmp_path, document(options={"lost": 1}))
    done = subprocess.run([CHAOS, "run", path], cwd=tmp_path, capture_output=True, text=True, env=environment,
                          timeout=WHILE_S, check=False)  # fmt: skip
    assert done.returncode == 1 and "nothing is lost: lost 1" in done.stderr
    assert json.loads((tmp_path / "journal.json").read_text())["seawall"]["status"] == "not_as_expected"
    path = write(tmp_path, document(options={"unjudged": True}, expect=STEADY))
    done = subprocess.run([CHAOS, "run", path], cwd=tmp_path, capture_output=True, text=True, env=environment,
                          timeout=WHILE_S, check=False)  # fmt: skip
    assert done.returncode == 1 and "there is no verdict" in done.stderr


@pytest.mark.slow
def test_plain_chaos_run_killed_in_mid_fault_reverts(tmp_path: Path) -> None:
    (tmp_path / "lab").symlink_to(tmp_path / "build" / "lab")
    with running(tmp_path, command=[str(CHAOS), "run", str(tmp_path / "silent-echo.yaml")]) as lab:
        lab.child.kill()
        assert until(lab.whole, "the line is whole") < REVERTED_S


def test_a_platforms_data_folder_is_not_the_labs(tmp_path: Path) -> None:
    (tmp_path / "FORMAT").write_text("seawall 1\n")
    (tmp_path / "lock").write_text('{"pid": 7}')
    with pytest.raises(Misconfigured, match="data folder"), Folder(tmp_path).held():
        pass
    assert (tmp_path / "lock").read_text() == '{"pid": 7}', "what it says is a platform's"


def test_a_data_folder_has_the_file_by_which_the_lab_knows_it(tmp_path: Path) -> None:
    data_folder.Folder(tmp_path / "data", LocalFilesystem()).prepare()
    with pytest.raises(Misconfigured, match="data folder"), Folder(tmp_path / "data").held():
        pass
