"""What every part does: start, signal, stop, be found again; never touch a process that isn't its own."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from seawall.kernel.error import Rejected, Unavailable
from seawall.lab.part import process
from seawall.lab.part.port import LOOPBACK, Ports, free, highest
from seawall.lab.part.process import Identity, identity

from .sleeper import Sleeper

ROOT = Path(__file__).resolve().parents[2]


def lives(pid: int | None) -> Identity:
    found = identity(pid or 0)
    assert found is not None
    return found


def states(part: Sleeper) -> list[str]:
    return [node.state for node in part.status()]


def test_nodes_outlive_the_object_and_are_found_again_by_another(tmp_path: Path) -> None:
    first = Sleeper(tmp_path / "p")
    first.up()
    try:
        again = Sleeper(tmp_path / "p")
        assert states(again) == ["up", "up"] and again.pid("one") == first.pid("one")
        again.up()
        assert again.pid("one") == first.pid("one"), "what runs isn't started twice"
    finally:
        Sleeper(tmp_path / "p").down()
    assert states(first) == ["down", "down"]
    first.down()


def test_down_kills_what_does_not_end_in_time_and_wakes_what_was_stopped(tmp_path: Path) -> None:
    with Sleeper(tmp_path / "p") as part:
        one, deaf = lives(part.pid("one")), lives(part.pid("deaf"))
        part.stop("one")
        assert states(part) == ["stopped", "up"]
    assert identity(one.pid) != one and identity(deaf.pid) != deaf


def test_stop_and_cont_are_seen_in_the_status(tmp_path: Path) -> None:
    with Sleeper(tmp_path / "p") as part:
        part.stop("one")
        assert states(part) == ["stopped", "up"]
        part.cont("one")
        assert states(part) == ["up", "up"]


def test_a_killed_node_is_gone_when_kill_returns_and_starts_again(tmp_path: Path) -> None:
    with Sleeper(tmp_path / "p") as part:
        before = part.kill("deaf")
        assert part.pid("deaf") is None and identity(before) is None
        with pytest.raises(Unavailable, match="isn't running"):
            part.kill("deaf")
        part.start("deaf")
        assert part.pid("deaf") not in (None, before)
        with pytest.raises(Rejected, match="one, deaf"):
            part.kill("nobody")


def test_a_reused_number_is_never_signalled(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as stranger:
        part = Sleeper(tmp_path / "p")
        part.up()
        part.down()
        who = lives(stranger.pid)
        # The pid file of a node that ended long ago, whose number is now somebody else's.
        (tmp_path / "p" / "one.pid").write_text(f"{who.pid} {int(who.started) - 1}\n")
        assert states(part) == ["down", "down"]
        part.down()
        assert not process.send(Identity(who.pid, "1"), signal.SIGKILL)
        assert stranger.poll() is None and identity(who.pid) == who
        stranger.kill()


def test_whatever_ends_the_user_ends_its_nodes(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "tests.lab.sleeper", str(tmp_path / "p")]
    with subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, text=True) as user:
        assert user.stdout is not None
        nodes = [lives(int(pid)) for pid in user.stdout.readline().split()]
        assert len(nodes) == 2
        user.kill()
        for who in nodes:
            assert process.gone(who, 10.0)


def test_a_port_that_somebody_else_took_is_chosen_anew_and_the_others_stay(tmp_path: Path) -> None:
    part = Sleeper(tmp_path / "p")
    before = part.port("one")
    with part:
        assert (Sleeper(tmp_path / "p").port("one"), part.moves) == (before, 0)
    with socket.create_server((LOOPBACK, before)), Sleeper(tmp_path / "p") as again:
        assert again.port("one") != before and again.moves == 1


def test_ports_are_below_those_of_outgoing_connections() -> None:
    found = free(20)
    assert len(set(found)) == 20 and max(found) < highest()


def test_two_parts_that_do_not_listen_yet_are_never_given_one_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rig's parts choose one after the other, and a broker listens seconds later: two storms of fifty had no rig."""
    first, second = Ports(tmp_path, ["a"])["a"], free(1)[0]
    numbers = iter([first, second, first, first + 1, first + 2, first + 3])
    monkeypatch.setattr("seawall.lab.part.port.random.randrange", lambda *bounds: next(numbers))
    assert free(1)[0] in (first + 1, first + 2, first + 3)


def test_wipe_removes_only_what_a_part_made(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter").write_text("dear")
    with pytest.raises(Rejected, match="isn't removed"):
        Sleeper(mine).wipe()
    assert (mine / "letter").exists()
    with Sleeper(tmp_path / "p") as part:
        pass
    part.wipe()
    assert not (tmp_path / "p").exists()
    part.wipe()


def test_a_node_that_ends_at_once_is_said_with_what_it_wrote(tmp_path: Path) -> None:
    class Broken(Sleeper):
        def launch(self, node: str) -> process.Launch:
            return process.Launch(command=["sh", "-c", "echo no such thing; exit 3"])

        def open(self, node: str) -> bool:
            return False

    with pytest.raises(Unavailable, match="no such thing"), Broken(tmp_path / "p"):
        pass
