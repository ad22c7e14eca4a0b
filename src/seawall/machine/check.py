"""What a process of ours sees to before it starts: a platform that can keep its promises, and enough open files."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from seawall.kernel.error import Misconfigured

FILES_MIN = 4096
FILES_WANTED = 65_536


def refuse_platform() -> None:
    """Raises Misconfigured where Seawall can't keep its promises at all."""
    if sys.platform not in ("linux", "darwin"):
        raise Misconfigured(
            [f"Seawall runs on Linux (and on macOS for development), not on {sys.platform}: use a Linux machine"]
        )


def raise_open_files() -> str | None:
    """Raise the soft limit of open files as far as allowed; a warning when that is still too few.

    Each held request and each connection is a file; the default of 1024 would refuse the thousandth client.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    top = FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, FILES_WANTED)
    if soft != resource.RLIM_INFINITY and soft < top:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (top, hard))
            soft = top
        except (ValueError, OSError):
            pass  # a platform's own ceiling (macOS): the warning below says what is left
    if soft != resource.RLIM_INFINITY and soft < FILES_MIN:
        return (
            f"only {soft} open files are allowed, {FILES_MIN} are needed under load: raise `ulimit -Hn` (LimitNOFILE=)"
        )
    return None


def forbid_cores() -> None:
    """Write no core when this process crashes: it would hold the key, and every secret of every source.

    Only the soft limit: who needs one may raise it again (``prlimit --core=unlimited --pid …``).
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def filesystem_of(folder: Path, mounts: str) -> str:
    """The type of the file system that holds ``folder``: the longest mount point above it; "" when unknown."""
    best, kind = "", ""
    target = str(folder.resolve())
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split()
        if len(fields) < 5 or not right:
            continue
        point = fields[4].replace("\\040", " ")
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, right.split()[0]
    return kind
