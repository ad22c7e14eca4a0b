"""What undoes a fault, as data: it can be done by anybody, again and again, and says when it isn't done."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from seawall.kernel.error import Rejected, Unavailable
from seawall.lab.arm.revert import parse, said, undo, words
from seawall.lab.part.fault import Fault
from seawall.lab.part.process import Identity, gone, identity, stopped
from seawall.lab.part.proxy import FaultProxy
from seawall.lab.part.redis import Redis


def sleeping(child: subprocess.Popen[bytes]) -> Identity:
    who = identity(child.pid)
    assert who is not None
    return who


def test_a_stopped_process_goes_on_and_one_that_is_gone_needs_nothing() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        who = sleeping(child)
        revert = parse({"do": "cont", "pid": who.pid, "start": who.started})
        try:
            child.send_signal(signal.SIGSTOP)
            while not stopped(who):
                pass
            assert undo(revert) == "it goes on" and not stopped(who)
            assert undo(revert) == "it goes on"
        finally:
            child.kill()
    assert undo(revert) == "the process is gone"


def test_another_process_with_the_same_number_is_left_alone() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        who = sleeping(child)
        try:
            child.send_signal(signal.SIGSTOP)
            while not stopped(who):
                pass
            assert undo(parse({"do": "cont", "pid": who.pid, "start": "1"})) == "the process is gone"
            assert stopped(who)
        finally:
            child.kill()


def test_a_line_is_mended_and_without_its_proxy_there_is_nothing_to_mend(tmp_path: Path) -> None:
    with FaultProxy(tmp_path / "proxy") as proxy:
        proxy.link("redis", 1)
        proxy.set("redis", Fault(kind="hole"))
        revert = parse({"do": "proxy.clear", "folder": str(proxy.folder), "link": "redis"})
        assert undo(revert) == "the line is whole" == undo(revert)
        assert not proxy.links()["redis"]["faults"]
        assert undo(parse({"do": "proxy.clear", "folder": str(proxy.folder), "link": "no"})) == "there is no such line"
        proxy.kill("proxy")
        assert undo(revert) == "the proxy is gone, and its faults with it"


def test_a_proxy_that_hangs_is_not_taken_for_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seawall.lab.part.proxy.ASK_S", 0.2)
    with FaultProxy(tmp_path / "proxy") as proxy:
        proxy.link("redis", 1)
        revert = parse({"do": "proxy.clear", "folder": str(proxy.folder), "link": "redis"})
        proxy.stop("proxy")
        with pytest.raises(Unavailable):
            undo(revert)
        proxy.cont("proxy")
        assert undo(revert) == "the line is whole"


def test_a_part_is_started_again_and_one_that_was_removed_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "proxy"
    revert = parse({"do": "part.up", "folder": str(folder), "kind": "proxy", "fetched": str(tmp_path)})
    assert undo(revert) == "the part was removed" and not folder.exists()
    with FaultProxy(folder) as proxy:
        proxy.kill("proxy")
        assert undo(revert) == "every node answers"
        assert proxy.pid("proxy") is not None


def test_of_a_part_only_the_nodes_that_are_down_are_started(tmp_path: Path) -> None:
    folder = tmp_path / "redis"
    with Redis(folder, fetched=tmp_path / "fetched", replica=True, wheel=True) as redis:
        stays = redis.pid("r2")
        redis.kill("r1")
        assert undo(parse({"do": "part.up", "folder": str(folder), "kind": "sentinel", "fetched": "f"})) == (
            "every node answers"
        )
        assert redis.pid("r1") is not None and redis.pid("r2") == stays and redis.ask("r1", "PING") == "PONG"


def test_a_command_must_end_well_and_its_help_is_looked_at(tmp_path: Path) -> None:
    made = tmp_path / "made"
    assert undo(parse({"do": "command", "argv": ["touch", str(made)]})) == "done" and made.exists()
    looked = parse({"do": "command", "argv": ["true"], "verify": ["test", "-e", str(made)]})
    assert undo(looked) == "done, and verified"
    made.unlink()
    with pytest.raises(Unavailable, match="ended with 1"):
        undo(looked)
    with pytest.raises(Unavailable, match="no such thing"):
        undo(parse({"do": "command", "argv": ["sh", "-c", "echo no such thing; exit 3"]}))
    with pytest.raises(Unavailable):
        undo(parse({"do": "command", "argv": [str(tmp_path / "nowhere")]}))


def test_a_command_that_hangs_is_ended_and_what_it_leaves_behind_keeps_nobody_waiting() -> None:
    with pytest.raises(Unavailable, match="didn't end"):
        undo(parse({"do": "command", "argv": ["sleep", "60"], "timeout_s": 0.1}))
    assert undo(parse({"do": "command", "argv": ["sh", "-c", "sleep 5 & exit 0"], "timeout_s": 4.0})) == "done"


def test_a_command_that_hangs_is_ended_with_all_that_it_has_started(tmp_path: Path) -> None:
    """It is tried again and again: each try would leave something behind."""
    pid = tmp_path / "pid"
    argv = ["sh", "-c", f"sleep 600 & echo $! > {pid}; wait"]
    with pytest.raises(Unavailable, match="didn't end within"):
        undo(parse({"do": "command", "argv": argv, "timeout_s": 1.0}))
    who = identity(int(pid.read_text()))
    assert who is None or gone(who, 10.0)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"do": "dance"},
        {"do": "cont", "pid": "one", "start": "1"},
        {"do": "cont", "pid": 1},
        {"do": "proxy.clear", "folder": "f", "link": "l", "more": 1},
        {"do": "part.up", "folder": "f", "kind": "mysql", "fetched": "f"},
        {"do": "command", "argv": []},
        {"do": "command", "argv": ["true"], "timeout_s": 0},
        {"do": "command", "argv": ["true"], "timeout_s": 3600},
    ],
)
def test_what_is_no_revert_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(Rejected):
        parse(fields)


def test_it_is_the_same_after_it_was_written_down() -> None:
    fields = {"do": "proxy.clear", "folder": "f", "link": "redis"}
    assert said(parse(fields)) == fields and parse(said(parse(fields))) == parse(fields)
    assert words(parse(fields)) == "mend the line redis"
