"""Where the parts of the lab meet: what the runner needs of a rig, and what an action needs of the runner.

The runner opens what the experiment's extension names as ``rig`` (default ``seawall.lab.rig``): that module's
``open_rig``, called as `OpenRig`. An action finds the rig by that module's own ``current()``, and arms
through the `Arm` that the rig was given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


class Arm(Protocol):
    """What undoes a fault is known to a watchdog before the fault is done."""

    def arm(
        self, revert: Mapping[str, object], *, max_s: float, fault: str, target: str, dead: Sequence[str] = (),
        exact: bool = False,
    ) -> str:  # fmt: skip
        """Write and sync what undoes a fault, and hand it to the watchdog. Only after this may the fault be done.

        Args:
            revert: As `seawall.lab.arm.revert` knows it: ``{"do": "proxy.clear", "folder": …, "link": …}``.
            max_s: So long it may last at most; the run's own end comes first if it is sooner.
            fault: What is broken, for people: "redis a black hole".
            target: What it is done to: "redis", "collector".
            dead: Paths (`Rig.paths`) that must be dead while it lasts; all the others must stay alive, but for those
                of the target.
            exact: Those of the target, too: a path that has its name is another thing.

        Returns:
            Its id, for `undone`.

        Raises:
            Unavailable: Nobody holds it, or the run is being aborted: the fault may not be done.
        """

    def landed(self, id: str) -> None:
        """The fault was done: look whether it is there. To be called right after; each path in ``dead`` is asked for
        an answer, and each other path of the rig too. What an action doesn't say, is looked at when it has ended.

        Raises:
            Unavailable: It isn't there, or more is broken than was meant: the run shows nothing, and is ended.
        """

    def still(self, ids: Sequence[str]) -> None:
        """These faults are about to be undone: look whether they are there yet. Each path in ``dead`` is asked once
        more; one that answers meanwhile has ended by itself, or by somebody's hand, nobody knows when, and the run
        shows nothing. Ids that are undone already count for nothing. Raises nothing: what is there must be undone.
        """

    def undone(self, id: str) -> None:
        """The fault was undone by its own action (``redis back``): looked at by doing what undoes it once more, and
        forgotten. Harmless when somebody else undid it before.

        Raises:
            Unavailable: It isn't undone.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be made for one run of one experiment."""

    needs: Sequence[str]  # parts: redis, sentinel, kafka, kafka3, postgres, zones; a proxy is always there
    profile: str  # embedded, cluster
    app: str  # file in lab/catalog/app/, or a path; "": the usual one
    traffic: Sequence[Mapping[str, Any]]  # as in the file: {kind: events, rate: 80}
    weak: Sequence[str]  # weak parts, of a run "off"
    seed: int
    folder: Path  # the rig's own, build/lab/rig; kept from one run to the next
    fetched: Path  # where programs lie
    run: Path  # this run's folder: ledger and log go there (record.LEDGER, record.LOG)
    options: Mapping[str, Any] = field(default_factory=dict)  # the extension's ``options``: what only this rig knows


class Rig(Protocol):
    """What an experiment is done to. On entering its context everything is up, and traffic flows."""

    def targets(self) -> Mapping[str, str]:
        """Everything that an experiment may break, with its address (``host:port``, or "" for a process of ours)."""

    def alerts(self) -> Sequence[str]:
        """Alerts of the platform that are open now.

        Raises:
            Unavailable: It can't be asked.
        """

    def sample(self) -> Mapping[str, float]:
        """One look at everything that is measured, by name (record.Sample). Asked twice a second; a second at most."""

    def moments(self) -> Sequence[tuple[str, str]]:
        """(kind, text) of what has happened since this was last asked: record.Moment without its time. ``killed`` with
        ``collector: SIGKILL`` counts as a fault that ends by itself.
        """

    def broken(self) -> str:
        """Why the rig itself can't be trusted any more, such as a traffic generator that died; "" when it can."""

    def called(self, dependency: str) -> int:
        """How often traffic has called a dependency since the rig was opened: connections or bytes of its lines."""

    def paths(self) -> Sequence[str]:
        """Every line that can be dead or alive, by name."""

    def alive(self, path: str) -> bool:
        """Whether one round trip through the same line as the clients' is answered; two seconds at most.

        Raises:
            Unavailable: Nobody can say: neither counts as proven.
        """

    def processes(self) -> Sequence[int]:
        """Pids whose memory counts as the rig's."""

    def finish(self, timeout_s: float) -> Mapping[str, int]:
        """Stop the traffic, wait until what was accepted has come to its end, and compare the ledger with what is
        there.

        Returns:
            The verdict's counts (record.Record.verdict); empty when there was no traffic.
        """

    def facts(self) -> Mapping[str, str]:
        """Figures that are to be told with the record."""


class OpenRig(Protocol):
    """``open_rig`` of a module that an experiment names."""

    def __call__(self, order: Order, *, arm: Arm, say: Callable[[str], None]) -> AbstractContextManager[Rig]: ...
