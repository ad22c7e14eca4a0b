"""The seam to Chaos Toolkit's library: it plays the file, and tells us where it is.

Facts of it that matter here (1.44): what an event handler or a control raises is swallowed, but for what isn't an
``Exception``; its own signal handlers raise ``SystemExit`` wherever the main thread is, also in its rollbacks; a pause
after an activity is slept also when the activity was interrupted; a gate that fails ends with "completed".
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from chaoslib.exceptions import ChaosException
from chaoslib.experiment import ensure_experiment_is_valid, run_experiment
from chaoslib.run import EventHandlerRegistry, RunEventHandler
from chaoslib.types import Schedule, Strategy

from seawall.kernel.error import Misconfigured
from seawall.lab.record import JOURNAL
from seawall.lab.run.sentry import KICK

FREQUENCY_S = 0.5
LOGGER = "chaostoolkit"
LEAVE = 20
"""As its own signal for an orderly end: rollbacks are played."""


class Player(Protocol):
    """Who is told where the experiment is; all from the main thread but for activities in the background."""

    def playing(self, *, now: bool) -> None:
        """From here on, or no more, the main thread may be told to leave."""

    def gate(self) -> None:
        """The hypothesis is asked next, once: what follows depends on it."""

    def began(self, activity: Mapping[str, Any]) -> None:
        """An action of the method begins."""

    def ended(self, activity: Mapping[str, Any], run: Mapping[str, Any]) -> None:
        """An activity of the method has ended."""

    def looked(self, held: bool) -> None:
        """The hypothesis was asked."""

    def played(self) -> None:
        """The method has come to its end: may hold until it has lasted long enough."""

    def rolling_back(self) -> None:
        """What follows is undone by rollbacks."""


class Handler(RunEventHandler):  # type: ignore[misc]
    """Chaos Toolkit's events, told to a `Player`."""

    def __init__(self, player: Player) -> None:
        self.journal: dict[str, Any] = {}
        self.on_start: Callable[[], None] | None = None
        """Called when its signal handlers are in place."""
        self._player = player
        self._method = False
        self._may_leave = False

    def started(self, experiment: Any, journal: Any) -> None:
        """Only here its own signal handlers are in place, to be replaced until it restores what was before them."""
        self.journal = journal
        signal.signal(KICK, self._kicked)
        if self.on_start is not None:
            self.on_start()

    def running(
        self, experiment: Any, journal: Any, configuration: Any, secrets: Any, schedule: Any, settings: Any
    ) -> None:
        """The first word that a handler hears which a control has registered."""
        self.journal = journal

    def start_hypothesis_before(self, experiment: Any) -> None:
        self._leaving(may=True)
        self._player.gate()

    def hypothesis_before_completed(self, experiment: Any, state: Any, journal: Any) -> None:
        self._tell(state)

    def continuous_hypothesis_iteration(self, iteration_index: int, state: Any) -> None:
        self._tell(state)

    def start_method(self, experiment: Any) -> None:
        self._method = True
        self._leaving(may=True)

    def start_activity(self, activity: Any) -> None:
        if self._method and activity.get("type") == "action":
            self._player.began(activity)

    def activity_completed(self, activity: Any, run: Any) -> None:
        # Probes of the continuous hypothesis come here too; they have a tolerance, those of the method have none.
        if self._method and "tolerance" not in activity:
            self._player.ended(activity, run)

    def method_completed(self, experiment: Any, state: Any = None) -> None:
        if state is not None:
            self._player.played()
        self._method = False

    def start_rollbacks(self, experiment: Any) -> None:
        self._leaving(may=False)
        self._player.rolling_back()

    def signal_exit(self) -> None:
        self._leaving(may=False)

    def interrupted(self, experiment: Any, journal: Any) -> None:
        self._leaving(may=False)

    def finish(self, journal: Any) -> None:
        self._leaving(may=False)

    def _tell(self, state: Any) -> None:
        if state is not None and state.get("steady_state_met") is not None:
            self._player.looked(bool(state["steady_state_met"]))

    def _leaving(self, *, may: bool) -> None:
        self._may_leave = may
        self._player.playing(now=may)

    def _kicked(self, *_: object) -> None:
        # Asked here, in the main thread: between the sentry's look and this, it may have come to its rollbacks.
        if self._may_leave:
            raise SystemExit(LEAVE)


def check(document: Mapping[str, Any]) -> None:
    """As ``chaos validate`` does.

    Raises:
        Misconfigured: It isn't an experiment.
    """
    try:
        ensure_experiment_is_valid(copy.deepcopy(dict(document)))
    except (ChaosException, TypeError, AttributeError, KeyError) as error:
        raise Misconfigured([f"as Chaos Toolkit sees it: {error}"]) from error


def play(document: Mapping[str, Any], handler: Handler) -> None:
    """Play the file: gate, method, rollbacks, whatever happens. What became of it is in the handler's journal.

    In the main thread: Chaos Toolkit sets signal handlers.
    """
    settings = {"runtime": {"rollbacks": {"strategy": "always"}, "hypothesis": {"strategy": "continuously"}}}
    # What comes out of it beside its own way of ending is an interrupt of ours that came at a bad moment: the journal
    # has what was done, and what was broken is undone by us, not by it.
    with contextlib.suppress(SystemExit):
        run_experiment(
            copy.deepcopy(dict(document)), settings=settings, strategy=Strategy.CONTINUOUS,
            schedule=Schedule(continuous_hypothesis_frequency=FREQUENCY_S), event_handlers=[handler],
        )  # fmt: skip


def register(registry: EventHandlerRegistry, handler: Handler) -> None:
    """Have a handler told by a run that has begun already (plain ``chaos run``)."""
    registry.register(handler)
    handler.started(None, {})


def keep(journal: Mapping[str, Any], folder: Path) -> None:
    """Chaos Toolkit's journal, as it writes it, but for the secrets that a file may hold."""
    said = journal.get("experiment")
    if isinstance(said, Mapping) and said.get("secrets"):
        journal = {**journal, "experiment": {**said, "secrets": dict.fromkeys(said["secrets"], "(hidden)")}}
    text = json.dumps(journal, indent=1, ensure_ascii=False, default=str)
    (folder / JOURNAL).write_text(text, "utf-8")


@contextlib.contextmanager
def logged(path: Path, *, quiet: bool) -> Iterator[None]:
    """Its log goes to a file; with ``quiet`` nowhere else."""
    logger = logging.getLogger(LOGGER)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s chaos %(levelname)s %(message)s"))
    before = (logger.level, logger.propagate)
    logger.addHandler(handler)
    if quiet:
        logger.setLevel(logging.INFO)
        logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
        logger.setLevel(before[0])
        logger.propagate = before[1]


def failures(journal: Mapping[str, Any]) -> list[str]:
    """What makes a run show nothing, as its journal tells it."""
    found = []
    before = (journal.get("steady_states") or {}).get("before")
    if before is not None and before.get("steady_state_met") is False:
        found.append(f"the steady state didn't hold before the fault: {_said(before['probes'][-1])}")
    for run in journal.get("run") or []:
        if run.get("status") == "failed":
            kind = run["activity"].get("type", "activity")
            found.append(f"the {kind} {run['activity'].get('name')!r} failed: {_said(run)}")
    return found


def _said(run: Mapping[str, Any]) -> str:
    told = run.get("exception")
    if told:
        return str(told[-1]).strip().removeprefix("chaoslib.exceptions.ActivityFailed: ")
    return f"{run['activity'].get('name')} said {run.get('output')!r}"
