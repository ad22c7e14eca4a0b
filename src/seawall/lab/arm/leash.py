"""The runner's line to its watchdog: starts it, keeps it awake once a second, and notices when it is gone."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from seawall.kernel.error import Unavailable
from seawall.lab.arm.watchdog import LINE_BYTES_MAX, SILENCE_S
from seawall.lab.part.process import identity

BEAT_S = 1.0
READY_S = 20.0
WRITE_S = 5.0
GOODBYE_S = 5.0
POLL_S = 0.2
DEAF_S = 10.0
"""A watchdog that has answered nothing for so long is taken for dead. Longer than it waits for us: on a machine that is
busy we would abort for nothing."""

Said = Mapping[str, object]


class Leash:
    """One watchdog, from ``begin`` to ``close``.

    Args:
        folder: Of what is armed.
        rig: The folder of the run's rig, which the watchdog ends when the runner is dead, after ``leftover_s``.
        record: The folder of the run's record, which it ends then.
        heard: Called with what it says, from a thread.
        lost: Called with why it can't be relied on, from a thread; more than once, perhaps.
        look: Called five times a second.
    """

    def __init__(
        self,
        folder: Path,
        *,
        rig: Path | None,
        leftover_s: float,
        record: Path | None,
        heard: Callable[[Said], None],
        lost: Callable[[str], None],
        look: Callable[[], None],
    ) -> None:
        self._folder, self._leftover_s = folder, leftover_s
        # Whole: it lives on where we may have left.
        self._rig = rig.absolute() if rig is not None else None
        self._record = record.absolute() if record is not None else None
        self._heard, self._lost, self._look = heard, lost, look
        self._child: subprocess.Popen[bytes] | None = None
        self._ready = threading.Event()
        self._closing = threading.Event()
        self._heard_at = 0.0
        self._listener = threading.Thread(target=self._listen, name="leash.listen", daemon=True)
        self._beater = threading.Thread(target=self._beat, name="leash.beat", daemon=True)

    @property
    def pid(self) -> int:
        """The watchdog's; 0 when there is none."""
        return self._child.pid if self._child is not None else 0

    def begin(self) -> None:
        """Start it, and wait until it watches.

        Raises:
            Unavailable: It didn't start.
        """
        me = identity(os.getpid())
        assert me is not None
        arguments = [str(self._folder), str(me.pid), me.started, str(self._rig or ""), f"{self._leftover_s:g}",
                     str(self._record or "")]  # fmt: skip
        with (self._folder / "watchdog.log").open("ab") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "seawall.lab.arm", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=log, start_new_session=True,
            )  # fmt: skip
        self._heard_at = time.monotonic()
        self._listener.start()
        if not self._ready.wait(READY_S):
            self.close(wait=False)
            raise Unavailable("the watchdog", f"it didn't start; see {self._folder / 'watchdog.log'}")
        self._beater.start()

    def tell(self, **said: object) -> None:
        """
        Raises:
            Unavailable: It isn't there, or doesn't listen.
        """
        child = self._child
        if child is None or child.stdin is None:
            raise Unavailable("the watchdog", "it isn't there")
        try:
            # One write, and so one piece: lines of several threads don't mix.
            descriptor = child.stdin.fileno()
            if not select.select([], [descriptor], [], WRITE_S)[1]:
                raise Unavailable("the watchdog", "it doesn't listen")
            os.write(descriptor, json.dumps(said).encode() + b"\n")
        except (OSError, ValueError) as error:
            raise Unavailable("the watchdog", str(error)) from error

    def close(self, *, wait: bool) -> None:
        """Say goodbye. It ends when nothing is armed any more; with ``wait``, that is now. Harmless when called
        twice."""
        child = self._child
        if child is None:
            return
        self._closing.set()
        with contextlib.suppress(Unavailable):
            self.tell(do="bye")
        self._child = None
        assert child.stdin is not None
        with contextlib.suppress(OSError):
            child.stdin.close()
        if wait:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(GOODBYE_S)
        for thread in (self._beater, self._listener):
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join(GOODBYE_S if wait else POLL_S)
        # It may outlive us, as long as something is armed: Popen, which would complain, is told that it ended.
        child.returncode = 0
        if not self._listener.is_alive() and child.stdout is not None:
            child.stdout.close()

    def _beat(self) -> None:
        """Once a second: we are alive; is the watchdog?"""
        beat, woken = float("-inf"), time.monotonic()
        while not self._closing.wait(POLL_S):
            slept_s, woken = time.monotonic() - woken, time.monotonic()
            if slept_s > SILENCE_S / 2:
                # It was us who were stopped: what the watchdog said meanwhile is still to be read.
                self._heard_at = woken
            if woken - beat >= BEAT_S:
                beat = woken
                with contextlib.suppress(Unavailable):
                    self.tell(do="beat")
            if woken - self._heard_at > DEAF_S:
                self._lost(f"the watchdog has been silent for {DEAF_S:g} s")
            self._look()

    def _listen(self) -> None:
        child = self._child
        assert child is not None and child.stdout is not None
        try:
            while line := child.stdout.readline(LINE_BYTES_MAX):
                self._heard_at = time.monotonic()
                said = json.loads(line)
                if said.get("said") == "ready":
                    self._ready.set()
                self._heard(said)
        except (OSError, ValueError, AttributeError) as error:
            self._lost(f"the watchdog can't be understood: {error}")
        if not self._closing.is_set():
            self._lost("the watchdog is gone")
