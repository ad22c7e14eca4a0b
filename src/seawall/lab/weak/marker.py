"""The file by which a data folder says that the lab made it, and that nothing in it is anybody's."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from seawall.kernel.error import Misconfigured

MARKER = "made-by-the-lab"
TEXT = "This data folder was made by Seawall's lab. Platforms with weak parts run in it: nothing here is safe.\n"


def mark(data: Path, own: Sequence[str] = ()) -> None:
    """Make a data folder for the lab. Harmless when it is one already.

    Args:
        own: Where the lab's own parts are, as settings say it (a DSN, a URL, brokers, an address to listen at): a
            platform with weak parts in this folder is led there, and nowhere else. Kept as checksums: a DSN may hold a
            password.

    Raises:
        Misconfigured: There is something in it that the lab didn't make. Nothing was changed.
    """
    if not marked(data):
        _make(data)
    if missing := [each for each in own if each and not owns(data, each)]:
        with (data / MARKER).open("a", encoding="utf-8") as file:
            file.writelines(f"{_checksum(each)}\n" for each in missing)


def owns(data: Path, place: str) -> bool:
    """Whether the lab has said that this is one of its own, for this folder."""
    try:
        return marked(data) and _checksum(place) in (data / MARKER).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return False


def _checksum(place: str) -> str:
    return f"own {hashlib.sha256(place.encode()).hexdigest()}"


def _make(data: Path) -> None:
    # As the product makes it: an embedded PostgreSQL that runs as another user must get through.
    data.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
    if any(data.iterdir()):
        raise Misconfigured([f"{data}: isn't empty, and the lab didn't make it; give the lab a folder of its own"])
    (data / MARKER).write_text(TEXT, "utf-8")


def marked(data: Path) -> bool:
    """Whether the lab made it: by a file of our own user's, and no link to one elsewhere."""
    try:
        status = (data / MARKER).lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
