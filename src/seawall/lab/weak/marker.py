"""The file by which a data folder says that the lab made it, and that nothing in it is anybody's."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from seawall.kernel.error import Misconfigured

MARKER = "made-by-the-lab"
TEXT = "This data folder was made by Seawall's lab. Platforms with weak parts run in it: nothing here is safe.\n"


def mark(data: Path) -> None:
    """Make a data folder for the lab. Harmless when it is one already.

    Raises:
        Misconfigured: There is something in it that the lab didn't make. Nothing was changed.
    """
    if marked(data):
        return
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
