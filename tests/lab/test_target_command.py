"""Commands of a target: bounded, ended in the middle by whoever reverts; a look has three answers."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from seawall.kernel.error import Unavailable
from seawall.lab.arm.revert import parse, undo
from seawall.lab.part.process import Node, identity
from seawall.lab.target import command
from seawall.lab.target.file import Command

from .test_armoury import until


def shell(text: str, *words: str, timeout_s: float = 20.0) -> Command:
    return Command(argv=["sh", "-c", text, "sh", *words], timeout_s=timeout_s)


def test_a_command_runs_in_the_files_folder_and_its_failure_says_why(tmp_path: Path) -> None:
    command.apply(shell("pwd > where; cat"), tmp_path, tmp_path / "a.pid")
    assert (tmp_path / "where").read_text().strip() == str(tmp_path)
    with pytest.raises(Unavailable, match="ended with 7: no such table"):
        command.apply(shell("echo no such table >&2; exit 7"), tmp_path, tmp_path / "a.pid")
    with pytest.raises(Unavailable):
        command.apply(Command(argv=["./nowhere"]), tmp_path, tmp_path / "a.pid")


def test_one_that_hangs_is_ended_with_all_that_it_has_started(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="didn't end within"):
        command.apply(shell("sleep 60 & echo $! > child; wait", timeout_s=1.5), tmp_path, tmp_path / "a.pid")
    ended(int((tmp_path / "child").read_text()))


def test_one_that_fails_leaves_nothing_that_breaks_something_later(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="ended with 3"):
        command.apply(shell("sleep 600 & echo $! > child; exit 3"), tmp_path, tmp_path / "a.pid")
    ended(int((tmp_path / "child").read_text()))


def test_who_reverts_ends_also_what_an_apply_left_behind_that_ended_well(tmp_path: Path) -> None:
    pid = tmp_path / "apply.it.pid"
    command.apply(shell("sleep 600 & echo $! > child"), tmp_path, pid)
    child = int((tmp_path / "child").read_text())
    assert identity(child) is not None, "the fault may be just that"
    revert = parse({"do": "command", "argv": ["true"], "ends": str(pid)})
    os.utime(pid, (1.0, 1.0))
    undo(revert)
    assert identity(child) is not None, "a file from before the machine's start names somebody else"
    os.utime(pid)
    undo(revert)
    ended(child)


def ended(pid: int) -> None:
    until(lambda: identity(pid) is None, "it is gone")


@pytest.mark.parametrize(("code", "found"), [(0, command.THERE), (1, command.GONE)])
def test_a_look_has_an_answer(code: int, found: int, tmp_path: Path) -> None:
    assert command.ask(shell(f"exit {code}"), tmp_path) == found


@pytest.mark.parametrize("look", [shell("exit 255"), shell("kill -9 $$"), shell("sleep 60", timeout_s=0.2),
                                  Command(argv=["./nowhere"])])  # fmt: skip
def test_or_nobody_knows(look: Command, tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        command.ask(look, tmp_path)


def test_a_command_whose_runner_died_before_it_was_named_does_nothing(tmp_path: Path) -> None:
    """As `apply` starts it: nobody has said go, and nobody will."""
    read, write = os.pipe()
    pid = os.posix_spawnp(
        command.GATE[0], [*command.GATE, "touch", str(tmp_path / "broken")], os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, read, 0), (os.POSIX_SPAWN_CLOSE, write)],
    )  # fmt: skip
    os.close(read)
    os.close(write)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0 and not (tmp_path / "broken").exists()


def test_who_reverts_ends_what_is_still_being_applied(tmp_path: Path) -> None:
    pid, failed = tmp_path / "apply.it.pid", list[str]()

    def applies() -> None:
        try:
            command.apply(shell("touch begun; sleep 60; touch broken"), tmp_path, pid)
        except Unavailable as error:
            failed.append(str(error))

    thread = threading.Thread(target=applies)
    thread.start()
    until((tmp_path / "begun").exists, "it has begun")
    assert Node("apply.it", tmp_path).who() is not None
    began = time.monotonic()
    said = undo(parse({"do": "command", "argv": ["rm", "begun"], "absent": ["test", "-e", "broken"],
                       "folder": str(tmp_path), "ends": str(pid)}))  # fmt: skip
    thread.join()
    assert said == "done, and verified" and time.monotonic() - began < 20 and failed
    assert f"ended with {-signal.SIGKILL}" in failed[0]


def test_a_revert_of_what_is_not_there_is_fine_when_a_look_says_so(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    revert = parse({"do": "command", "argv": ["rm", str(flag)], "absent": ["test", "-e", "flag"],
                    "folder": str(tmp_path)})  # fmt: skip
    assert "ended with 1" in undo(revert)
    flag.touch()
    assert undo(revert) == "done, and verified" and not flag.exists()
    with pytest.raises(Unavailable, match="ended with 0"):
        flag.touch()
        undo(parse({"do": "command", "argv": ["true"], "absent": ["test", "-e", str(flag)]}))
    with pytest.raises(Unavailable, match="ended with 2"):
        undo(parse({"do": "command", "argv": ["true"], "absent": ["sh", "-c", "exit 2"]}))
    # With a look of the other kind (`gone` of a target), too: it is reverted once more at the end of each run.
    flag.unlink()
    gone = {"do": "command", "argv": ["rm", str(flag)], "verify": ["sh", "-c", f"! test -e {flag}"]}
    assert "ended with 1" in undo(parse(gone))
    with pytest.raises(Unavailable, match="ended with 1"):
        flag.touch()
        undo(parse({**gone, "argv": ["false"]}))
