"""Ends a part's processes when the process that uses them is gone, however it went.

Run as ``python -m seawall.lab.part.guardian FOLDER`` with a pipe as standard input, whose other end only the user
holds: the kernel closes that, also after ``kill -9``. (A signal at the parent's death would do it for the thread that
started a node, which may be one of a pool that ends much earlier.)
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from seawall.lab.part.process import Node, send

STILL_S = 5.0


class Guardian:
    """Watches over one folder from ``begin`` to ``end``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._child: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Harmless when it watches already."""
        if self._child is None:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "seawall.lab.part.guardian", str(self._folder)],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def end(self) -> None:
        """The nodes that still run end too. Harmless when it doesn't watch."""
        child, self._child = self._child, None
        if child is None:
            return
        assert child.stdin is not None
        child.stdin.close()
        try:
            child.wait(STILL_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait(STILL_S)


def main(folder: Path) -> None:
    """Wait for the other end of standard input to close, then kill what the pid files of the folder name."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while sys.stdin.buffer.read(1):
        pass
    for file in sorted(folder.glob("*.pid")):
        who = Node(file.stem, folder).who()
        if who is not None:
            send(who, signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
