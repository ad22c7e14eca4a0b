"""Ends a process whose event loop is blocked, with all stacks on standard error.

Time counts only while this process runs: a thread counts its own seconds in which the loop did nothing. A machine that
stood still for a minute (a paused guest, a stopped process group) finds all as it was, and by the clock alone each of
its processes would end at that moment. The thread can't run while somebody holds the interpreter's lock; for that there
is faulthandler's timer, which goes by the clock, and so waits for longer than a pause is likely to last. Until then a
parent ends a child that is silent, and systemd's watchdog the parent.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import threading

from seawall.guard import outlet

BLOCKED_S = 15
HELD_S = 90
TICK_S = 1.0
EXIT_BLOCKED = 1
"""As faulthandler's own."""


class Watchdog:
    """One for each process. The loop calls ``beat`` at least each second, from its first moment on."""

    def __init__(self) -> None:
        # Where to: whoever blocks us may be whoever doesn't read this.
        self._to = outlet.unblocked()
        self._beaten = True
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def beat(self) -> None:
        """The loop isn't blocked."""
        self._beaten = True
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()
        faulthandler.dump_traceback_later(HELD_S, exit=True, file=self._to)

    def stop(self) -> None:
        """Nobody beats any more."""
        self._stopped.set()
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        silent_s = 0.0
        while not self._stopped.wait(TICK_S):
            silent_s = 0.0 if self._beaten else silent_s + TICK_S
            self._beaten = False
            if silent_s >= BLOCKED_S:
                self._end()

    def _end(self) -> None:
        with contextlib.suppress(OSError):  # nobody reads it, or it is closed
            os.write(self._to, b"the event loop was blocked for %d s; the process ends\n" % BLOCKED_S)
            faulthandler.dump_traceback(self._to)
        os._exit(EXIT_BLOCKED)
