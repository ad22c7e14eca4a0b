"""Checks of the machine: ports, time to stop, disk, clock, files, secrets."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from seawall.machine.check import FILES_MIN
from seawall.machine.doctor.finding import Finding, Severity
from seawall.machine.stopping import BESIDE_S

FREE_BYTES_MIN = 1 << 30
FREE_SHARE_MIN = 0.10
FREE_INODES_MIN = 10_000
EARLIEST_S = 1_760_000_000
"""October 2025: no machine that runs this code can honestly say an earlier time."""

KILLERS = {"kubernetes": 30.0, "container": 10.0, "systemd": 90.0}
"""What each kind of supervisor waits between SIGTERM and SIGKILL unless it is told otherwise."""

VOLATILE = frozenset({"tmpfs", "ramfs", "overlay", "aufs", "zram"})
NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "ceph", "glusterfs", "fuse.s3fs", "afs"}
)


def ports(
    used: Mapping[str, Collection[int]], ephemeral: tuple[int, int], reserved: Sequence[tuple[int, int]]
) -> Iterator[Finding]:
    """Ports that listeners and dependencies of this machine use, against those that the kernel gives to connections.

    Args:
        used: By what uses them.
        ephemeral: First and last of net.ipv4.ip_local_port_range.
        reserved: Ranges of net.ipv4.ip_local_reserved_ports.
    """
    first, last = ephemeral
    for name, port in ((name, port) for name, each in used.items() for port in each):
        if first <= port <= last and not any(low <= port <= high for low, high in reserved):
            yield Finding(
                check="ports",
                severity=Severity.WARNING,
                what=f"port {port} of {name} lies in the kernel's range for outgoing connections ({first} to {last})",
                why="any connection may hold it when the listener starts again, which then can't: an outage that lasts"
                " until the connection ends",
                cure=f"choose a port below {first}, or add it to net.ipv4.ip_local_reserved_ports",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervision:
    """Who ends this process, and after how long."""

    kind: str = ""  # kubernetes, container or systemd; "": nobody known
    kill_after_s: float | None = None  # None: not known


def stop_budget(stages: Mapping[str, float], who: Supervision) -> Iterator[Finding]:
    """The time that stopping in order may take, against the supervisor's patience.

    Args:
        stages: Seconds by stage, as ``machine.stopping.stages`` gives them to `up`.
    """
    total_s = sum(stages.values()) + BESIDE_S
    parts = " + ".join(f"{name} {seconds:g}" for name, seconds in stages.items())
    takes = f"stopping may take {total_s:g} s ({parts} + {BESIDE_S:g} beside them)"
    why = "a supervisor that kills in the middle of the shutdown handler lost a spool (Heap's zone cut); here it costs"
    why += " held requests and a recovery at the next start"
    if who.kill_after_s is not None and who.kill_after_s < total_s:
        yield Finding(
            check="stop-budget",
            severity=Severity.CRITICAL,
            what=f"{takes}, and {who.kind or 'its supervisor'} kills after {who.kill_after_s:g} s",
            why=why,
            cure=f"give it at least {total_s:g} s (TimeoutStopSec=, terminationGracePeriodSeconds, docker stop -t), or"
            " lower the stop_…_s settings",
        )
    elif who.kill_after_s is None and who.kind and KILLERS[who.kind] < total_s:
        yield Finding(
            check="stop-budget",
            severity=Severity.WARNING,
            what=f"{takes}, and how long {who.kind} waits isn't known; its default is {KILLERS[who.kind]:g} s",
            why=why,
            cure=f"give it at least {total_s:g} s, and tell us: kill_after_s in seawall.toml, or SEAWALL_KILL_AFTER_S",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """One file system that something of ours lies on."""

    what: str  # data folder, PostgreSQL's data
    path: str
    kind: str  # its type; "" when unknown
    bytes_free: int
    bytes_all: int
    inodes_free: int | None = None  # None: it doesn't count them


def disk(rooms: Sequence[Room]) -> Iterator[Finding]:
    """Room to go on in an outage, on something that keeps what was written."""
    for room in rooms:
        yield from _filesystem(room)
        free = f"{room.bytes_free >> 20} MiB of {room.bytes_all >> 20}"
        if room.bytes_free < FREE_BYTES_MIN:
            yield Finding(
                check="disk",
                severity=Severity.CRITICAL,
                what=f"{room.what} {room.path} has {free} free",
                why="a full disk refuses events, and an outage of the store is when the journal grows",
                cure=f"free at least {FREE_BYTES_MIN >> 20} MiB",
            )
        elif room.bytes_free < FREE_SHARE_MIN * room.bytes_all:
            yield Finding(
                check="disk",
                severity=Severity.WARNING,
                what=f"{room.what} {room.path} has {free} free",
                why="the journal grows while the store is away, and a disk this full doesn't last long",
                cure=f"free {round(FREE_SHARE_MIN * 100)} % of it, or give it a volume of its own",
            )
        if room.inodes_free is not None and room.inodes_free < FREE_INODES_MIN:
            yield Finding(
                check="disk",
                severity=Severity.WARNING,
                what=f"{room.what} {room.path} has {room.inodes_free} inodes free",
                why="without one no new segment can be made, whatever room is left",
                cure="remove small files, or use a file system with more inodes",
            )


def _filesystem(room: Room) -> Iterator[Finding]:
    if room.kind in VOLATILE:
        yield Finding(
            check="disk",
            severity=Severity.CRITICAL,
            what=f"{room.what} {room.path} is on {room.kind}",
            why="a restart may empty it, and accepted events with it",
            cure="put it on a disk (in a container: a volume)",
        )
    elif room.kind in NETWORK:
        yield Finding(
            check="disk",
            severity=Severity.CRITICAL,
            what=f"{room.what} {room.path} is on {room.kind}, a network file system",
            why="its fsync and locks can't be relied on, so what was acknowledged may be lost with the server",
            cure="put it on a local disk",
        )


CLOCK_CURE = "set the clock, and keep it set (chrony, systemd-timesyncd)"


def store_clock(ahead_s: float) -> Iterator[Finding]:
    """How far the store's clock is ahead of ours."""
    if abs(ahead_s) > 2.0:
        yield Finding(
            check="clock",
            severity=Severity.CRITICAL if abs(ahead_s) > 60.0 else Severity.WARNING,
            what=f"the store's clock and ours differ by {abs(ahead_s):.1f} s",
            why="signatures that carry a time are refused beyond their window, and timers fire early or late",
            cure=CLOCK_CURE,
        )


def clock(*, now_s: float, newest_file_ahead_s: float) -> Iterator[Finding]:
    """Our clock against what it said before.

    Args:
        now_s: What ours says, since 1970.
        newest_file_ahead_s: How far the newest file of the data folder lies in the future.
    """
    if now_s < EARLIEST_S:
        yield Finding(
            check="clock",
            severity=Severity.CRITICAL,
            what=f"the clock says {time.strftime('%Y-%m-%d', time.gmtime(now_s))}, before this program was written",
            why="signatures that carry a time will be refused",
            cure=CLOCK_CURE,
        )
    if newest_file_ahead_s > 120.0:
        yield Finding(
            check="clock",
            severity=Severity.WARNING,
            what=f"the newest file of the data folder lies {newest_file_ahead_s:.0f} s in the future",
            why="the clock went back: signatures that carry a time will be refused",
            cure=CLOCK_CURE,
        )


def open_files(hard: int | None) -> Iterator[Finding]:
    """Descriptors that may be had; None: without a limit."""
    if hard is not None and hard < FILES_MIN:
        yield Finding(
            check="open-files",
            severity=Severity.WARNING,
            what=f"only {hard} open files are allowed",
            why="each connection and each held request is one, so a busy minute refuses clients",
            cure=f"allow {FILES_MIN} or more: LimitNOFILE=, ulimit -Hn",
        )


def secrets(modes: Mapping[str, int]) -> Iterator[Finding]:
    """Files that hold secrets, with their modes."""
    for path, mode in modes.items():
        if mode & 0o077:
            yield Finding(
                check="secret-files",
                severity=Severity.CRITICAL,
                what=f"{path} has mode {mode & 0o777:04o}",
                why="others on this machine can read a secret of the platform",
                cure=f"chmod 600 {path}, and change what it holds if anybody may have read it",
            )
