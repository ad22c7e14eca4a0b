"""What people type at the terminal of a drill: Enter is *seen*, a text an act, ``done`` its end."""

from __future__ import annotations

import select
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from seawall.kernel.error import Rejected
from seawall.lab import drill

LOOK_S = 0.2
STOP_S = 2.0
BY = "at the terminal"


class Keys:
    """Reads lines, from ``start`` to ``stop``. Where nobody can type it does nothing.

    Args:
        folder: The lab's, where marks are made.
        entered: Told that a line was ended, and the screen has moved.
    """

    def __init__(self, folder: Path, *, entered: Callable[[], None], read: TextIO | None = None) -> None:
        self._folder, self._entered = folder, entered
        self._in = read if read is not None else sys.stdin
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lab.keys", daemon=True)

    def start(self) -> None:
        if self._in.isatty():
            self._thread.start()

    def stop(self) -> None:
        """Harmless when called twice, or before it began."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    def _run(self) -> None:
        while not self._stopping.is_set():
            if select.select([self._in], [], [], LOOK_S)[0]:
                line = self._in.readline()
                if not line:
                    return
                self._entered()
                take(self._folder, line)


def take(folder: Path, line: str) -> None:
    """One line, as a mark. Before a drill has begun, and after it, nobody takes it."""
    text = line.strip()
    word = drill.DONE if text == drill.DONE else drill.ACTED if text and text != drill.SEEN else drill.SEEN
    with suppress(Rejected):
        drill.mark(folder, word, text=text if word == drill.ACTED else "", by=BY)
