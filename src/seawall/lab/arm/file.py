"""What lies in the folder of armed reverts.

``ID.json``
    an `Armed`: somebody has broken something, or is about to, and this undoes it. Removed when it is undone.
``log.jsonl``
    a line for whatever became of each: armed, undone and by whom, tried in vain and why.
``watchdog.json``
    which process holds them, and for which runner.
``stop``
    somebody wants the run to end (``seawall lab panic``); nothing is armed while it is there.

Deadlines are in seconds since boot, which all processes share and no clock change moves; after a reboot each is over.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from seawall.lab.arm.revert import Revert
from seawall.lab.part.process import Identity, identity

LOG, WATCHDOG, STOP = "log.jsonl", "watchdog.json", "stop"
LOG_BYTES_MAX = 16 * 1024 * 1024
"""A log that is larger is set aside; one older one is kept."""


class Armed(msgspec.Struct, frozen=True, kw_only=True):
    """One fault that may be there, and what undoes it."""

    id: str
    run: str  # of record.Record
    fault: str
    target: str
    revert: Revert
    armed: str  # ISO 8601, UTC, for people
    deadline_s: float  # since boot
    boot: str  # which boot

    @property
    def left_s(self) -> float:
        """Seconds until the deadline; none after a reboot."""
        return self.deadline_s - since_boot() if self.boot == boot() else 0.0


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds what is armed."""

    pid: int
    start: str
    runner_pid: int
    runner_start: str

    @property
    def watchdog(self) -> Identity | None:
        """The watchdog, when it lives."""
        return _living(self.pid, self.start)

    @property
    def runner(self) -> Identity | None:
        """The runner, when it lives."""
        return _living(self.runner_pid, self.runner_start)


def _living(pid: int, start: str) -> Identity | None:
    who = identity(pid)
    return who if who is not None and who.started == start else None


def since_boot() -> float:
    """Seconds, those asleep too: a fault may not outlive a night in which the machine slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot() -> str:
    """Names this boot of the machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def write(folder: Path, armed: Armed) -> None:
    """Keep one.

    Durability: on stable storage before return, its name too: what is undone by a command at another machine must be
    known also after this one has lost its power.
    """
    _keep(folder, f"{armed.id}.json", msgspec.json.encode(armed))


def read(folder: Path, id: str) -> Armed | None:
    """One of them; None when it is undone.

    Raises:
        PermissionError: Another user wrote it. What undoes may be any command: it is done for nobody else.
        msgspec.ValidationError, msgspec.DecodeError: It can't be understood.
    """
    try:
        with (folder / f"{id}.json").open("rb") as file:
            if (owner := os.fstat(file.fileno()).st_uid) != os.geteuid():
                raise PermissionError(f"{id}.json belongs to user {owner}")
            return msgspec.json.decode(file.read(), type=Armed)
    except FileNotFoundError:
        return None


def read_all(folder: Path) -> tuple[list[Armed], list[str]]:
    """(all that is armed, the oldest first; names of files that can't be understood)."""
    found: list[Armed] = []
    unreadable: list[str] = []
    for path in folder.glob("*.json"):
        if path.name == WATCHDOG:
            continue
        try:
            if (armed := read(folder, path.stem)) is not None:
                found.append(armed)
        except PermissionError:
            unreadable.append(f"{path.name} (of another user)")
        except (OSError, msgspec.MsgspecError):
            unreadable.append(path.name)
    return sorted(found, key=lambda armed: (armed.armed, armed.id)), unreadable


def remove(folder: Path, id: str) -> bool:
    """It is undone. True for exactly one of those who undid it at the same time."""
    try:
        (folder / f"{id}.json").unlink()
    except FileNotFoundError:
        return False
    return True


def hold(folder: Path, holder: Holder) -> None:
    """Say who holds them."""
    _keep(folder, WATCHDOG, msgspec.json.encode(holder))


def holder(folder: Path) -> Holder | None:
    """Who holds them; None when nobody was ever told."""
    try:
        return msgspec.json.decode((folder / WATCHDOG).read_bytes(), type=Holder)
    except (OSError, msgspec.MsgspecError):
        return None


def log(folder: Path, what: str, **fields: object) -> None:
    """One line. A full disk stops no revert: it isn't written then."""
    line = {"at": now(), "pid": os.getpid(), "what": what, **fields}
    with contextlib.suppress(OSError):
        path = folder / LOG
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size > LOG_BYTES_MAX:
                path.replace(folder / (LOG + ".1"))
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def lines(folder: Path) -> list[Mapping[str, object]]:
    """The log; a line that a crash tore is left out."""
    found: list[Mapping[str, object]] = []
    with contextlib.suppress(OSError):
        for line in (folder / LOG).read_text("utf-8", "replace").splitlines():
            with contextlib.suppress(ValueError):
                if isinstance(said := json.loads(line), dict):
                    found.append(said)
    return found


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _keep(folder: Path, name: str, data: bytes) -> None:
    beside = folder / (name + ".new")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(folder / name)
    finally:
        # On a full disk what was begun takes room from what is still to be armed, and is looked for by nobody.
        beside.unlink(missing_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
