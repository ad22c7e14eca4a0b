"""The control that every experiment names: with it plain ``chaos run FILE`` makes the rig, arms reverts, measures and
judges, as `seawall lab run` does. Under the latter it does nothing: the runner has made its session before.

Chaos Toolkit swallows what a control raises, but for ``InterruptExecution``; so what goes wrong in
``configure_control`` is kept, and raised by the next call that can.
"""

from __future__ import annotations

import re
import secrets
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from chaoslib.exceptions import InterruptExecution

from seawall.kernel.error import Misconfigured, SeawallError
from seawall.lab import experiment as experiments
from seawall.lab.part.node import FETCHED
from seawall.lab.record import Status
from seawall.lab.run import ladder, toolkit
from seawall.lab.run.place import DEFAULT, Folder
from seawall.lab.run.runner import Interrupts
from seawall.lab.run.session import Options, Session, current


class Plain:
    """One plain ``chaos run``."""

    def __init__(self) -> None:
        self.session: Session | None = None
        self.problem = ""
        self._interrupts: Interrupts | None = None
        self._stack = ExitStack()

    def begin(self, document: Mapping[str, Any], registry: Any) -> None:
        try:
            found = experiments.parse(document, _path(document))
            folder = Folder(DEFAULT)
            ladder.admit(found, folder)
            self._stack.enter_context(folder.held())
            options = Options(folder=folder, seed=secrets.randbits(31), fetched=FETCHED)
            self.session = Session(found, options, say=_say)
            self._interrupts = self._stack.enter_context(Interrupts(self.session))
            toolkit.register(registry, self.session.handler)
        except Misconfigured as error:
            self.problem = "; ".join(error.problems)
        except (SeawallError, OSError) as error:
            self.problem = str(error)

    def open(self) -> None:
        if self.session is None:
            raise InterruptExecution(self.problem or "the lab has no session")
        try:
            opened = self.session.open()
        except KeyboardInterrupt:
            opened = False
        if self._interrupts is not None:
            self._interrupts.phase = "playing"
            self._interrupts.again()
        if not opened:
            raise InterruptExecution("nothing may be broken: " + self.session.why())

    def end(self, journal: Any) -> None:
        """Conclude, and have ``chaos run`` end with 0 only when all came out as expected."""
        session = self.session
        if session is None:
            return
        if self._interrupts is not None:
            self._interrupts.phase = "concluding"
        try:
            session.conclude()
        except KeyboardInterrupt:
            _say("not waiting for recovery")
        except Exception as error:  # noqa: BLE001 - Chaos Toolkit would swallow it, and end with 0
            _say(f"it can't be concluded: {error}")
        try:
            session.close()
        finally:
            self._tell(session, journal)

    def _tell(self, session: Session, journal: Any) -> None:
        """Have the exit code, and whoever reads, know what came out."""
        record = session.record
        if isinstance(journal, dict):
            journal["status"] = "completed" if record.as_expected else _STATUS[record.status]
            journal["deviated"] = record.status is Status.NOT_AS_EXPECTED
            journal["seawall"] = {"status": str(record.status), "why": record.why, "folder": str(session.folder)}
        for line in (f"{record.name}: {record.status}", *record.why, f"its record: {session.folder}"):
            _say(line)

    def close(self) -> None:
        if self._interrupts is not None:
            self._interrupts.phase = "closing"
        try:
            if self.session is not None:
                self.session.close()
        finally:
            self._stack.close()


_STATUS = {Status.NOT_AS_EXPECTED: "failed", Status.INVALID: "aborted", Status.ABORTED: "interrupted"}
_plain: Plain | None = None


def configure_control(experiment: Mapping[str, Any], event_registry: Any) -> None:
    """Called first; it can't say that anything is wrong."""
    global _plain
    if current() is None:
        _plain = Plain()
        _plain.begin(experiment, event_registry)


def before_experiment_control(context: Any) -> None:
    """Before the gate."""
    del context
    if _plain is not None:
        _plain.open()


def after_experiment_control(context: Any, state: Any) -> None:
    """After the rollbacks."""
    del context
    if _plain is not None:
        _plain.end(state)


def cleanup_control() -> None:
    """At the very end, whatever happened."""
    global _plain
    plain, _plain = _plain, None
    if plain is not None:
        plain.close()


def _path(document: Mapping[str, Any]) -> Path:
    """The file, which nobody tells a control: the catalogue's with the same title, else one named after it."""
    title = str(document.get("title", ""))
    for name in experiments.names():
        path = experiments.CATALOG / f"{name}.yaml"
        if experiments.read(path).get("title") == title:
            return path
    return Path(re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60] or "experiment").with_suffix(".yaml")


def _say(text: str) -> None:
    sys.stderr.write(f"seawall: {text}\n")
