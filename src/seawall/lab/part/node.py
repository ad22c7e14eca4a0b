"""The nodes of a part, one at a time: each a process in the part's folder, with its ports."""

from __future__ import annotations

import contextlib
import fcntl
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from seawall.kernel.error import Rejected, Unavailable
from seawall.lab.part.port import LOOPBACK, Ports, answers
from seawall.lab.part.process import Identity, Launch, Node, gone, identity, memory_mb, send, stopped, until

DEFAULT = Path("build/parts")
FETCHED = DEFAULT / "fetched"
MARK = "part"
POLL_S = 0.05
LOCK_S = 180.0
FATAL = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGABRT}
FATAL_S = 30.0
STOP_S = 10.0

Say = Callable[[str], None]


def quiet(text: str) -> None:
    """Says nothing."""
    del text


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """One node, as ``status`` tells it."""

    part: str
    node: str
    state: str  # up, stopped (by SIGSTOP), down
    pid: int  # 0 when it is down
    memory_mb: float
    port: int  # 0: it has none


class Nodes(ABC):
    """What can be done to one node. A part says how each is started, and what answers.

    Args:
        folder: The part's own: data, logs, pid files, ports. Made when it is missing.
        nodes: Their names, in the order in which they start.
        ports: Names of the ports that it needs; of a node that listens, the node's own.
        fetched: Where programs that were fetched lie, shared by all parts.
        say: Told, in a line, what is about to be fetched or done.
    """

    kind = "part"
    end_s = 20.0
    """How long an orderly end may take before it is killed."""

    def __init__(
        self, folder: Path, *, nodes: Sequence[str], ports: Sequence[str], fetched: Path = FETCHED, say: Say = quiet
    ) -> None:
        # Whole: PostgreSQL and Java are started with other working folders.
        self.folder = folder.absolute()
        self.fetched = fetched.absolute()
        self.say = say
        self.nodes = tuple(nodes)
        self._node = {name: Node(name, self.folder) for name in nodes}
        self._ports = Ports(self.folder, ports)

    def kill(self, node: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Signal a node; after one that ends it, wait (``FATAL_S`` at most) until it and what hangs on it is gone.

        Returns:
            Its pid.

        Raises:
            Unavailable: It doesn't run, or doesn't end.
        """
        who = self._running(node)
        rest = self.others(node)
        send(who, number)
        latest = time.monotonic() + FATAL_S
        if number in FATAL and not all(gone(each, until(latest)) for each in (who, *rest)):
            raise Unavailable(node, f"process {who.pid} hasn't ended {FATAL_S:g} s after {number.name}")
        self._node[node].who()  # reaps it
        return who.pid

    def stop(self, node: str) -> None:
        """SIGSTOP: it holds its connections and ports, and answers nothing. ``cont`` ends it.

        Raises:
            Unavailable: It doesn't run, or doesn't stop.
        """
        who = self._running(node)
        # The parent first, or it would replace children that are stopped.
        for each in (who, *self.others(node)):
            send(each, signal.SIGSTOP)
            latest = time.monotonic() + STOP_S
            # The signal is on its way when `send` returns: a process that writes to disk takes it later.
            while not stopped(each) and identity(each.pid) == each:
                if time.monotonic() > latest:
                    raise Unavailable(node, f"process {each.pid} doesn't stop")
                time.sleep(0.001)

    def cont(self, node: str) -> None:
        """SIGCONT after ``stop``.

        Raises:
            Unavailable: It doesn't run.
        """
        who = self._running(node)
        for each in (*self.others(node), who):
            send(each, signal.SIGCONT)

    def start(self, node: str, timeout_s: float = 90.0) -> None:
        """Start a node that was killed, and wait until it answers (not until it has caught up: ``settle``).

        Raises:
            Unavailable: It ended again, or didn't answer in time.
        """
        self._known(node)
        with self._locked():
            self._launch(node)
        latest = time.monotonic() + timeout_s
        while not self.open(node):
            if self._node[node].who() is None or time.monotonic() > latest:
                raise Unavailable(node, f"it didn't start:\n{self._node[node].tail()}")
            time.sleep(POLL_S)

    def pid(self, node: str) -> int | None:
        """Its process, None when it doesn't run."""
        who = self._known(node).who()
        return who.pid if who is not None else None

    def port(self, name: str) -> int:
        """Of a node, or another one that the part has; the same until somebody else takes it while all is down."""
        self._make()
        return self._ports[name]

    def address(self, name: str) -> str:
        return f"{LOOPBACK}:{self.port(name)}"

    def tail(self, node: str, lines: int = 12) -> str:
        """The end of its log."""
        return self._known(node).tail(lines)

    @abstractmethod
    def launch(self, node: str) -> Launch:
        """How the node is started."""

    def ending(self, node: str) -> signal.Signals:
        """What makes a node end in order."""
        del node
        return signal.SIGTERM

    def others(self, node: str) -> list[Identity]:
        """Further processes that belong to a node."""
        del node
        return []

    def open(self, node: str) -> bool:
        """Whether the node answers."""
        return answers(self.port(node))

    # ── Inside ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _make(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / MARK).write_text(self.kind + "\n")

    def _launch(self, node: str) -> None:
        found = self._known(node)
        if found.who() is None:
            found.start(self.launch(node))

    def _known(self, node: str) -> Node:
        try:
            return self._node[node]
        except KeyError:
            raise Rejected(404, "no such node", f"{node}: {self.kind} has {', '.join(self.nodes)}") from None

    def _running(self, node: str) -> Identity:
        who = self._known(node).who()
        if who is None:
            raise Unavailable(node, "it isn't running")
        return who

    def _status(self, name: str) -> NodeStatus:
        who = self._node[name].who()
        state = "down" if who is None else "stopped" if stopped(who) else "up"
        memory = memory_mb(who) if who is not None else 0.0
        return NodeStatus(
            part=self.kind, node=name, state=state, pid=who.pid if who else 0, memory_mb=round(memory, 1),
            port=self.port(name) if name in self._ports else 0,
        )  # fmt: skip

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One at a time, over all processes: two that start a node would leave one without a pid file."""
        with (self.folder / "lock").open("w") as file:
            latest = time.monotonic() + LOCK_S
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > latest:
                        raise Unavailable(self.kind, f"{self.folder} is locked by another command") from None
                    time.sleep(POLL_S)
            yield


def whole(path: Path, text: str) -> None:
    """Write a file in one piece."""
    beside = path.with_name(path.name + ".new")
    beside.write_text(text, "utf-8")
    beside.replace(path)
