"""Which data folder, and which settings, a command means."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from seawall.journal.filesystem import LocalFilesystem
from seawall.machine.folder import Folder
from seawall.settings import Settings, environ, read

ROOT_DATA = "/var/lib/seawall/default"


def folder_of(data: str | None) -> Folder:
    """``--data``, else SEAWALL_DATA, else a folder that this user may have."""
    return Folder(Path(data or environ("SEAWALL_DATA") or _default()), LocalFilesystem())


def _default() -> str:
    if os.geteuid() == 0:
        return ROOT_DATA
    return str(Path(environ("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "seawall")


def reader(folder: Folder, config: str | None, flags: Mapping[str, object]) -> Callable[[], Settings]:
    """Reads the settings, now and again on SIGHUP: flags, environment, and ``--config`` or DIR/seawall.toml."""
    path = Path(config) if config else folder.settings_file
    return lambda: read(flags, config=path if config or path.exists() else None)
