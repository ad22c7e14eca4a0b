"""Zones as network namespaces: what is cut hears nothing and is told nothing, and nothing stays behind."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from seawall.kernel.error import Misconfigured, Rejected, Unavailable
from seawall.lab.arm import leftover
from seawall.lab.arm.revert import parse, undo, words
from seawall.lab.rig import own
from seawall.lab.zone import net as nets
from seawall.lab.zone.net import Made, Net

HOSTS = ("a1", "b1")

root = pytest.mark.root


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    if problems := nets.why_not():
        pytest.skip("; ".join(problems))
    made = Net(tmp_path / "net")
    made.make(HOSTS)
    yield made
    made.down()


@pytest.fixture
def echo(net: Net) -> Iterator[tuple[str, int]]:
    """A server at the gate, as Kafka would be."""
    made = net.made()
    assert made is not None
    with socket.create_server((made.gate, 0)) as server:
        threading.Thread(target=_serve, args=(server,), daemon=True).start()
        yield made.gate, server.getsockname()[1]


def _serve(server: socket.socket) -> None:
    while True:
        try:
            line, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=_echo, args=(line,), daemon=True).start()


def _echo(line: socket.socket) -> None:
    with line:
        while data := line.recv(100):
            line.sendall(data)


def reaches(net: Net, host: str, address: tuple[str, int]) -> bool:
    try:
        nets.ask(net, host, address, b"?", 2.0)
    except TimeoutError:
        return False
    return True


@root
def test_a_host_that_is_cut_off_is_told_nothing_and_the_other_one_is_not(net: Net, echo: tuple[str, int]) -> None:
    made = net.made()
    assert made is not None and all(reaches(net, host, echo) for host in HOSTS)
    net.cut("b1")
    net.cut("b1")
    assert [reaches(net, host, echo) for host in HOSTS] == [True, False]
    assert nets.cut(made, "b1") and not nets.cut(made, "a1")
    with net.within("b1"):
        server = socket.create_server((made.front("b1"), 0))
    with server:
        threading.Thread(target=_serve, args=(server,), daemon=True).start()
        nets.question(server.getsockname(), b"?", 5)
    revert = parse({"do": "zone.heal", "folder": str(net.folder), "host": "b1"})
    assert undo(revert) == "its inside link is up" == undo(revert) and words(revert)
    assert all(reaches(net, host, echo) for host in HOSTS)


@root
def test_a_connection_that_was_there_goes_on_after_the_cut(net: Net, echo: tuple[str, int]) -> None:
    with net.within("b1"):
        line = socket.socket()
    with line:
        line.settimeout(30)
        line.connect(echo)
        line.settimeout(0.3)
        net.cut("b1")
        line.sendall(b"late")
        with pytest.raises(TimeoutError):
            line.recv(10)
        net.heal("b1")
        line.settimeout(30)
        assert line.recv(10) == b"late"


@root
@pytest.mark.parametrize("by", ["down", "revert", "watchdog", "next rig"])
def test_all_of_it_is_removed_by_whoever_finds_it(tmp_path: Path, by: str) -> None:
    if problems := nets.why_not():
        pytest.skip("; ".join(problems))
    (tmp_path / own.MARK).touch()
    net = Net(tmp_path / "net")
    made = net.make(HOSTS)
    assert {made.namespace(host) for host in HOSTS} <= nets.namespaces()
    net.cut("b1")
    {
        "down": net.down,
        "revert": lambda: undo(parse({"do": "zone.down", "folder": str(net.folder)})),
        "watchdog": lambda: leftover.end(tmp_path, lambda text: None),
        "next rig": lambda: own.clear(tmp_path),
    }[by]()
    assert _nothing_left(made) and net.made() is None
    net.down()
    assert net.heal("b1") == "the zone is gone, and its cut with it"


@root
def test_one_that_can_not_be_made_leaves_nothing(tmp_path: Path) -> None:
    if problems := nets.why_not():
        pytest.skip("; ".join(problems))
    net = Net(tmp_path / "net")
    with pytest.raises(Unavailable, match="long"):
        net.make(["a1", "a-name-too-long-for-a-link-of-linux"])
    assert net.made() is None and not any(name.endswith("-a-name-too-long-for-a-link-of-linux")
                                          for name in nets.namespaces())  # fmt: skip


def test_who_is_not_root_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nets.os, "geteuid", lambda: 1000)
    with pytest.raises(Misconfigured, match="only root"):
        Net(tmp_path / "net").make(HOSTS)
    assert not (tmp_path / "net").exists()


def test_without_iproute2_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nets.shutil, "which", lambda name, path: None)
    assert "apt-get install iproute2" in nets.why_not()[-1]


def test_two_folders_do_not_meet() -> None:
    one = Made(prefix="sz1", net="10.70", hosts=HOSTS)
    assert one.inside("a1") == "10.70.0.10" and one.front("b1") == "10.70.1.11" and one.gate == "10.70.0.1"
    assert all(len(one.link(host, kind)) <= 15 for host in HOSTS for kind in ("i", "f"))
    with pytest.raises(Rejected, match="there are a1, b1"):
        one.inside("c1")


def _nothing_left(made: Made) -> bool:
    links = [made.link(host, kind) for host in HOSTS for kind in ("i", "f")]
    return not any(map(nets.exists, (*links, f"{made.prefix}i", f"{made.prefix}f"))) and not any(
        made.namespace(host) in nets.namespaces() for host in HOSTS
    )
