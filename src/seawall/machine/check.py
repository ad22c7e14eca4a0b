"""What on this machine will bite, said at start in one line each, with its cure. A warning never refuses to start."""

from __future__ import annotations

import os
import resource
import sys
import time
from pathlib import Path

from seawall.kernel.clock import Clock
from seawall.kernel.error import Misconfigured

FILES_MIN = 4096
FILES_WANTED = 65_536
FREE_BYTES_MIN = 1024**3
CLOCK_EARLIEST_S = 1_760_000_000
"""October 2025: no machine that runs this code can honestly say an earlier time."""

CLOCK_BACK_S = 120
VOLATILE = frozenset({"tmpfs", "ramfs", "overlay", "aufs", "zram"})
NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "ceph", "glusterfs", "fuse.s3fs", "afs"}
)


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


def warnings(folder: Path, clock: Clock, *, mounts: str | None = None) -> list[str]:
    """One line for each thing about the folder's disk and the clock that will bite.

    Args:
        folder: An existing data folder.
        mounts: Text of /proc/self/mountinfo; read when None.
    """
    found = [_filesystem(folder, _mounts() if mounts is None else mounts), _space(folder)]
    found.append(_clock(folder, clock.wall_us() / 1e6))
    return [line for line in found if line]


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


def _mounts() -> str:
    try:
        return Path("/proc/self/mountinfo").read_text("utf-8", "replace")
    except OSError:
        return ""


def _filesystem(folder: Path, mounts: str) -> str | None:
    kind = filesystem_of(folder, mounts)
    if kind in VOLATILE:
        return f"{folder} is on {kind}, which a restart may empty: accepted events would be lost; use a disk"
    if kind in NETWORK:
        return (
            f"{folder} is on {kind}, a network file system whose fsync and locks can't be relied on: use a local disk"
        )
    return None


def _space(folder: Path) -> str | None:
    room = os.statvfs(folder)
    free = room.f_bavail * room.f_frsize
    if free < FREE_BYTES_MIN:
        least = FREE_BYTES_MIN >> 20
        return f"{folder} has {free >> 20} MiB free, and a full disk refuses events: free at least {least} MiB"
    return None


def _clock(folder: Path, now_s: float) -> str | None:
    if now_s < CLOCK_EARLIEST_S:
        today = time.strftime("%Y-%m-%d", time.gmtime(now_s))
        return f"the clock says {today}: signatures that carry a time will be refused; set the clock"
    newest = max((p.stat().st_mtime for p in folder.iterdir() if not p.is_symlink()), default=0.0)
    if newest - now_s > CLOCK_BACK_S:
        return f"the clock is {newest - now_s:.0f} s behind the newest file in {folder}: it went back; set the clock"
    return None
