"""A runner that arms and does nothing more: for tests that kill or stop it. ``FOLDER RIG LEFTOVER_S MAX_S ARGV…``:
arms the command, says so, and waits. A line ``undo`` on its standard input undoes it without forgetting it."""

from __future__ import annotations

import sys
from pathlib import Path

from seawall.lab.arm.armoury import Armoury


def main() -> None:
    folder, rig, leftover_s, max_s, *argv = sys.argv[1:]

    def told(id: str, by: str) -> None:
        print("undone", by, flush=True)

    def lost(why: str) -> None:
        print("lost", why, flush=True)

    armoury = Armoury(
        Path(folder), run="r", rig=Path(rig) if rig else None, lost=lost, told=told, leftover_s=float(leftover_s)
    )
    with armoury:
        armoury.arm({"do": "command", "argv": argv}, max_s=float(max_s), fault="the fault", target="it")
        print("armed", armoury.watchdog, flush=True)
        for line in sys.stdin:
            if line.strip() == "undo":
                armoury.undo_all(by="abort")
            if line.strip() == "end":
                break


if __name__ == "__main__":
    main()
