"""A part of two processes that do nothing, for tests of what all parts do. As a program: enters one and waits."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from seawall.lab.part.part import Part
from seawall.lab.part.process import Launch

DEAF = "trap '' TERM; while :; do sleep 0.1; done"


class Sleeper(Part):
    """Nodes: ``one``, which ends as asked, and ``deaf``, which doesn't."""

    kind = "sleeper"
    end_s = 0.5

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, nodes=["one", "deaf"], ports=["one", "deaf"], fetched=folder / "fetched")
        self.moves = 0

    def prepare(self) -> None:
        (self.folder / "prepared").touch()

    def launch(self, node: str) -> Launch:
        return Launch(command=["sleep", "600"] if node == "one" else ["sh", "-c", DEAF])

    def open(self, node: str) -> bool:
        return self.pid(node) is not None

    def unready(self) -> str:
        return ""

    def unsettled(self) -> str:
        return ""

    def moved(self) -> None:
        self.moves += 1


if __name__ == "__main__":
    with Sleeper(Path(sys.argv[1])) as part:
        print(part.pid("one"), part.pid("deaf"), flush=True)
        signal.pause()
