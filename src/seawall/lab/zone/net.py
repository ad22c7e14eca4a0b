"""Hosts as network namespaces, each with two links: ``front`` to the balancer, ``inside`` to everything else.

To cut a host off is to take its inside link down on our side: what either end sends vanishes, and nobody is told. The
addresses of both ends are written down in advance in both neighbour tables, or the kernel would notice after three
seconds that nobody answers for them, and say so. No packet filter is needed.

What was made stands in ``net.json`` of a folder, before it is made: whoever finds that file can remove all of it, and
touches nothing else. Names and addresses are the folder's own, so that two labs don't meet.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from seawall.kernel.error import Misconfigured, Rejected, Unavailable
from seawall.lab.part.node import whole

FILE = "net.json"
COMMAND_S = 10.0
FIRST = 10
"""Last number of the first host's addresses; the machine itself is 1."""
NEWNET = 0x40000000
PLACES = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What was made, or is to be: enough to remove it."""

    prefix: str
    net: str  # first two numbers of every address
    hosts: Sequence[str]

    @property
    def gate(self) -> str:
        """The machine's own address on the inside."""
        return f"{self.net}.0.1"

    def front(self, host: str) -> str:
        return f"{self.net}.1.{self._number(host)}"

    def inside(self, host: str) -> str:
        return f"{self.net}.0.{self._number(host)}"

    def namespace(self, host: str) -> str:
        return f"{self.prefix}-{host}"

    def link(self, host: str, kind: str) -> str:
        """Our end of one: ``i`` inside, ``f`` front."""
        return f"{self.prefix}{kind}-{host}"

    def _number(self, host: str) -> int:
        try:
            return FIRST + list(self.hosts).index(host)
        except ValueError:
            raise Rejected(404, "no such host", f"{host}; there are {', '.join(self.hosts)}") from None


def why_not() -> list[str]:
    """Why this machine can have no zones; empty when it can."""
    problems = []
    if os.geteuid() != 0:
        problems.append("zones are network namespaces: only root can make them; run it as root, or leave it out")
    if _program() is None:
        problems.append("zones need `ip` of iproute2; cure: apt-get install iproute2")
    return problems


class Net:
    """The namespaces of one folder. Building it touches nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._file = self.folder / FILE

    def make(self, hosts: Sequence[str]) -> Made:
        """Make one for each host; what an earlier one left in this folder is removed first.

        Raises:
            Misconfigured: This machine can have none.
            Unavailable: A command failed. What was made is removed.
        """
        if problems := why_not():
            raise Misconfigured(problems)
        self.down()
        self.folder.mkdir(parents=True, exist_ok=True)
        made = self._choose(hosts)
        whole(self._file, json.dumps({"prefix": made.prefix, "net": made.net, "hosts": list(hosts)}))
        try:
            self._make(made)
        except BaseException:
            self.down()
            raise
        return made

    def made(self) -> Made | None:
        """What was; None when nothing is there."""
        try:
            said = json.loads(self._file.read_text("utf-8"))
            return Made(prefix=str(said["prefix"]), net=str(said["net"]), hosts=[str(each) for each in said["hosts"]])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def cut(self, host: str) -> None:
        """Nothing gets to or from this host any more but by the balancer. Silent: nobody is told.

        Raises:
            Rejected: There is no such host.
            Unavailable: It couldn't be done.
        """
        made = self._there()
        made.inside(host)
        _ip("link", "set", made.link(host, "i"), "down")

    def heal(self, host: str) -> str:
        """Undo ``cut``. Harmless when it isn't cut, or gone; says what was found. Raises Unavailable."""
        made = self.made()
        if made is None or host not in made.hosts or not exists(made.link(host, "i")):
            return "the zone is gone, and its cut with it"
        _ip("link", "set", made.link(host, "i"), "up")
        if cut(made, host):
            raise Unavailable(host, "its inside link is still down")
        return "its inside link is up"

    def down(self) -> None:
        """Remove all of it. Harmless when nothing is there. Processes in it must have ended.

        Raises:
            Unavailable: Something can't be removed.
        """
        made = self.made()
        if made is None:
            return
        links = [made.link(host, kind) for host in made.hosts for kind in ("i", "f")]
        for link in (*links, f"{made.prefix}i", f"{made.prefix}f"):
            _gone(lambda link=link: exists(link), "link", "del", link)  # type: ignore[misc]
        for host in made.hosts:
            name = made.namespace(host)
            _gone(lambda name=name: name in namespaces(), "netns", "del", name)  # type: ignore[misc]
        self._file.unlink(missing_ok=True)

    def command(self, host: str, argv: Sequence[str]) -> list[str]:
        """What runs a command on a host; it keeps its pid."""
        program = _program()
        assert program is not None, "looked at when it was made"
        return [program, "netns", "exec", self._there().namespace(host), *argv]

    @contextmanager
    def within(self, host: str) -> Iterator[None]:
        """This thread is on that host: sockets that it makes belong there, also later. For a moment.

        Raises:
            OSError: It can't be.
        """
        name = self._there().namespace(host)
        with open("/proc/thread-self/ns/net", "rb") as home, open(f"/run/netns/{name}", "rb") as there:
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(home.fileno())

    # ── Inside ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _there(self) -> Made:
        made = self.made()
        if made is None:
            raise Unavailable("the zones", f"there are none in {self.folder}")
        return made

    def _choose(self, hosts: Sequence[str]) -> Made:
        """Names and addresses that nobody has, nearly always the same in one folder."""
        text = str(self.folder)
        links = _ip("-o", "address")
        for turn in range(50):
            digest = hashlib.sha256(f"{text}.{turn}".encode()).digest()
            made = Made(prefix=f"sz{digest[:2].hex()}", net=f"10.{64 + digest[2] % 128}", hosts=list(hosts))
            if f" {made.net}." not in links and not exists(f"{made.prefix}i"):
                return made
        raise Unavailable("the zones", "no addresses are free in 10.64 to 10.191")

    def _make(self, made: Made) -> None:
        for kind, part in (("i", 0), ("f", 1)):
            bridge = f"{made.prefix}{kind}"
            _ip("link", "add", bridge, "type", "bridge")
            # Said, it stays: else it is always the lowest of its ports', and changes with each that comes.
            _ip("link", "set", bridge, "address", _mac(bridge))
            _ip("address", "add", f"{made.net}.{part}.1/24", "dev", bridge)
            _ip("link", "set", bridge, "up")
        for host in made.hosts:
            _ip("netns", "add", made.namespace(host))
            _ip("-n", made.namespace(host), "link", "set", "lo", "up")
            self._link(made, host, "i", made.inside(host), f"{made.net}.0.1")
            self._link(made, host, "f", made.front(host), f"{made.net}.1.1")

    def _link(self, made: Made, host: str, kind: str, theirs: str, ours: str) -> None:
        name, bridge, space = made.link(host, kind), f"{made.prefix}{kind}", made.namespace(host)
        other = {"i": "inside", "f": "front"}[kind]
        _ip("link", "add", name, "type", "veth", "peer", "name", other, "netns", space)
        _ip("link", "set", name, "master", bridge, "up")
        _ip("-n", space, "address", "add", f"{theirs}/24", "dev", other)
        _ip("-n", space, "link", "set", other, "up")
        # Both ends know each other for ever: a neighbour that doesn't answer would be told to whoever sends.
        _ip("-n", space, "neighbour", "replace", ours, "lladdr", _mac(bridge), "dev", other, "nud", "permanent")
        theirs_mac = json.loads(_ip("-n", space, "-j", "link", "show", "dev", other))[0]["address"]
        _ip("neighbour", "replace", theirs, "lladdr", theirs_mac, "dev", bridge, "nud", "permanent")


def exists(link: str) -> bool:
    """Whether there is such a link on our side."""
    return Path(f"/sys/class/net/{link}").exists()


def cut(made: Made, host: str) -> bool:
    """Whether a host is cut off."""
    with suppress(OSError):
        flags = int(Path(f"/sys/class/net/{made.link(host, 'i')}/flags").read_text(), 16)
        return not flags & 1
    return False


def namespaces() -> set[str]:
    """Those that there are."""
    with suppress(OSError):
        return {each.name for each in Path("/run/netns").iterdir()}
    return set()


def find(rig: Path, depth: int = 2) -> list[Net]:
    """Those of a rig's folder."""
    return [Net(path.parent) for path in rig.glob(FILE)] + [
        Net(path.parent) for level in range(1, depth + 1) for path in rig.glob("*/" * level + FILE)
    ]


def _gone(there: Callable[[], bool], *words: str) -> None:
    """Remove something, unless it is gone: the kernel or another process may be at it too."""
    try:
        if there():
            _ip(*words)
    except Unavailable:
        if there():
            raise


def _mac(link: str) -> str:
    return Path(f"/sys/class/net/{link}/address").read_text().strip()


def _program() -> str | None:
    return shutil.which("ip", path=os.pathsep.join(PLACES))


def _ip(*words: str) -> str:
    program = _program()
    if program is None:
        raise Unavailable("ip", "iproute2 isn't installed")
    try:
        done = subprocess.run(
            [program, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COMMAND_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable("ip", f"{' '.join(words)}: {error}") from error
    if done.returncode != 0:
        raise Unavailable("ip", f"{' '.join(words)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def _enter(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def ask(net: Net, host: str, address: tuple[str, int], question: bytes, timeout_s: float) -> None:
    """One question from a host over its own link, and the first byte of an answer.

    Raises:
        OSError: There is none.
    """
    with net.within(host):
        line = socket.socket()
    _ask(line, address, question, timeout_s)


def question(address: tuple[str, int], text: bytes, timeout_s: float) -> None:
    """The same from the machine itself. Raises as ``ask``."""
    _ask(socket.socket(), address, text, timeout_s)


def _ask(line: socket.socket, address: tuple[str, int], text: bytes, timeout_s: float) -> None:
    with line:
        line.settimeout(timeout_s)
        line.connect(address)
        line.sendall(text)
        if not line.recv(1):
            raise ConnectionError("the connection was closed without an answer")
