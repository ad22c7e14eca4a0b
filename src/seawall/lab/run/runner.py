"""Runs experiments one after the other: what the command line calls. In the main thread."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from seawall.lab.experiment import CATALOG, Experiment
from seawall.lab.part.node import FETCHED
from seawall.lab.record import Drill, Record, Status
from seawall.lab.run import ladder, toolkit
from seawall.lab.run.keys import Keys
from seawall.lab.run.place import DEFAULT, Folder
from seawall.lab.run.sentry import KICK
from seawall.lab.run.session import Options, Session
from seawall.lab.run.show import Screen

SIGNALS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one experiment that is to be made."""

    experiment: Experiment
    on: bool


class Interrupts:
    """Signals while a run goes on: the first one reverts and ends it in order, the second one waits for nothing more.
    A context manager; in the main thread."""

    def __init__(self, session: Session) -> None:
        self.phase = "opening"  # playing, concluding, closing
        self._session = session
        self._count = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        for number in SIGNALS:
            # What the caller has us ignore (nohup, a script's background) stays ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._take)
        # A kick that comes when nothing is played any more must not end the process.
        self._before[KICK] = signal.signal(KICK, signal.SIG_IGN)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def again(self) -> None:
        """Chaos Toolkit has put its own handler for SIGTERM over ours; it restores ours at its end."""
        if signal.SIGTERM in self._before:
            signal.signal(signal.SIGTERM, self._take)

    def _take(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._count += 1
        self._session.sentry.end(SIGNALS[signal.Signals(number)])
        first = "reverting; once more: don't wait for recovery" if self._count == 1 else "reverting all the same"
        # No `print`: the thread under this handler may be in the middle of one.
        with contextlib.suppress(OSError):
            os.write(2, f"\nseawall: {SIGNALS[signal.Signals(number)]}: {first}\n".encode())
        # Opening is cut short once: what it has begun must be ended whole.
        raising = {"opening": 1, "playing": 2, "concluding": 2}
        if raising.get(self.phase) == self._count:
            raise KeyboardInterrupt


def run(experiment: Experiment, options: Options, *, screen_to: Any = None) -> Record:
    """One run, from the rig to the record. Whatever happens, what was broken is reverted on return.

    Raises:
        Misconfigured: Chaos Toolkit doesn't take the file.
    """
    toolkit.check(experiment.document)
    screen: Screen | None = None

    def say(text: str) -> None:
        if screen is not None:
            screen.say(text)

    session = Session(experiment, options, say=say)
    screen = Screen(session.seen, experiment.ours.graph, screen_to, session.foot)
    keys = Keys(options.folder.path, entered=screen.entered)
    with Interrupts(session) as interrupts:
        screen.start()
        if options.drill is not None:
            keys.start()
        try:
            _play(session, experiment, interrupts)
        except KeyboardInterrupt:
            pass  # it was ordered: `close` reverts and says so
        finally:
            interrupts.phase = "closing"
            keys.stop()
            screen.stop()
            session.close()
    return session.record


def _play(session: Session, experiment: Experiment, interrupts: Interrupts) -> None:
    if session.open():
        interrupts.phase = "playing"
        session.handler.on_start = interrupts.again
        toolkit.play(experiment.document, session.handler)
    interrupts.phase = "concluding"
    session.conclude()


def run_all(
    wanted: Sequence[Run], *, folder: Path, seed: int, told: Callable[[Record], None], screen_to: Any = None,
    force: bool = False, drill: Drill | None = None,
) -> list[Record]:  # fmt: skip
    """Several, one after the other; none follows one that was aborted. ``told`` hears of each as it ends.

    Args:
        force: Also where the rung below on a ladder isn't green.
        drill: What is wanted is hidden from people.

    Raises:
        Misconfigured: Somebody else runs one in the folder, a file isn't right, or one may not run here.
    """
    place, found = Folder(folder), list[Record]()
    for number, each in enumerate(wanted):
        ladder.admit(each.experiment, place, force=force, earlier={one.experiment.name for one in wanted[:number]})
    with place.held():
        for each in wanted:
            # Once more: the one below may have been run meanwhile, and not have come out as expected.
            ladder.admit(each.experiment, place, force=force)
            options = Options(
                folder=place, on=each.on, seed=seed, fetched=FETCHED, drill=drill,
                command=command(each.experiment, on=each.on, seed=seed, folder=folder, drill=drill),
            )  # fmt: skip
            record = run(each.experiment, options, screen_to=screen_to)
            found.append(record)
            told(record)
            if record.status is Status.ABORTED:
                break
    return found


def command(experiment: Experiment, *, on: bool, seed: int, folder: Path, drill: Drill | None = None) -> str:
    """What runs it again."""
    words = ["seawall", "lab", "run"]
    if drill is not None:
        words += ["--drill", *drill.candidates]
    else:
        words += [experiment.name if experiment.path.parent == CATALOG else str(experiment.path)]
    words += ["--target", experiment.at.file] if experiment.at is not None else []
    words += [] if on else ["--without"]
    words += ["--seed", str(seed)]
    words += [] if folder == DEFAULT else ["--folder", str(folder)]
    return shlex.join(words)
