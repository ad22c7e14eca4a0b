"""Which labs something goes on in, by their watchdogs: for a person who asks in the wrong folder."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

MODULE = b"seawall.lab.arm"


def folders() -> list[Path]:
    """Of armed reverts, each with a watchdog of our own user that lives."""
    found = set[Path]()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if entry.stat().st_uid != os.geteuid():
                continue
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if MODULE in words[:-1] and words[words.index(MODULE) - 1] == b"-m":
                found.add(Path(os.fsdecode(words[words.index(MODULE) + 1])))
    return sorted(found)


def labs(but: Path) -> list[Path]:
    """The labs' own folders, without one."""
    return [each.parent for each in folders() if each.parent != but.absolute()]
