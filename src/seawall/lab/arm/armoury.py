"""The runner's side: arms what undoes a fault, and learns what the watchdog, or anybody else, has done about it."""

from __future__ import annotations

import contextlib
import secrets
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

from seawall.kernel.error import Unavailable
from seawall.lab.arm import file, revert
from seawall.lab.arm.file import Armed
from seawall.lab.arm.leash import Leash
from seawall.lab.arm.undoing import Undone, undo_all
from seawall.lab.arm.watchdog import LEFTOVER_S
from seawall.lab.part.process import gone, send

HOLDS_S = 5.0
EARLIER_S = 90.0
"""How long an earlier runner's watchdog may take to undo what it holds."""
MISSING_S = 1.0

Lost = Callable[[str], None]
"""Told once why faults can't stay: the watchdog is gone, or it, or a person, has undone one."""


class Armoury:
    """What one run has armed, and the watchdog that holds it. A context manager.

    Args:
        folder: Of armed reverts, shared by all runs; one runner at a time.
        run: The run's id.
        rig: The folder of the run's rig: the watchdog ends what a dead runner leaves there.
        lost: Called from a thread of ours.
        told: Hears of each that was undone, by us or by the watchdog, with who did it; from a thread.
        leftover_s: How long a dead runner's rig stays up.
        record: The folder of the run's record, which the watchdog ends when the runner is dead.
    """

    def __init__(
        self,
        folder: Path,
        *,
        run: str,
        rig: Path | None,
        lost: Lost,
        told: Callable[[str, str], None],
        leftover_s: float = LEFTOVER_S,
        record: Path | None = None,
    ) -> None:
        self.folder = folder.absolute()
        self.run = run
        self._lost, self._told = lost, told
        self._every: dict[str, Armed] = {}  # that was armed in this run
        self._open: dict[str, Armed] = {}  # and isn't undone
        self._holds: set[str] = set()
        self._ours: set[str] = set()  # being undone by us
        self._change = threading.Condition()
        self._missing: dict[str, float] = {}
        self._closed = False
        self._why = ""  # why nothing is armed any more
        self._leash = Leash(
            self.folder, rig=rig, leftover_s=leftover_s, record=record, heard=self._hear, lost=self._lose,
            look=self._look,
        )  # fmt: skip

    def __enter__(self) -> Armoury:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # a command may have a secret among its words
        settle(self.folder)
        (self.folder / file.STOP).unlink(missing_ok=True)
        self._leash.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ── What the runner does ───────────────────────────────────────────────────────────────────────────────────────
    def arm(self, said: Mapping[str, object], *, max_s: float, fault: str, target: str) -> str:
        """Write and sync what undoes a fault, and have the watchdog hold it; its id.

        Raises:
            Rejected: It isn't a revert.
            Unavailable: Nobody holds it, or the run is ending: the fault may not be done.
        """
        armed = Armed(
            id=f"{self.run}.{secrets.token_hex(4)}", run=self.run, fault=fault, target=target,
            revert=revert.parse(said), armed=file.now(), deadline_s=file.since_boot() + max_s, boot=file.boot(),
        )  # fmt: skip
        with self._change:
            if why := self._why or self._stopped():
                raise Unavailable("the armoury", why)
            self._every[armed.id] = self._open[armed.id] = armed
            self._ours.add(armed.id)  # its file isn't there yet
        try:
            file.write(self.folder, armed)
            self._ours.discard(armed.id)
            file.log(self.folder, "armed", id=armed.id, fault=fault, revert=revert.said(armed.revert), max_s=max_s)
            self._leash.tell(do="hold", id=armed.id)
            with self._change:
                if not self._change.wait_for(lambda: armed.id in self._holds or bool(self._why), HOLDS_S):
                    raise Unavailable("the watchdog", f"it doesn't answer after {HOLDS_S:g} s")
                if self._why:
                    raise Unavailable("the armoury", self._why)
        except (OSError, Unavailable) as error:
            with self._change:
                self._open.pop(armed.id, None)
                self._every.pop(armed.id, None)
            file.remove(self.folder, armed.id)
            with contextlib.suppress(Unavailable):
                self._leash.tell(do="forget", id=armed.id)
            if isinstance(error, OSError):
                raise Unavailable("the armoury", str(error)) from error
            raise
        return armed.id

    def undo(self, id: str, *, by: str) -> Undone | None:
        """Undo one now, and have it forgotten; None when it was undone before."""
        with self._change:
            armed = self._open.get(id)
        return self._undo([armed], by, forget=True)[0] if armed is not None else None

    def undo_all(self, *, by: str, final: bool = False) -> list[Undone]:
        """Undo everything that is armed.

        Args:
            final: Nothing is being broken any more. Also what was undone in the middle is undone, once more: whoever
                was about to break it may have done so after. Only then the watchdog forgets it.
        """
        with self._change:
            wanted = list((self._every if final else self._open).values())
        return self._undo(wanted, by, forget=final)

    def stop(self, why: str) -> None:
        """Nothing is armed from now on."""
        with self._change:
            self._why = self._why or why
            self._change.notify_all()

    @property
    def armed(self) -> list[Armed]:
        """What isn't undone."""
        with self._change:
            return list(self._open.values())

    def close(self) -> None:
        """Undo what is armed, and say goodbye. The watchdog ends when nothing is armed any more; what can't be undone
        it goes on trying. Harmless when called twice."""
        if self._closed or not self._leash.pid:
            return
        self.undo_all(by="the runner's end", final=True)
        self._closed = True
        self._leash.close(wait=not self.armed)

    @property
    def watchdog(self) -> int:
        """Its pid; 0 when there is none."""
        return self._leash.pid

    # ── Inside ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _undo(self, wanted: list[Armed], by: str, *, forget: bool) -> list[Undone]:
        with self._change:
            self._ours.update(armed.id for armed in wanted)

        def told(done: Undone) -> None:
            if done.ok:
                self._forget(done.armed.id, by, tell=forget)

        try:
            return undo_all(self.folder, wanted, by=by, told=told)
        finally:
            with self._change:
                self._ours.difference_update(armed.id for armed in wanted)

    def _forget(self, id: str, by: str, *, tell: bool) -> None:
        with self._change:
            known = self._open.pop(id, None) is not None
            if tell:
                self._every.pop(id, None)
        if tell:
            with contextlib.suppress(Unavailable):
                self._leash.tell(do="forget", id=id)
        if known:
            self._told(id, by)

    def _stopped(self) -> str:
        """Why a person wants nothing to be broken any more; "" when nobody does."""
        try:
            return (self.folder / file.STOP).read_text("utf-8").strip() or "told to stop"
        except OSError:
            return ""

    def _lose(self, why: str) -> None:
        with self._change:
            if self._why or self._closed:
                return
            self._why = why
            self._change.notify_all()
        self._lost(why)

    def _look(self) -> None:
        """Whether somebody wants us to stop, or has undone anything. (The watchdog removes a file first, and says so
        then.)"""
        if why := self._stopped():
            self._lose(why)
        now = time.monotonic()
        for armed in self.armed:
            if armed.id in self._ours or (self.folder / f"{armed.id}.json").exists():
                self._missing.pop(armed.id, None)
            elif now - self._missing.setdefault(armed.id, now) > MISSING_S:
                self._lose(f"somebody else has undone: {armed.fault}")

    def _hear(self, said: Mapping[str, object]) -> None:
        word, id = said.get("said"), str(said.get("id", ""))
        if word == "holds":
            with self._change:
                self._holds.add(id)
                self._change.notify_all()
        elif word == "undone":
            why = str(said.get("why", "the watchdog"))
            with self._change:
                armed = self._open.pop(id, None)
            if armed is not None:
                self._told(id, why)
                self._lose(f"{why}: {armed.fault}")


def settle(folder: Path) -> None:
    """Nothing of an earlier run is armed, or held, when this returns.

    Raises:
        Unavailable: Something can't be undone: nothing more may be broken before it is.
    """
    earlier = file.holder(folder)
    if earlier is not None and (who := earlier.watchdog) is not None:
        # Its runner is dead, or it would have its lock: what it holds is undone at once, and its rig ended.
        send(who, signal.SIGTERM)
        # It may have been stopped, and would never see that.
        send(who, signal.SIGCONT)
        if not gone(who, EARLIER_S):
            raise Unavailable("the armoury", f"the watchdog of an earlier run, process {who.pid}, still undoes: "
                              + _list(file.read_all(folder)[0]))  # fmt: skip
    found, unreadable = file.read_all(folder)
    left = [done for done in undo_all(folder, found, by="the next run") if not done.ok]
    if left or unreadable:
        said = [done.text for done in left] + [f"{name} can't be understood" for name in unreadable]
        raise Unavailable("the armoury", f"an earlier run left in {folder}: {'; '.join(said)}")


def _list(armed: list[Armed]) -> str:
    return ", ".join(each.fault for each in armed) or "nothing"
