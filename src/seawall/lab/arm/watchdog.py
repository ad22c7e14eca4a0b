"""The process that holds what is armed: ``python -m seawall.lab.arm FOLDER [RIG]``, started by `Armoury`.

The runner speaks on standard input, a JSON object a line: ``{"do": "beat"}`` each second, ``{"do": "hold", "id": …}``,
``{"do": "forget", "id": …}`` when one was undone, ``{"do": "bye"}``. It is answered on standard output:
``{"said": "ready"}``, ``{"said": "beat"}``, ``{"said": "holds", "id": …}``, ``{"said": "undone", "id": …, "why": …}``.

It undoes everything when standard input closes, when nothing was heard for ``SILENCE_S``, and each when its deadline is
over. What was undone while the runner lives is undone once more when the runner is dead: it may have been stopped
between arming and breaking. Signals that people send (Ctrl-C goes to the terminal's whole group) don't end it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from seawall.lab.arm import file, leftover, orphan
from seawall.lab.arm.file import Armed, Holder
from seawall.lab.arm.undoing import AT_ONCE_MAX, Undone, undo_one
from seawall.lab.part.process import Identity, identity

SILENCE_S = 5.0
TICK_S = 0.25
RETRY_S, RETRY_MAX_S = 0.5, 5.0
LEFTOVER_S = 60.0
"""How long a dead runner's rig stays up: so that somebody can see that the faults are gone."""
UNSEEN_S = 10.0
"""A rig in which nothing was seen to run for so long has nothing left."""
LINE_BYTES_MAX = 64 * 1024


class Watchdog:
    """One of them. ``run`` returns when nothing is armed any more and the runner is done or dead."""

    def __init__(
        self,
        folder: Path,
        rig: Path | None,
        runner: Identity,
        *,
        leftover_s: float = LEFTOVER_S,
        run: Path | None = None,
    ) -> None:
        self._folder = folder
        self._rig = rig
        self._run = run
        self._runner = runner
        self._leftover_s = leftover_s
        self._held: dict[str, Armed] = {}  # neither undone nor forgotten
        self._again: dict[str, Armed] = {}  # undone, while the runner lived
        self._retry: dict[str, tuple[float, float]] = {}  # id → (not before, pause)
        self._flying: set[str] = set()  # being undone
        self._pool = ThreadPoolExecutor(AT_ONCE_MAX, thread_name_prefix="undo")
        self._heard = time.monotonic()
        self._silent = False
        self._hurry = False
        self._input = b""

    def run(self) -> None:
        """Hold what is armed, until the runner says goodbye or is gone."""
        signal.signal(signal.SIGTERM, self._told_to_hurry)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        me = identity(os.getpid())
        assert me is not None
        file.hold(self._folder, Holder(
            pid=me.pid, start=me.started, runner_pid=self._runner.pid, runner_start=self._runner.started,
        ))  # fmt: skip
        self._say("ready")
        goodbye = self._watch()
        why, unreadable = "the runner left it" if goodbye else "the runner is dead", list[str]()
        if not goodbye:
            file.log(self._folder, "the runner is dead", runner=self._runner.pid, armed=len(self._held))
            self._held |= self._again
            # Also what a runner wrote and didn't live to tell.
            found, unreadable = file.read_all(self._folder)
            self._held |= {armed.id: armed for armed in found}
            for name in unreadable:
                file.log(self._folder, "can't be understood", file=name)
        while self._held:
            self._undo(list(self._held), by=f"watchdog: {why}")
            time.sleep(TICK_S)
        if not goodbye and self._run is not None:
            left = f"nobody understands {', '.join(unreadable)} in {self._folder}" if unreadable else ""
            orphan.close(self._run, by="watchdog", said=left or "everything was reverted (watchdog)")
        if not goodbye and self._rig is not None:
            self._end_leftovers(self._rig)
        file.log(self._folder, "the watchdog ends", runner=self._runner.pid)

    def _watch(self) -> bool:
        """Until the runner says goodbye: True; or is dead: False."""
        while True:
            for said in self._lines():
                if said is None:
                    return False
                if said.get("do") == "bye":
                    return True
                self._hear(said)
            self._look()

    def _hear(self, said: Mapping[str, object]) -> None:
        id = str(said.get("id", ""))
        if said.get("do") == "beat":
            self._say("beat")
        elif said.get("do") == "hold":
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                armed = file.read(self._folder, id)
                if armed is not None:
                    self._held[id] = armed
                    self._say("holds", id=id)
        elif said.get("do") == "forget":
            for each in (self._held, self._again, self._retry):
                each.pop(id, None)

    def _look(self) -> None:
        """What is over is undone."""
        silence_s = time.monotonic() - self._heard
        if silence_s > SILENCE_S:
            if not self._silent:
                file.log(self._folder, "the runner is silent", runner=self._runner.pid, armed=len(self._held))
            self._silent = True
            self._undo(list(self._held), by=f"watchdog: the runner was silent for {silence_s:.0f} s")
        held = list(self._held.items())
        self._undo([id for id, armed in held if armed.left_s <= 0], by="watchdog: its deadline was over")

    def _undo(self, ids: list[str], *, by: str) -> None:
        """Begin to undo these; one that takes a minute keeps neither the others nor the runner's end waiting."""
        now = time.monotonic()
        for id in ids:
            # Threads that have undone one take it away meanwhile.
            armed = self._held.get(id)
            if armed is not None and id not in self._flying and self._retry.get(id, (0.0, 0.0))[0] <= now:
                self._flying.add(id)
                self._pool.submit(self._try, armed, by)

    def _try(self, armed: Armed, by: str) -> None:
        try:
            self._told(undo_one(self._folder, armed, by=by), by)
        finally:
            self._flying.discard(armed.id)

    def _told(self, done: Undone, by: str) -> None:
        id = done.armed.id
        if not done.ok:
            pause = min(RETRY_MAX_S, self._retry.get(id, (0.0, RETRY_S / 2))[1] * 2)
            self._retry[id] = (time.monotonic() + pause, pause)
            return
        self._held.pop(id, None)
        self._again[id] = done.armed
        self._say("undone", id=id, why=by)

    def _lines(self) -> list[Mapping[str, object] | None]:
        """What has come within a tick; None at the end: nobody speaks any more."""
        if not select.select([0], [], [], TICK_S)[0]:
            return []
        data = os.read(0, LINE_BYTES_MAX)
        if not data:
            return [None]
        self._heard, self._silent = time.monotonic(), False
        *lines, self._input = (self._input + data).split(b"\n")
        found: list[Mapping[str, object] | None] = []
        for line in lines:
            with contextlib.suppress(ValueError):
                if isinstance(said := json.loads(line), dict):
                    found.append(said)
        return found

    def _say(self, said: str, **fields: object) -> None:
        # A runner that is gone, or has stopped reading, keeps nothing from being undone.
        with contextlib.suppress(OSError):
            os.write(1, json.dumps({"said": said, **fields}).encode() + b"\n")

    def _end_leftovers(self, rig: Path) -> None:
        latest = time.monotonic() + self._leftover_s
        seen = time.monotonic()
        # What was just started when the runner died isn't seen yet: it writes down later who it is.
        while time.monotonic() < latest and not self._hurry and time.monotonic() - seen < UNSEEN_S:
            if leftover.running(rig):
                seen = time.monotonic()
            time.sleep(TICK_S)
        leftover.end(rig, lambda text: file.log(self._folder, text))

    def _told_to_hurry(self, *_: object) -> None:
        self._hurry = True


def main(arguments: list[str]) -> None:
    """FOLDER PID START [RIG [SECONDS [RUN]]]: of the runner, and where its rig and its record lie."""
    folder, pid, start = Path(arguments[0]), int(arguments[1]), arguments[2]
    rig = Path(arguments[3]) if len(arguments) > 3 and arguments[3] else None
    seconds = float(arguments[4]) if len(arguments) > 4 else LEFTOVER_S
    os.set_blocking(1, False)
    run = Path(arguments[5]) if len(arguments) > 5 and arguments[5] else None
    Watchdog(folder, rig, Identity(pid, start), leftover_s=seconds, run=run).run()
