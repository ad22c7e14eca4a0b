"""What undoes a fault, as data: written down before the fault is done, so that any process can do it.

Each is idempotent: it may have been done before, by somebody else, or there may be nothing left to undo.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import singledispatch
from pathlib import Path
from signal import SIGCONT, SIGKILL

import msgspec

from seawall.kernel.error import Rejected, Unavailable
from seawall.lab.part.catalog import CATALOG
from seawall.lab.part.node import MARK
from seawall.lab.part.process import Identity, Node, gone, kill_group, send, stopped
from seawall.lab.part.proxy import FaultProxy
from seawall.lab.zone import gate
from seawall.lab.zone.net import Net

COMMAND_S = 30.0
CONTINUED_S = 2.0
PART_S = 60.0
ENDED_S = 5.0
AFTER_S = 0.5
OUTPUT_BYTES_MAX = 2000


class _Fields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="do"):
    """What all have: strict fields, and ``do`` that names the kind."""


class ProxyClear(_Fields, frozen=True, kw_only=True, tag="proxy.clear"):
    """No fault is on a line of a proxy any more."""

    folder: str  # of the part
    link: str


class Continue(_Fields, frozen=True, kw_only=True, tag="cont"):
    """A process that SIGSTOP holds goes on."""

    pid: int
    start: str  # the kernel's ticks since boot at which it began: a number alone may be somebody else's


class PartUp(_Fields, frozen=True, kw_only=True, tag="part.up"):
    """Every node of a part runs and answers."""

    folder: str  # of the part
    kind: str  # its name in the catalogue
    fetched: str  # where programs lie


class ZoneHeal(_Fields, frozen=True, kw_only=True, tag="zone.heal"):
    """A host in a zone has its way to all but the balancer again."""

    folder: str  # of the network
    host: str


class ZoneMend(_Fields, frozen=True, kw_only=True, tag="zone.mend"):
    """No line is a black hole for a process on a host any more."""

    folder: str  # of the edge
    address: str  # of the host, inside


class ZoneDown(_Fields, frozen=True, kw_only=True, tag="zone.down"):
    """No network of zones is there any more; what ran in it must have ended."""

    folder: str


class Command(_Fields, frozen=True, kw_only=True, tag="command"):
    """A command ended with 0; or, however it ended, the one that looks whether it helped says that it did."""

    argv: list[str]
    verify: list[str] = []
    timeout_s: float = COMMAND_S  # of each
    absent: list[str] = []  # looks for the fault: ends with 1 when it isn't there, with 0 when it is
    look_s: float = 0.0  # of ``verify`` and ``absent``; 0: as ``timeout_s``
    folder: str = ""  # in which they run; "": whoever runs them
    ends: str = ""  # a pid file: that process may still be breaking things, and is ended first


Revert = ProxyClear | Continue | PartUp | ZoneHeal | ZoneMend | ZoneDown | Command


def parse(said: Mapping[str, object]) -> Revert:
    """A revert from its fields.

    Raises:
        Rejected: It isn't one: says which field, and what is wrong.
    """
    try:
        made: Revert = msgspec.convert(dict(said), Revert)
    except msgspec.ValidationError as error:
        raise Rejected(400, "not a revert", str(error)) from error
    if isinstance(made, PartUp) and made.kind not in CATALOG:
        raise Rejected(400, "not a revert", f"part {made.kind!r}; there are {', '.join(CATALOG)}")
    if isinstance(made, Command) and not (made.argv and 0 < made.timeout_s <= PART_S and 0 <= made.look_s <= PART_S):
        raise Rejected(400, "not a revert", f"a command needs argv, and timeout_s of at most {PART_S:g}")
    return made


def said(revert: Revert) -> dict[str, object]:
    """Its fields, as `parse` takes them."""
    fields: dict[str, object] = msgspec.to_builtins(revert)
    return fields


def words(revert: Revert) -> str:
    """What it does, for people."""
    if isinstance(revert, ProxyClear):
        return f"mend the line {revert.link}"
    if isinstance(revert, Continue):
        return f"let process {revert.pid} go on"
    if isinstance(revert, PartUp):
        return f"start {revert.kind}"
    if isinstance(revert, ZoneHeal):
        return f"let host {revert.host} reach everything"
    if isinstance(revert, ZoneMend):
        return f"mend the lines of {revert.address}"
    if isinstance(revert, ZoneDown):
        return f"remove the zones of {revert.folder}"
    # As a person would type it: when it fails, somebody does.
    return f"run {shlex.join(revert.argv)}" + (f" in {revert.folder}" if revert.folder else "")


def undo(revert: Revert) -> str:
    """Do it, and look whether it is done. Bounded: a minute, or twice a command's own time.

    Returns:
        What was found, for the log.

    Raises:
        SeawallError: It isn't undone yet; says why. To be tried again.
    """
    try:
        return _undo(revert)
    except OSError as error:
        raise Unavailable(words(revert), str(error)) from error


@singledispatch
def _undo(revert: object) -> str:
    raise AssertionError(f"nobody knows how to undo {revert!r}")


@_undo.register
def _(revert: ProxyClear) -> str:
    folder = Path(revert.folder)
    proxy = FaultProxy(folder)
    if Node("proxy", folder).who() is None:
        # A proxy keeps its links over a restart, but not their faults.
        return "the proxy is gone, and its faults with it"
    try:
        proxy.clear(revert.link)
        left = proxy.links()[revert.link]["faults"]
    except Rejected as error:
        if error.status == 404:
            return "there is no such line"
        raise
    except Unavailable:
        if Node("proxy", folder).who() is None:
            return "the proxy is gone, and its faults with it"
        raise
    if left:
        raise Unavailable(revert.link, f"its line still has {left}")
    return "the line is whole"


@_undo.register
def _(revert: Continue) -> str:
    who = Identity(revert.pid, revert.start)
    latest = time.monotonic() + CONTINUED_S
    while True:
        if not send(who, SIGCONT):
            return "the process is gone"
        if not stopped(who):
            return "it goes on"
        if time.monotonic() > latest:
            raise Unavailable(f"process {who.pid}", "it is still stopped")
        time.sleep(0.01)


@_undo.register
def _(revert: PartUp) -> str:
    folder = Path(revert.folder)
    if not (folder / MARK).is_file():
        # Nothing is made anew: whoever removed the part doesn't want it back.
        return "the part was removed"
    entry = CATALOG[revert.kind]
    part = entry.make()(folder, fetched=Path(revert.fetched), **entry.options)
    down = [node for node in part.nodes if part.pid(node) is None]
    if len(down) == len(part.nodes):
        part.up(PART_S)
    elif down:
        # At once, and not until the part has healed: a Redis that was a primary is made a replica only after 10 s.
        with ThreadPoolExecutor(len(down), thread_name_prefix="start") as pool:
            for started in [pool.submit(part.start, node, PART_S) for node in down]:
                started.result()
    return "every node answers"


@_undo.register
def _(revert: ZoneHeal) -> str:
    return Net(Path(revert.folder)).heal(revert.host)


@_undo.register
def _(revert: ZoneMend) -> str:
    return gate.mend(Path(revert.folder), revert.address)


@_undo.register
def _(revert: ZoneDown) -> str:
    Net(Path(revert.folder)).down()
    return "there are none"


@_undo.register
def _(revert: Command) -> str:
    if revert.ends:
        _end(Path(revert.ends))
    look_s = revert.look_s or revert.timeout_s
    try:
        _command(revert.argv, revert.timeout_s, revert.folder)
        done = "done"
    except Unavailable as error:
        if not revert.absent and not revert.verify:
            raise
        # What isn't there can't be removed: whether it is there, says who looks.
        done = str(error)
    if revert.verify:
        _command(revert.verify, look_s, revert.folder)
    if revert.absent:
        _command(revert.absent, look_s, revert.folder, wanted=1)
    return f"{done}, and verified" if revert.verify or revert.absent else done


def _end(file: Path) -> None:
    """The process that a file names, and all that it has started, also when it has ended itself."""
    was = Node(file.stem, file.parent).was()
    if was is None or _before_boot(file) or not kill_group(was):
        return
    if not gone(was, ENDED_S):
        raise Unavailable(f"process {was.pid}", "it doesn't end")
    # What it had asked another machine for may be on its way there.
    time.sleep(AFTER_S)


def _before_boot(file: Path) -> bool:
    """Whether it is from before the machine's last start: its numbers are others' by now."""
    try:
        return file.stat().st_mtime < time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    except OSError:
        return True


def _command(argv: list[str], timeout_s: float, folder: str, *, wanted: int = 0) -> None:
    # A file, no pipe: what the command starts and leaves running would keep a pipe open, and us waiting.
    with tempfile.TemporaryFile() as told:
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=told, stderr=told, start_new_session=True, cwd=folder or None
        )  # fmt: skip
        try:
            code = child.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise Unavailable(argv[0], f"{' '.join(argv)} didn't end within {timeout_s:g} s") from error
        finally:
            if child.returncode is None:
                # With all that it has started: it is tried again, and what hangs would grow with each try.
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, SIGKILL)
                with suppress(subprocess.TimeoutExpired):
                    child.wait(CONTINUED_S)
        if code != wanted:
            told.seek(max(0, told.seek(0, 2) - OUTPUT_BYTES_MAX))
            text = told.read().decode("utf-8", "replace").strip()
            raise Unavailable(argv[0], f"{' '.join(argv)} ended with {code}: {text}")
