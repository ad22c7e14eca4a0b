"""Ends what a dead runner's rig left running: the parts by their pid files, and the platform by its lock files.

Nothing is ever signalled but processes that such a file names together with the moment at which they began.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from seawall.lab.part.process import Identity, Node, gone, identity, send
from seawall.lab.tree import Tree
from seawall.lab.weak.marker import marked
from seawall.lab.zone import net as nets

ORDERLY_S = 15.0
DEPTH = 3
"""How deep under the rig's folder a part or a data folder may lie."""


def end(rig: Path, say: Callable[[str], None]) -> None:
    """End everything that runs there: in order where that is quick, else by SIGKILL. Harmless when nothing runs, or the
    lab didn't make the folder."""
    if not marked(rig):
        return
    for folder in _folders(rig):
        if (folder / "lock").is_file() and (folder / "run").is_dir():
            _end_platform(folder, say)
    found = [(name, who) for folder in _folders(rig) for name, who in _nodes(folder)]
    for name, who in found:
        say(f"ends {name}, process {who.pid}")
        send(who, signal.SIGTERM)
        send(who, signal.SIGCONT)
    latest = time.monotonic() + ORDERLY_S
    for _, who in found:
        if not gone(who, max(0.0, latest - time.monotonic())):
            send(who, signal.SIGKILL)
            gone(who, ORDERLY_S)
    for net in nets.find(rig):
        say(f"removes the zones of {net.folder}")
        net.down()


def running(rig: Path) -> list[str]:
    """What runs there; nothing that is the lab's in a folder that isn't."""
    if not marked(rig):
        return []
    found = [f"{name} (process {who.pid})" for folder in _folders(rig) for name, who in _nodes(folder)]
    for folder in _folders(rig):
        if (folder / "lock").is_file() and (pid := _tree(folder).pid("up")) is not None:
            found.append(f"the platform of {folder.name} (process {pid})")
    return found


def _end_platform(data: Path, say: Callable[[str], None]) -> None:
    tree = _tree(data)
    pid = tree.pid("up")
    who = identity(pid) if pid is not None else None
    if who is not None:
        say(f"ends the platform of {data}, process {who.pid}")
        send(who, signal.SIGTERM)
        send(who, signal.SIGCONT)
        gone(who, ORDERLY_S)
    # What is left of it, also when `up` itself was killed before.
    tree.stop()


def _tree(data: Path) -> Tree:
    return Tree(data, app=data, log=data.with_suffix(".log"))


def _nodes(folder: Path) -> Iterator[tuple[str, Identity]]:
    for path in sorted(folder.glob("*.pid")):
        if (who := Node(path.stem, folder).who()) is not None:
            yield path.stem, who


def _folders(rig: Path) -> list[Path]:
    """The folder itself and those in it, ``DEPTH`` deep; links are not followed."""
    found = [rig] if rig.is_dir() else []
    last = found
    for _ in range(DEPTH):
        last = [path for folder in last for path in _inside(folder)]
        found = found + last
    return found


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    except OSError:
        return []
