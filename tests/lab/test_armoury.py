"""What is armed is undone, whatever becomes of whoever armed it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from seawall.kernel.error import Rejected, Unavailable
from seawall.lab.arm import file, leftover, revert
from seawall.lab.arm.armoury import Armoury, settle
from seawall.lab.arm.file import Armed
from seawall.lab.arm.panic import panic
from seawall.lab.part.process import Identity, gone, identity
from seawall.lab.part.proxy import FaultProxy
from seawall.lab.weak import mark

REVERTED_S = 10.0
RUNNER = "lab.armed_runner"
TESTS = Path(__file__).resolve().parents[1]


def until(true: Callable[[], object], what: str, within_s: float = REVERTED_S) -> float:
    """Seconds that it took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < within_s, f"not within {within_s:g} s: {what}"
        time.sleep(0.02)
    return time.monotonic() - began


def command(*argv: str) -> dict[str, object]:
    return {"do": "command", "argv": list(argv)}


class Heard:
    """What an armoury said."""

    def __init__(self) -> None:
        self.undone: list[str] = []
        self.lost: list[str] = []

    def armoury(self, folder: Path) -> Armoury:
        return Armoury(
            folder, run="r", rig=None, lost=self.lost.append, told=lambda id, by: self.undone.append(by)
        )  # fmt: skip


@pytest.fixture
def heard() -> Heard:
    return Heard()


@contextmanager
def runner(
    folder: Path, *argv: str, rig: Path | None = None, leftover_s: float = 0.0, max_s: float = 60.0
) -> Iterator[tuple[subprocess.Popen[str], Identity]]:
    """A process that has armed a command; and its watchdog."""
    child = subprocess.Popen(
        [sys.executable, "-m", RUNNER, str(folder), str(rig or ""), f"{leftover_s}", f"{max_s}", *argv],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(TESTS)},
    )  # fmt: skip
    with ExitStack() as stack:
        stack.callback(child.wait)
        stack.callback(child.kill)
        assert child.stdout is not None and child.stdin is not None
        stack.callback(child.stdout.close)
        stack.callback(child.stdin.close)
        word, pid = child.stdout.readline().split()
        assert word == "armed"
        watchdog = identity(int(pid))
        assert watchdog is not None
        yield child, watchdog


def test_what_is_armed_lies_on_disk_before_the_fault_may_be_done(tmp_path: Path, heard: Heard) -> None:
    with heard.armoury(tmp_path) as armoury:
        id = armoury.arm(command("true"), max_s=30, fault="a black hole", target="redis")
        found, unreadable = file.read_all(tmp_path)
        assert [armed.id for armed in found] == [id] and not unreadable
        assert 25 < found[0].left_s <= 30 and found[0].fault == "a black hole"
        holder = file.holder(tmp_path)
        assert holder is not None and holder.watchdog == identity(armoury.watchdog) != identity(os.getpid())
        assert holder.runner == identity(os.getpid())
        assert armoury.undo(id, by="method") is not None and file.read_all(tmp_path) == ([], [])
        assert armoury.undo(id, by="method") is None and heard.undone == ["method"]
    assert not heard.lost


def test_after_goodbye_the_watchdog_ends_and_nothing_is_undone_twice(tmp_path: Path, heard: Heard) -> None:
    undone = tmp_path / "undone"
    with heard.armoury(tmp_path / "armed") as armoury:
        watchdog = identity(armoury.watchdog)
        assert watchdog is not None
        armoury.arm(command("sh", "-c", f"echo x >> {undone}"), max_s=30, fault="f", target="t")
        armoury.undo_all(by="runner", final=True)
    assert gone(watchdog, REVERTED_S) and undone.read_text() == "x\n" and heard.undone == ["runner"]


def test_a_killed_runners_faults_are_undone(tmp_path: Path) -> None:
    undone = tmp_path / "undone"
    with runner(tmp_path / "armed", "touch", str(undone)) as (child, watchdog):
        child.kill()
        until(undone.exists, "it is undone")
        assert gone(watchdog, REVERTED_S)
    assert file.read_all(tmp_path / "armed") == ([], [])
    words = [str(line["what"]) for line in file.lines(tmp_path / "armed")]
    assert words == ["armed", "the runner is dead", "undone", "the watchdog ends"]


@pytest.mark.slow
def test_a_stopped_runners_faults_are_undone_and_it_learns_so_when_it_goes_on(tmp_path: Path) -> None:
    undone = tmp_path / "undone"
    with runner(tmp_path / "armed", "touch", str(undone)) as (child, _):
        child.send_signal(signal.SIGSTOP)
        until(undone.exists, "it is undone")
        child.send_signal(signal.SIGCONT)
        assert child.stdout is not None
        assert "the runner was silent" in child.stdout.readline()
        assert child.stdout.readline().startswith("lost")


def test_a_fault_is_undone_at_its_deadline_and_the_runner_is_told(tmp_path: Path, heard: Heard) -> None:
    undone = tmp_path / "undone"
    with heard.armoury(tmp_path / "armed") as armoury:
        armoury.arm(command("touch", str(undone)), max_s=0.3, fault="the fault", target="t")
        until(lambda: heard.lost, "the runner is told")
        assert undone.exists() and "its deadline was over: the fault" in heard.lost[0] and not armoury.armed


@pytest.mark.slow
def test_it_is_tried_until_it_is_undone(tmp_path: Path) -> None:
    here, undone = tmp_path / "here", tmp_path / "undone"
    with runner(tmp_path / "armed", "sh", "-c", f"test -e {here} && touch {undone}") as (child, watchdog):
        child.kill()
        until(lambda: len([e for e in file.lines(tmp_path / "armed") if e["what"] == "not undone"]) >= 2, "it is tried")
        assert identity(watchdog.pid) == watchdog and not undone.exists()
        here.touch()
        until(undone.exists, "it is undone")
        assert gone(watchdog, REVERTED_S)


def test_one_that_takes_long_keeps_no_other_waiting(tmp_path: Path, heard: Heard) -> None:
    undone, go = tmp_path / "undone", tmp_path / "go"
    with heard.armoury(tmp_path / "armed") as armoury:
        wait = f"while ! test -e {go}; do sleep 0.05; done"
        armoury.arm(command("sh", "-c", wait), max_s=0.1, fault="slow", target="t")
        armoury.arm(command("touch", str(undone)), max_s=0.1, fault="quick", target="t")
        until(undone.exists, "the quick one is undone")
        go.touch()
        until(lambda: not file.read_all(tmp_path / "armed")[0], "the slow one too")


def test_without_its_watchdog_nothing_may_stay_broken(tmp_path: Path, heard: Heard) -> None:
    undone = tmp_path / "undone"
    with heard.armoury(tmp_path / "armed") as armoury:
        armoury.arm(command("touch", str(undone)), max_s=30, fault="f", target="t")
        os.kill(armoury.watchdog, signal.SIGKILL)
        until(lambda: heard.lost, "the runner notices")
        assert heard.lost == ["the watchdog is gone"] and not undone.exists()
        with pytest.raises(Unavailable, match="the watchdog is gone"):
            armoury.arm(command("true"), max_s=30, fault="f", target="t")
        assert [done.ok for done in armoury.undo_all(by="abort")] == [True] and undone.exists()


def test_what_was_undone_in_the_middle_is_undone_again_when_the_runner_dies(tmp_path: Path) -> None:
    """It may have been stopped between arming and breaking: then the fault came after its undoing."""
    undone = tmp_path / "undone"
    with runner(tmp_path / "armed", "sh", "-c", f"echo x >> {undone}") as (child, watchdog):
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write("undo\n")
        child.stdin.flush()
        assert child.stdout.readline() == "undone abort\n" and undone.read_text() == "x\n"
        child.kill()
        assert gone(watchdog, REVERTED_S) and undone.read_text() == "x\nx\n"


def test_panic_mends_everything_and_tells_the_runner(tmp_path: Path, heard: Heard) -> None:
    undone, said = tmp_path / "undone", list[str]()
    with heard.armoury(tmp_path / "armed") as armoury:
        armoury.arm(command("touch", str(undone)), max_s=30, fault="a black hole", target="t")
        found = panic(tmp_path / "armed", rig=tmp_path / "rig", by="panic", say=said.append)
        assert undone.exists() and found.ok and len(found.undone) == 1 and found.runner == os.getpid()
        assert any("a black hole" in line for line in said)
        until(lambda: heard.lost, "the runner is told")
        assert heard.lost == ["panic"]
        with pytest.raises(Unavailable, match="panic"):
            armoury.arm(command("true"), max_s=30, fault="f", target="t")
    with heard.armoury(tmp_path / "armed") as armoury:
        armoury.arm(command("true"), max_s=30, fault="the next run may break things again", target="t")


def test_panic_says_what_it_could_not_mend(tmp_path: Path) -> None:
    keep(tmp_path, "false")
    (tmp_path / "torn.json").write_text("{")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seawall.lab.arm.panic.LONGEST_S", 0.3)
        found = panic(tmp_path, rig=tmp_path / "rig", by="panic", say=lambda line: None)
    assert not found.ok and any("ended with 1" in each for each in found.left) and "torn.json" in found.left[-1]


def keep(folder: Path, *argv: str) -> Armed:
    """Something that was armed, by a runner that is gone, and its watchdog too."""
    armed = Armed(
        id="left", run="before", fault="left over", target="t", revert=revert.parse(command(*argv)), armed=file.now(),
        deadline_s=file.since_boot() + 60, boot=file.boot(),
    )  # fmt: skip
    folder.mkdir(exist_ok=True)
    file.write(folder, armed)
    return armed


def test_what_an_earlier_run_left_is_undone_before_anything_more_is_broken(tmp_path: Path, heard: Heard) -> None:
    undone = tmp_path / "undone"
    keep(tmp_path / "armed", "touch", str(undone))
    with heard.armoury(tmp_path / "armed"):
        assert undone.exists() and file.read_all(tmp_path / "armed") == ([], [])


def test_nothing_is_broken_while_an_earlier_fault_is_there(tmp_path: Path, heard: Heard) -> None:
    keep(tmp_path / "armed", "false")
    with pytest.raises(Unavailable, match="left over"), heard.armoury(tmp_path / "armed"):
        pass
    assert len(file.read_all(tmp_path / "armed")[0]) == 1


def test_a_fault_of_another_boot_is_overdue(tmp_path: Path) -> None:
    armed = keep(tmp_path, "true")
    assert armed.left_s > 50
    assert Armed(**{**{name: getattr(armed, name) for name in armed.__struct_fields__}, "boot": "before"}).left_s == 0


def test_a_dead_runners_rig_is_ended_and_the_next_run_need_not_wait_for_it(tmp_path: Path) -> None:
    rig = tmp_path / "rig"
    mark(rig)
    proxy = FaultProxy(rig / "proxy")
    proxy.up()
    pid = proxy.pid("proxy")
    assert pid is not None
    who = identity(pid)
    assert who is not None
    with runner(tmp_path / "armed", "true", rig=rig, leftover_s=600) as (child, watchdog):
        child.kill()
        until(lambda: not file.read_all(tmp_path / "armed")[0], "it is undone")
        assert identity(pid) == who, "for a while somebody may look"
        ended = threading.Thread(target=settle, args=(tmp_path / "armed",))
        ended.start()
        assert gone(who, REVERTED_S) and gone(watchdog, REVERTED_S)
        ended.join()


def test_what_is_no_revert_is_not_armed(tmp_path: Path, heard: Heard) -> None:
    with heard.armoury(tmp_path) as armoury:
        with pytest.raises(Rejected):
            armoury.arm({"do": "nothing"}, max_s=1, fault="f", target="t")
        assert file.read_all(tmp_path) == ([], []) and not armoury.armed


@pytest.mark.parametrize("call", ["fsync", "write"])
def test_what_can_not_be_written_down_is_not_broken(
    call: str, tmp_path: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk: nothing is armed, nothing lies about, and the next one is armed when there is room."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with heard.armoury(tmp_path) as armoury, monkeypatch.context() as patch:
        patch.setattr(file.os, "fsync", full) if call == "fsync" else patch.setattr(file, "_keep", full)
        with pytest.raises(Unavailable, match="No space left"):
            armoury.arm(command("true"), max_s=30, fault="f", target="t")
        assert not armoury.armed and not list(tmp_path.glob("*.new")) and file.read_all(tmp_path) == ([], [])
        patch.undo()
        id = armoury.arm(command("true"), max_s=30, fault="f", target="t")
        assert [each.id for each in armoury.armed] == [id]
    assert not heard.lost


def test_what_another_user_has_armed_is_done_for_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be any command, and ours would be the rights."""
    done = tmp_path / "done"
    keep(tmp_path / "armed", "touch", str(done))
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    with pytest.raises(Unavailable, match=r"left\.json \(of another user\)"):
        settle(tmp_path / "armed")
    monkeypatch.setattr("seawall.lab.arm.panic.LONGEST_S", 0.3)
    found = panic(tmp_path / "armed", rig=tmp_path / "rig", by="panic", say=lambda line: None)
    assert not found.ok and not done.exists()


def test_nothing_is_ended_in_a_folder_that_the_lab_did_not_make(tmp_path: Path) -> None:
    proxy = FaultProxy(tmp_path / "rig" / "proxy")
    proxy.up()
    try:
        assert leftover.running(tmp_path / "rig") == []
        panic(tmp_path, rig=tmp_path / "rig", by="panic", say=lambda line: None)
        assert proxy.pid("proxy") is not None
    finally:
        proxy.wipe()


@pytest.mark.slow
def test_what_a_runner_had_just_started_is_ended_too(tmp_path: Path) -> None:
    """A platform that begins says later who it is: until then nothing seems to run there."""
    rig = tmp_path / "rig"
    mark(rig)
    with runner(tmp_path / "armed", "true", rig=rig, leftover_s=8) as (child, watchdog):
        child.kill()
        until(lambda: not file.read_all(tmp_path / "armed")[0], "it is undone")
        proxy = FaultProxy(rig / "proxy")
        proxy.up()
        assert gone(watchdog, 60) and proxy.pid("proxy") is None


@pytest.mark.slow
def test_a_watchdog_that_was_stopped_keeps_no_next_run_waiting(tmp_path: Path) -> None:
    undone = tmp_path / "undone"
    with runner(tmp_path / "armed", "touch", str(undone)) as (child, watchdog):
        os.kill(watchdog.pid, signal.SIGSTOP)
        child.kill()
        settle(tmp_path / "armed")
        assert undone.exists() and gone(watchdog, REVERTED_S)
