"""Settings of the rig's platform, changed while traffic goes on: its file, SIGHUP, and whether they are in force.

Whoever undoes such a change may be the watchdog, in a process of its own: all that is needed is the rig's folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path

from seawall.kernel.error import Unavailable
from seawall.lab.part.node import whole
from seawall.lab.rig import own
from seawall.lab.tree import Tree

FILE = "seawall.toml"
BEFORE = "seawall.toml.before"
"""While something is changed that is to be undone: the file as it was."""
RESOLVED = Path("run", "settings.json")
READ_S = 15.0
POLL_S = 0.05


def put(rig: Path, room: str, values: Mapping[str, int]) -> None:
    """Write some of a room's settings into the platform's file. Nobody has read them yet."""
    file = rig / FILE
    lines = file.read_text().splitlines()
    if f"[{room}]" not in lines:
        lines.append(f"[{room}]")
    begins = lines.index(f"[{room}]") + 1
    ends = next((n for n in range(begins, len(lines)) if lines[n].startswith("[")), len(lines))
    kept = [line for line in lines[begins:ends] if line.partition(" =")[0] not in values]
    said = [f"{name} = {value}" for name, value in values.items()]
    whole(file, "\n".join([*lines[:begins], *said, *kept, *lines[ends:], ""]))


def reread(rig: Path, room: str) -> None:
    """SIGHUP, and wait until what the file says of a room is in force. Of a platform that has ended nothing is.

    Raises:
        Unavailable: It isn't in time: the file is wrong, or `seawall up` hangs.
    """
    pid = Tree(rig / own.DATA, app=rig, log=rig / "tune.log").pid("up")
    if pid is None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGHUP)
    wanted = tomllib.loads((rig / FILE).read_text()).get(room, {})
    latest = time.monotonic() + READ_S
    while any(_known(rig, room).get(name) != value for name, value in wanted.items()):
        if time.monotonic() > latest:
            raise Unavailable(f"settings of {room}", f"they aren't in force {READ_S:g} s after SIGHUP")
        time.sleep(POLL_S)


def undo(rig: Path, room: str) -> None:
    """All is as it was before ``BEFORE`` was written. Harmless when nothing was changed, or it was undone."""
    before = rig / BEFORE
    if before.exists():
        whole(rig / FILE, before.read_text())
        reread(rig, room)
        before.unlink(missing_ok=True)


def _known(rig: Path, room: str) -> dict[str, object]:
    """Of one room, what `seawall up` has handed to its roles."""
    try:
        found = json.loads((rig / own.DATA / RESOLVED).read_text())
        return {str(name): value for section, name, value, _ in found if section == room}
    except (OSError, ValueError):
        return {}
