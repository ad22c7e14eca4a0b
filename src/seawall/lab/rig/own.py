"""The rig's own folder: marked, so that nothing is removed that the lab didn't make, and ended whatever was left in it.

::

    made-by-the-lab     the mark
    lock                held by the process whose rig it is
    data/               the platform's
    app/                its workflows, and what their steps did (`effects`)
    proxy/, redis/, …   the parts, each in a folder of its kind
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

from seawall.kernel.error import Rejected, Unavailable
from seawall.lab.part import catalog
from seawall.lab.part.process import Identity, Node, gone, identity, send
from seawall.lab.tree import Tree
from seawall.lab.weak.marker import MARKER, marked
from seawall.lab.zone import net as nets

MARK = MARKER
LOCK = "lock"
DATA, APP = "data", "app"
WHERE = "postgres.where"
GONE_S = 20.0


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """This folder is ours, empty but for the mark: what an earlier rig left in it is ended and removed.

    Raises:
        Rejected: Another process' rig is open there, or something lies there that the lab didn't make.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not made(folder) and any(folder.iterdir()):
        raise Rejected(409, "not the lab's", f"{folder} isn't empty and has no file '{MARK}': nothing there is touched")
    (folder / MARK).touch()
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Rejected(409, "in use", f"another rig is open in {folder}; choose another --folder") from None
        clear(folder)
        yield


def made(folder: Path) -> bool:
    """Whether the lab made it, as our own user."""
    return marked(folder)


def open_elsewhere(folder: Path) -> bool:
    """Whether some process has a rig open there now: what runs in it is that one's, and not left over."""
    try:
        with (folder / LOCK).open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def end(folder: Path) -> None:
    """End what runs there: the platform, then the parts. Harmless when nothing does, or the lab didn't make it.

    Raises:
        Unavailable: A process doesn't end.
    """
    if not made(folder):
        return
    tree = Tree(folder / DATA, app=folder / APP, log=folder / "left.log")
    up = tree.pid("up")
    if up is not None and (who := identity(up)) is not None:
        # First, or it would start again what is killed after it. Its children leave when their pipe to it closes.
        _kill(who)
    tree.stop()
    for part in reversed(catalog.made(folder)):
        part.down()
    # What a kind of rig has beside the catalogue's parts: hosts, and the network that they are in.
    for pid in folder.glob("*/*.pid"):
        Node(pid.stem, pid.parent).end(signal.SIGTERM, GONE_S)
    for net in nets.find(folder):
        net.down()


def clear(folder: Path) -> None:
    """``end``, and remove all but mark and lock."""
    end(folder)
    _forget_store(folder / DATA)
    for part in catalog.made(folder):
        part.wipe()
    for entry in folder.iterdir():
        if entry.name not in (MARK, LOCK):
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def _forget_store(data: Path) -> None:
    """Root's embedded PostgreSQL lies elsewhere, in a folder that says whose it is."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        place = Path(json.loads((data / WHERE).read_text())["place"])
        if place.is_absolute() and Path((place / "of").read_text().strip()) == data:
            shutil.rmtree(place)


def _kill(who: Identity) -> None:
    send(who, signal.SIGKILL)
    if not gone(who, GONE_S):
        raise Unavailable(f"process {who.pid}", "it doesn't end")
