"""The journal's volume: less room on it, and more again while traffic goes on (incident I5).

What the journal leaves to others of its disk (``journal.reserve_bytes``) is made so large that little is left for it,
and as small as it was again. To the journal that is a volume that gets full, and one that is made larger; it needs no
root, and fills nobody's disk.
"""

from __future__ import annotations

import shutil
import sys
import time
from functools import partial
from pathlib import Path

from seawall.kernel.error import Unavailable
from seawall.lab import tune
from seawall.lab.act import MAX_S
from seawall.lab.rig import Rig, current

ROOM = "journal"
FULL_S = 30.0
AIM_S = 6.0
RESUME_BYTES = 1 << 20
"""So much more must be free before it is written again: more than it writes ahead, which is at least asked."""
REFUSED = 5
"""So many refusals in a second are no single one's."""
UNDO = "import sys, pathlib; from seawall.lab import tune; tune.undo(pathlib.Path(sys.argv[1]), sys.argv[2])"


def confine(room_bytes: int, max_s: float = MAX_S) -> str:
    """There is room for so many bytes more on the journal's volume; returns when events are refused. ``back`` (target
    ``journal``) makes it as large as it was."""
    rig = current()
    shutil.copyfile(rig.folder / tune.FILE, rig.folder / tune.BEFORE)
    argv = [sys.executable, "-c", UNDO, str(rig.folder), ROOM]
    id = rig.arm.arm({"do": "command", "argv": argv}, max_s=max_s, fault="its volume has no room", target=ROOM)
    rig.did(ROOM, id, partial(_grow, rig))
    latest, left_bytes = time.monotonic() + FULL_S, room_bytes
    while True:
        _leave(rig.folder, _journal(rig), left_bytes)
        if _refuses(rig, min(latest, time.monotonic() + AIM_S)):
            return f"there was room for {room_bytes} bytes more, and now there is none"
        if time.monotonic() > latest:
            raise Unavailable("the fault", f"no event was refused within {FULL_S:g} s")
        # Others make room on this disk as we take it.
        left_bytes //= 4


def _leave(rig: Path, journal: Path, left_bytes: int) -> None:
    reserve_bytes = max(0, shutil.disk_usage(journal).free - left_bytes)
    tune.put(rig, ROOM, {"reserve_bytes": reserve_bytes, "resume_bytes": reserve_bytes + RESUME_BYTES})
    tune.reread(rig, ROOM)


def _refuses(rig: Rig, latest: float) -> bool:
    while rig.flow.recent["events"].window(1.0).count("failed") < REFUSED:
        if time.monotonic() > latest:
            return False
        time.sleep(0.1)
    return True


def _grow(rig: Rig) -> None:
    tune.undo(rig.folder, ROOM)
    rig.note("act", f"the journal's volume has {shutil.disk_usage(_journal(rig)).free >> 20} MiB again")


def _journal(rig: Rig) -> Path:
    return rig.tree.data / "journal"
