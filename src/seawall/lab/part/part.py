"""What every part is and can do, as a whole."""

from __future__ import annotations

import shutil
import signal
import time
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from seawall.kernel.error import Rejected, Unavailable
from seawall.lab.part.guardian import Guardian
from seawall.lab.part.node import FETCHED, MARK, POLL_S, Nodes, NodeStatus, Say, quiet
from seawall.lab.part.process import gone, send, until

AGAIN_S = 0.5


class Part(Nodes):
    """Nodes with one purpose, in one folder. Arguments as `Nodes`; the folder is removed by ``wipe``."""

    def __init__(
        self, folder: Path, *, nodes: Sequence[str], ports: Sequence[str], fetched: Path = FETCHED, say: Say = quiet
    ) -> None:
        super().__init__(folder, nodes=nodes, ports=ports, fetched=fetched, say=say)
        self._guardian = Guardian(self.folder)

    # ── As a context manager: nothing outlives this process ────────────────────────────────────────────────────────
    def __enter__(self) -> Self:
        self._make()
        self._guardian.begin()
        try:
            self.up()
        except BaseException:
            self._guardian.end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.down()
        finally:
            self._guardian.end()

    # ── All of it ──────────────────────────────────────────────────────────────────────────────────────────────────
    def up(self, timeout_s: float = 120.0) -> None:
        """Fetch and make what is missing, start every node that doesn't run, and wait until all of it works.

        Raises:
            Misconfigured: A program is missing; each problem names the cure.
            Unavailable: Something can't be fetched, or a node didn't start in time: what runs is left running.
        """
        self._make()
        with self._locked():
            if not any(node.who() for node in self._node.values()) and self._ports.renew():
                self.moved()
            self.prepare()
            for name in self.nodes:
                self._launch(name)
        self.wait_ready(timeout_s)

    def down(self) -> None:
        """End every node: in order, then, after ``end_s``, by SIGKILL. Harmless when none runs.

        Raises:
            Unavailable: A process didn't end even then.
        """
        if not self.folder.is_dir():
            return
        with self._locked():
            for stage in self.stages():
                self._end(stage)

    def wipe(self) -> None:
        """``down``, and remove the folder. Nothing that wasn't made by a part is removed.

        Raises:
            Rejected: The folder isn't a part's.
        """
        self.down()
        if self.folder.exists():
            if not (self.folder / MARK).is_file():
                raise Rejected(409, "not a part", f"{self.folder} has no file '{MARK}'; it isn't removed")
            shutil.rmtree(self.folder)

    def status(self) -> list[NodeStatus]:
        """Every node, in order."""
        return [self._status(name) for name in self.nodes] if self.folder.is_dir() else []

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Wait until every node that should run answers, and the part does its work.

        Raises:
            Unavailable: A node ended, or it wasn't so in time; with the end of a log.
        """
        latest = time.monotonic() + timeout_s
        while why := self._unready():
            self._check_alive()
            if time.monotonic() > latest:
                raise Unavailable(self.kind, f"not ready after {timeout_s:g} s: {why}\n{self._tails()}")
            time.sleep(POLL_S)

    def settle(self, timeout_s: float = 60.0) -> None:
        """Wait until the part is as healthy as it can be: all replicas have everything. Between two faults this
        matters: a second one hits a half-healed system, and may cost what was acknowledged.

        Raises:
            Unavailable: Not in time; says what is missing.
        """
        latest = time.monotonic() + timeout_s
        while why := self.unsettled():
            if time.monotonic() > latest:
                raise Unavailable(self.kind, f"not settled after {timeout_s:g} s: {why}")
            time.sleep(POLL_S * 4)

    # ── What each part says of itself ──────────────────────────────────────────────────────────────────────────────
    @abstractmethod
    def prepare(self) -> None:
        """Fetch programs, write configuration, make data; all of it only where it is missing. Nothing of it runs."""

    @abstractmethod
    def unready(self) -> str:
        """Why the nodes that run don't do their work; "" when they do. Each answers already. Bounded, some seconds."""

    @abstractmethod
    def unsettled(self) -> str:
        """What isn't healed yet; "" when all is. Bounded, some seconds."""

    def stages(self) -> Sequence[Sequence[str]]:
        """In which order nodes end; those of one stage end together."""
        return [self.nodes]

    def moved(self) -> None:
        """The ports are others now, and no node runs: a part whose data names them removes it."""
        self.say(f"{self.kind}: a port was taken by somebody else; it has new ones now")

    # ── Inside ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _end(self, names: Sequence[str]) -> None:
        # All are told at once: an end in order takes a Kafka broker seconds.
        found = {name: who for name in names if (who := self._node[name].who()) is not None}
        for name, who in found.items():
            for each in (who, *self.others(name)):
                send(each, signal.SIGCONT)
            send(who, self.ending(name))
        latest = time.monotonic() + self.end_s
        for name, who in found.items():
            # Said again: a Redis that is writing its first AOF takes note of the signal, and forgets it.
            while not gone(who, min(AGAIN_S, until(latest))) and until(latest):
                send(who, self.ending(name))
        for name in names:
            self._node[name].end(self.ending(name), until(latest))

    def _unready(self) -> str:
        for name in self.nodes:
            if not self.open(name):
                return f"{name} doesn't answer"
        return self.unready()

    def _check_alive(self) -> None:
        for name, node in self._node.items():
            if node.who() is None:
                raise Unavailable(name, f"it ended:\n{node.tail()}")

    def _tails(self) -> str:
        return "\n".join(f"── {name}\n{node.tail(6)}" for name, node in self._node.items())
